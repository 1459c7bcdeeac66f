"""START HERE: how often a judge says what people said, on choices whose answer is known.

    python -m training.judges --judge taste --data runs/mini/precompute --out FILE.json
    python -m training.judges --judge llava --data ... [--preset ...] [--weights_dir ...]
    PPD_JUDGE_KEY=... python -m training.judges --judge endpoint --url URL --model NAME --data ...

To be run, and reported, before the judge judges anything: a win rate says no more than its judge.
Each question is asked twice, in either order; inconsistent and unreadable answers are dropped and
counted. "taste" is the world's: people there choose by chance where they hardly see a difference,
so even their own taste does not foretell every choice.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from training.jobs.command_line import run_job
from training.jobs.configuration import git_commit
from training.jobs.files import write_json
from training.judges.known_choices import TestSplit, accuracy, known_choices
from training.judges.options import JudgeOptions, make_judge


class AccuracyConfig(JudgeOptions):
    """Whose known choices are asked about."""

    out: Path
    """The json file."""
    split: TestSplit = "unseen_users"
    """People of which test split."""
    people: int | None = None
    """The first so many of the split; null: all."""


def measure(config: AccuracyConfig) -> dict[str, Any]:
    """Ask about every known choice; writes the json file `out` and returns what it holds.

    Raises JudgeError when an endpoint does not answer.
    """
    known = known_choices(config.data, config.split, config.people)
    with ExitStack() as stack:
        judge_of = make_judge(config, stack)
        outcome = accuracy(known, judge_of, config.at_a_time)
        identity = judge_of(known[0].user).identity
    report = {
        "judge": config.judge,
        "identity": identity,
        "data": str(config.data),
        "split": config.split,
        "commit": git_commit(),
        **outcome,
    }
    write_json(config.out, report)
    printed = ("share_right", "share_right_with_halves", "kept", "inconsistent", "unreadable")
    shown = {key: report[key] for key in printed}
    print(json.dumps(shown, indent=2))
    return report


if __name__ == "__main__":
    run_job(measure, AccuracyConfig, __doc__)
