"""The judge asked about each method's pictures, and the shares that they win.

Legend: R tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from training.judges.judge import Judge, Outcome, Question, shares
from training.judges.options import JudgeOf
from training.judges.verdicts import Verdicts
from training.win_rates.methods import Task
from training.win_rates.win_rates_config import ANOTHER, BASE, SPLITS, WinRatesConfig


class Painted:
    """What a method painted, by the number of the task; one part in memory at a time."""

    def __init__(self, config: WinRatesConfig, method: str) -> None:
        self._config, self._method = config, method
        self._held: tuple[int, NDArray[np.uint8]] | None = None

    def __getitem__(self, task: int) -> Image.Image:
        part, within = divmod(task, self._config.batch)
        if self._held is None or self._held[0] != part:
            path = self._config.out / "pictures" / f"{self._method}-{part:05d}.safetensors"
            self._held = part, load_file(path)["image_BHW3"].numpy()
        return Image.fromarray(self._held[1][within])


def judged(
    config: WinRatesConfig, tasks: Sequence[Task], judge_of: JudgeOf, verdicts: Verdicts
) -> dict[str, dict[str, Any]]:
    """ "METHOD over OTHER": win rates for each split and all, and what was dropped."""
    arms = [*config.adapters, *([ANOTHER] if config.another else [])]
    matches = [(method, BASE) for method in arms] + [(arms[0], each) for each in arms[1:]]
    report: dict[str, dict[str, Any]] = {}
    for ours, theirs in matches:
        outcomes = ask(config, tasks, judge_of, verdicts, ours, theirs)
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
    config: WinRatesConfig,
    tasks: Sequence[Task],
    judge_of: JudgeOf,
    verdicts: Verdicts,
    ours: str,
    theirs: str,
) -> list[Outcome]:
    """Verdicts on every task, ours shown first; those that are kept are not asked again."""
    own, other = Painted(config, ours), Painted(config, theirs)

    def question_of(place: int) -> tuple[Judge, Question]:
        person, prompt = tasks[place].person, tasks[place].prompt
        question = Question(person.choices(), prompt, own[place], other[place])
        return judge_of(person.user), question

    facts = [{"user": task.person.user, "prompt": task.prompt, "seed": task.seed} for task in tasks]
    return verdicts.on(
        f"{ours} over {theirs}",
        facts,
        question_of,
        workers=config.at_a_time,
        together=config.together,
    )


def share_won(tasks: Sequence[Task], outcomes: Sequence[Outcome], seed: int) -> dict[str, Any]:
    """How often verdicts name the first picture (`judge.shares`), and what was dropped."""
    people = [task.person.user for task in tasks]
    first = [0] * len(tasks)
    return {
        **shares("share", outcomes, first, people, np.random.default_rng([seed, 61])),
        "asked": len(tasks),
        **{what: outcomes.count(what) for what in ("inconsistent", "unreadable")},
    }
