"""Verdicts of one judge, kept as they come: an interrupted job goes on, processes share the work.

The file holds a line of json for each verdict, group after group. While a group is asked about,
each process adds its own to a file beside it, NAME.PROCESS.jsonl, with their places; then the first
process puts all of them in order. So the file is the same, however many processes there were and
however often they were stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from glob import escape
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from training.jobs.files import read_lines, replacing
from training.judges.judge import Judge, Outcome, Question, ask_parts
from training.precompute.processes import Worker

Facts = Mapping[str, Any]
"""What a verdict's line says of its question."""
PLACE = "place"


class Verdicts:
    """Those of the judge that is called `identity`.

    Raises ValueError for a file of another judge's verdicts, or of other questions.
    """

    def __init__(self, path: Path, identity: str, worker: Worker | None = None) -> None:
        self.path = path
        self.identity = identity
        self.worker = worker or Worker()
        path.parent.mkdir(parents=True, exist_ok=True)

    def on(
        self,
        match: str,
        facts: Sequence[Facts],
        question_of: Callable[[int], tuple[Judge, Question]],
        *,
        workers: int = 1,
        together: int = 1,
    ) -> list[Outcome]:
        """The verdict on each question of a group, in their order; those that are kept are not
        asked again.

        together: questions that are asked as one part, which is always the same; `workers` parts
        are asked at a time. Raises JudgeError at the first question that nobody answers.
        """
        known = self._known(match, facts)
        self.worker.wait()  # until all have read what there is
        count = len(facts)
        parts = [range(first, min(first + together, count)) for first in range(0, count, together)]
        missing = [part for part in parts if any(place not in known for place in part)]
        own = missing[self.worker.index :: self.worker.count]
        if own:
            asked = ask_parts(
                ([question_of(place) for place in part] for part in own), workers=workers
            )
            with self._own_path().open("a", encoding="utf-8") as file:
                shown = tqdm(asked, match, len(own), mininterval=5)
                for part, outcomes in zip(own, shown, strict=True):
                    lines = [
                        self._line(match, facts[place], outcome, {PLACE: place})
                        for place, outcome in zip(part, outcomes, strict=True)
                    ]
                    file.write("".join(lines))
                    file.flush()
        self.worker.wait()
        known = self._known(match, facts)
        self.worker.wait()  # until all have read them
        outcomes = [known[place] for place in range(count)]
        if self.worker.is_first:
            self._put_in_order(match, facts, outcomes)
        self.worker.wait()
        return outcomes

    def _known(self, match: str, facts: Sequence[Facts]) -> dict[int, Outcome]:
        mine = (record for record in self._records(self.path) if record["match"] == match)
        beside = chain.from_iterable(self._records(path) for path in parts_of(self.path))
        placed = chain(
            enumerate(mine),
            ((record[PLACE], record) for record in beside if record["match"] == match),
        )
        known: dict[int, Outcome] = {}
        for place, record in placed:
            said = dict(facts[place]) if place < len(facts) else None
            if said is None or any(record.get(key) != value for key, value in said.items()):
                raise ValueError(f"{self.path} holds verdicts on other questions")
            known[place] = record["outcome"]
        return known

    def _records(self, path: Path) -> Iterator[dict[str, Any]]:
        mine = path == self._own_path() or (path == self.path and self.worker.is_first)
        for record in read_lines(path) if mine else _whole(path):
            if record["judge"] != self.identity:
                raise ValueError(f"{path} holds verdicts of another judge than {self.identity!r}")
            yield record

    def _put_in_order(self, match: str, facts: Sequence[Facts], outcomes: list[Outcome]) -> None:
        parts = {path: list(self._records(path)) for path in parts_of(self.path)}
        if any(each["match"] == match for records in parts.values() for each in records):
            others = [each for each in self._records(self.path) if each["match"] != match]
            lines = [json.dumps(each) + "\n" for each in others]
            lines += [
                self._line(match, of, outcome) for of, outcome in zip(facts, outcomes, strict=True)
            ]
            _write(self.path, lines)
        for path, records in parts.items():
            # What a run that was stopped had of a later group stays.
            left = [json.dumps(each) + "\n" for each in records if each["match"] != match]
            if not left:
                path.unlink()
            elif len(left) < len(records):
                _write(path, left)

    def _line(self, match: str, facts: Facts, outcome: Outcome, more: Facts | None = None) -> str:
        record = {"judge": self.identity, "match": match, **facts, "outcome": outcome}
        return json.dumps(record | dict(more or {})) + "\n"

    def _own_path(self) -> Path:
        return self.path.with_suffix(f".{self.worker.index}{self.path.suffix}")


def parts_of(path: Path) -> list[Path]:
    """The files beside it in which processes have verdicts that are not in order yet."""
    found = sorted(path.parent.glob(f"{escape(path.stem)}.*{path.suffix}"))
    return [each for each in found if each.stem.rpartition(".")[2].isdecimal()]


def _write(path: Path, lines: Sequence[str]) -> None:
    with replacing(path) as unfinished:
        unfinished.write_text("".join(lines), encoding="utf-8")


def _whole(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that another process writes; none where there is no file."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]
