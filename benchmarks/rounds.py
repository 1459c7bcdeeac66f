"""Rounds in which every side runs once, in an order that alternates; what they say together."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.sides import Outcome
from ppd_model.types import ImageRequest
from training.jobs.configuration import git_commit

WAIT_S = 600.0


@dataclass(frozen=True)
class Goal:
    """What a ratio shall reach: at least, or at most."""

    ratio: str
    reach: float
    at_most: bool = False


def summary(values: dict[str, list[float]], goals: Sequence[Goal]) -> dict[str, Any]:
    """Values of every round, their medians and extremes, and whether the goals are met."""
    return {
        "values": {what: spread(rounds) for what, rounds in values.items()},
        "rounds": values,
        "goals": [
            vars(goal) | {"median": float(np.median(values[goal.ratio])), "met": met(goal, values)}
            for goal in goals
        ],
    }


def report_of(given: dict[str, Any], rows: dict[str, Any]) -> dict[str, Any]:
    """What a report begins with: the command's options, and on what it ran."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return given | {
        "rows": rows,
        "torch": str(torch.__version__),
        "machine": device,
        "commit": git_commit(),
    }


def show(report: dict[str, Any], out: Path | None) -> None:
    """Print a report, and write it."""
    text = json.dumps(report, indent=2)
    print(text)
    if out is not None:
        out.write_text(text + "\n")


def met(goal: Goal, values: dict[str, list[float]]) -> bool:
    """Whether the median reaches the goal."""
    median = float(np.median(values[goal.ratio]))
    return median <= goal.reach if goal.at_most else median >= goal.reach


def alternate(
    sides: dict[str, Callable[[Sequence[ImageRequest]], object]],
    requests: Callable[[int], Sequence[ImageRequest]],
    rounds: int,
) -> dict[str, list[float]]:
    """Seconds of each side in each round, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        work = requests(turn)
        for name in in_turn(sides, turn):
            elapsed_s = timed(lambda side=sides[name], work=work: side(work))  # type: ignore[misc]
            if turn:
                seconds[name].append(elapsed_s)
    return seconds


def alternate_steps(
    steps: dict[str, Callable[[], torch.Tensor]], rounds: int, repeats: int = 20
) -> dict[str, list[float]]:
    """Seconds of one step of each side in each round: the median of some."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name in in_turn(steps, turn):
            elapsed_s = float(np.median([timed(steps[name]) for _ in range(repeats)]))
            if turn:
                seconds[name].append(elapsed_s)
    return seconds


def in_turn(sides: dict[str, Any], turn: int) -> list[str]:
    """Their names, the other way round in every other round."""
    return list(sides) if turn % 2 else list(sides)[::-1]


def timed(work: Callable[[], object]) -> float:
    """Seconds by the wall, until a device that works by itself is done too."""
    started_s = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started_s


def wait_for(outcomes: Sequence[Outcome]) -> None:
    """Until all are there. Raises AssertionError if one never comes."""
    for outcome in outcomes:
        assert outcome.done.wait(WAIT_S), "a request was never answered"


def over(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """The ratio in each round."""
    return [a / b for a, b in zip(one, other, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {
        "median": float(np.median(values)),
        "least": float(min(values)),
        "most": float(max(values)),
    }


def draw(rows: dict[str, dict[str, Any]], path: Path) -> None:
    """Every goal's ratio, each round a dot, the goal a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    goals = [(name, row, goal) for name, row in rows.items() for goal in row["goals"]]
    figure, axes = pyplot.subplots(
        len(goals), 1, figsize=(8, 1.3 * len(goals) + 0.6), squeeze=False, layout="constrained"
    )
    for axis, (name, row, goal) in zip(axes[:, 0], goals, strict=True):
        ratios = row["rounds"][goal["ratio"]]
        colour = "tab:green" if goal["met"] else "tab:red"
        axis.plot(ratios, [0] * len(ratios), "o", alpha=0.5, color=colour)
        axis.plot([goal["median"]], [0], "|", markersize=24, color=colour)
        axis.axvline(goal["reach"], color="black", linestyle="--")
        sign = "at most" if goal["at_most"] else "at least"
        axis.set_title(
            f"{name}: {goal['ratio']} {goal['median']:.2f} ({sign} {goal['reach']})",
            fontsize="small",
        )
        axis.set_yticks([])
        axis.set_xlim(left=0)
    figure.savefig(path, dpi=120)
