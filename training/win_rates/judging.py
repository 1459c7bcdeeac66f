"""The judge asked about each method's pictures, and the shares that they win.

Legend: R tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import load_file

from training.jobs.files import read_lines
from training.judges.judge import Judge, Outcome, Question, ask_all, shares
from training.judges.options import JudgeOf
from training.win_rates.methods import Task
from training.win_rates.win_rates_config import ANOTHER, BASE, SPLITS, WinRatesConfig


def pictures_of(config: WinRatesConfig, method: str, count: int) -> Iterator[Image.Image]:
    """What a method painted, in the order of the tasks; one part in memory at a time."""
    for part in range(-(-count // config.batch)):
        shard = load_file(config.out / "pictures" / f"{method}-{part:05d}.safetensors")
        for image_HW3 in shard["image_BHW3"].numpy():
            yield Image.fromarray(image_HW3)


def judged(
    config: WinRatesConfig, tasks: Sequence[Task], judge_of: JudgeOf
) -> dict[str, dict[str, Any]]:
    """ "METHOD over OTHER": win rates for each split and all, and what was dropped."""
    arms = [*config.adapters, *([ANOTHER] if config.another else [])]
    matches = [(method, BASE) for method in arms] + [(arms[0], each) for each in arms[1:]]
    report: dict[str, dict[str, Any]] = {}
    for ours, theirs in matches:
        outcomes = ask(config, tasks, judge_of, ours, theirs)
        groups: dict[str, list[int]] = {
            split: [n for n, task in enumerate(tasks) if task.split == split] for split in SPLITS
        }
        groups["all"] = list(range(len(tasks)))
        report[f"{ours} over {theirs}"] = {
            group: share_won([tasks[n] for n in own], [outcomes[n] for n in own], config.seed)
            for group, own in groups.items()
        }
    return report


def ask(
    config: WinRatesConfig, tasks: Sequence[Task], judge_of: JudgeOf, ours: str, theirs: str
) -> list[Outcome]:
    """Verdicts on every task, ours shown first; those that the folder holds are not asked again.

    Raises ValueError for verdicts of another judge of the same name.
    """
    path = config.out / f"verdicts-{config.judge}.jsonl"
    identity = judge_of(tasks[0].person.user).identity
    match = f"{ours} over {theirs}"
    records = read_lines(path)
    if any(record["judge"] != identity for record in records):
        raise ValueError(f"{path} holds verdicts of another judge than {identity!r}")
    outcomes: list[Outcome] = [record["outcome"] for record in records if record["match"] == match]
    shown = zip(
        tasks,
        pictures_of(config, ours, len(tasks)),
        pictures_of(config, theirs, len(tasks)),
        strict=True,
    )

    known = len(outcomes)

    def questions() -> Iterator[tuple[Judge, Question]]:
        for task, own, other in islice(shown, known, None):
            question = Question(task.person.choices(), task.prompt, own, other)
            yield judge_of(task.person.user), question

    with path.open("a") as file:
        for outcome in ask_all(questions(), workers=config.at_a_time):
            task = tasks[len(outcomes)]
            record = {
                "judge": identity,
                "match": match,
                "user": task.person.user,
                "prompt": task.prompt,
                "seed": task.seed,
                "outcome": outcome,
            }
            file.write(json.dumps(record) + "\n")
            file.flush()
            outcomes.append(outcome)
            print(f"{match}: {len(outcomes)}/{len(tasks)}", flush=True)
    return outcomes


def share_won(tasks: Sequence[Task], outcomes: Sequence[Outcome], seed: int) -> dict[str, Any]:
    """How often verdicts name the first picture (`judge.shares`), and what was dropped."""
    people = [task.person.user for task in tasks]
    first = [0] * len(tasks)
    return {
        **shares("share", outcomes, first, people, np.random.default_rng([seed, 61])),
        "asked": len(tasks),
        **{what: outcomes.count(what) for what in ("inconsistent", "unreadable")},
    }
