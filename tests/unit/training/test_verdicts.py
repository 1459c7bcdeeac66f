"""Verdicts that are kept: which are asked again, by whom, and what the file then holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.forked_workers import run_forked
from training.judges.judge import Judge, JudgeError, Outcome, Question
from training.judges.verdicts import Verdicts
from training.precompute.processes import Worker

DARK, LIGHT = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), (200, 200, 200))
FACTS = [{"user": f"user {n}", "prompt": "a fox"} for n in range(7)]
VERDICTS = ["first", "inconsistent"] * 3 + ["first"]


class Parity:
    """Prefers the dark picture of prompts with an even number, and the first of others; notes what
    it was asked together."""

    identity = "parity"

    def __init__(self) -> None:
        self.parts: list[list[str]] = []
        self.silent_from = 100

    def prefer(self, question: Question) -> int | None:
        return self.prefer_each([question])[0]

    def prefer_each(self, questions: Sequence[Question]) -> list[int | None]:
        self.parts.append([question.prompt for question in questions])
        if any(int(question.prompt) >= self.silent_from for question in questions):
            raise JudgeError("no answer")
        return [int(not int(each.prompt) % 2 and each.first is LIGHT) for each in questions]


def ask(
    judge: Parity, verdicts: Verdicts, match: str = "ppd over base", **how: int
) -> list[Outcome]:
    def question_of(place: int) -> tuple[Judge, Question]:
        return judge, Question([], str(place), DARK, LIGHT)

    return verdicts.on(match, FACTS, question_of, **how)


def test_what_is_kept_is_not_asked_again(tmp_path: Path) -> None:
    judge, path = Parity(), tmp_path / "verdicts.jsonl"
    judge.silent_from = 4
    with pytest.raises(JudgeError):
        ask(judge, Verdicts(path, "parity"))
    judge = Parity()
    assert ask(judge, Verdicts(path, "parity")) == VERDICTS
    assert judge.parts == [[str(n)] for n in (4, 5, 6) for _ in "ab"]
    kept = path.read_bytes()
    assert ask(Parity(), Verdicts(path, "parity")) == VERDICTS
    assert path.read_bytes() == kept
    assert [record["user"] for record in map(json.loads, kept.splitlines())] == [
        each["user"] for each in FACTS
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_asked_of_a_later_group_outlives_a_run_that_begins_with_an_earlier_one(
    tmp_path: Path,
) -> None:
    path = tmp_path / "verdicts.jsonl"
    ask(Parity(), Verdicts(path, "parity"), "a")
    stopped = Parity()
    stopped.silent_from = 4
    with pytest.raises(JudgeError):
        ask(stopped, Verdicts(path, "parity"), "b")
    judge = Parity()
    for match in "ab":
        ask(judge, Verdicts(path, "parity"), match)
    assert judge.parts == [[str(n)] for n in (4, 5, 6) for _ in "ab"]
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_other_verdicts_are_no_parts(tmp_path: Path) -> None:
    other = tmp_path / "taste.unseen.jsonl"
    ask(Parity(), Verdicts(other, "parity"))
    kept = other.read_bytes()
    ask(Parity(), Verdicts(tmp_path / "taste.jsonl", "parity"))
    assert other.read_bytes() == kept


def test_a_part_is_the_same_questions_wherever_a_run_was_stopped(tmp_path: Path) -> None:
    whole, parts = Parity(), [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    ask(whole, Verdicts(tmp_path / "whole.jsonl", "parity"), together=3)
    assert whole.parts[::2] == parts
    path = tmp_path / "verdicts.jsonl"
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]) + lines[4][:9])  # killed within a line, and a part
    judge = Parity()
    ask(judge, Verdicts(path, "parity"), together=3)
    assert judge.parts[::2] == parts[1:]
    assert path.read_text() == "".join(lines)


def test_groups_follow_each_other_in_the_order_in_which_they_were_asked_about(
    tmp_path: Path,
) -> None:
    path = tmp_path / "verdicts.jsonl"
    run_forked(
        lambda worker: [ask(Parity(), Verdicts(path, "parity", worker), match) for match in "ba"], 3
    )
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["match"] for record in found] == ["b"] * 7 + ["a"] * 7
    assert [record["user"] for record in found] == [each["user"] for each in FACTS] * 2
    assert all(record.keys() == {"judge", "match", "user", "prompt", "outcome"} for record in found)


def test_processes_share_the_parts(tmp_path: Path) -> None:
    def job(worker: Worker) -> None:
        judge = Parity()
        ask(judge, Verdicts(tmp_path / "verdicts.jsonl", "parity", worker), together=2)
        (tmp_path / f"asked-{worker.index}.json").write_text(json.dumps(judge.parts[::2]))

    run_forked(job)
    asked = [json.loads((tmp_path / f"asked-{n}.json").read_text()) for n in (0, 1)]
    assert asked == [[["0", "1"], ["4", "5"]], [["2", "3"], ["6"]]]


def test_verdicts_of_another_judge_or_on_other_questions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    ask(Parity(), Verdicts(path, "parity"))
    with pytest.raises(ValueError, match="another judge than 'somebody'"):
        ask(Parity(), Verdicts(path, "somebody"))
    path.write_text(path.read_text().replace("user 3", "user 8"))
    with pytest.raises(ValueError, match="verdicts on other questions"):
        ask(Parity(), Verdicts(path, "parity"))
