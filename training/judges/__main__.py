"""START HERE: how often a judge says what people said, on choices whose answer is known.

    python -m training.judges --judge taste --data runs/mini/precompute --out FILE.json
    python -m training.judges --judge llava --data ... [--preset ...] [--weights_dir ...]
    PPD_JUDGE_KEY=... python -m training.judges --judge endpoint --url URL --model NAME --data ...
    accelerate launch -m training.judges ... [--resume]

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

from accelerate import PartialState

from training.jobs.command_line import run_job
from training.jobs.configuration import git_commit
from training.jobs.files import write_json
from training.judges.known_choices import TestSplit, accuracy, known_choices
from training.judges.options import JudgeOptions, make_judge
from training.judges.verdicts import Verdicts, parts_of
from training.precompute.processes import Worker, this_process


class AccuracyConfig(JudgeOptions):
    """Whose known choices are asked about."""

    out: Path
    """The json file."""
    split: TestSplit = "unseen_users"
    """People of which test split."""
    people: int | None = None
    """The first so many of the split; null: all."""


def main(config: AccuracyConfig, resume: bool = False) -> None:
    measure(config, resume, this_process())
    PartialState().destroy_process_group()


def measure(
    config: AccuracyConfig, resume: bool = False, worker: Worker | None = None
) -> dict[str, Any]:
    """Ask about every known choice; writes the json file `out` and returns what it holds.

    Verdicts are kept beside it, NAME.jsonl, from which an interrupted run goes on. Raises
    ValueError where there are some and `resume` is off, and JudgeError when an endpoint does not
    answer.
    """
    worker = worker or Worker()
    kept = config.out.with_suffix(".jsonl")
    if (kept.exists() or parts_of(kept)) and not resume:
        raise ValueError(f"{kept} holds verdicts: pass --resume or choose another --out")
    worker.wait()
    known = known_choices(config.data, config.split, config.people)
    with ExitStack() as stack:
        judge_of = make_judge(config.of_process(worker), stack)
        identity = judge_of(known[0].user).identity
        outcome = accuracy(
            known,
            judge_of,
            Verdicts(kept, identity, worker),
            f"known choices of {config.split}",
            workers=config.at_a_time,
            together=config.together,
        )
    report = {
        "judge": config.judge,
        "identity": identity,
        "data": str(config.data),
        "split": config.split,
        "commit": git_commit(),
        **outcome,
    }
    if not worker.is_first:
        return report
    write_json(config.out, report)
    printed = ("share_right", "share_right_with_halves", "kept", "inconsistent", "unreadable")
    shown = {key: report[key] for key in printed}
    print(json.dumps(shown, indent=2))
    return report


if __name__ == "__main__":
    run_job(main, AccuracyConfig, __doc__)
