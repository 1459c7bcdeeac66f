"""The paper's rule for beta (B.1): the run whose pictures of validation captions score highest.

    python -m training.choose_beta runs/a/validation.json runs/b/validation.json ... [--out FILE]
        [--adapter FILE]

The files are those of `python -m training.synthetic_users score`, one for each run of one row of
Table 1. For synthetic users what counts is the mean over the rewards, for real ones PickScore. The
paper averages rewards without saying on which scale; CLIP and HPS count in the twenties and
thirties and aesthetic from 1 to 10, so here each is divided by its standard deviation over captions
(the mean of the runs') first. `--scale raw` does not.

Legend: M runs.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from training.jobs.command_line import run_job
from training.jobs.configuration import Configuration
from training.jobs.files import replacing, write_json

Scale = Literal["sd", "raw"]
SAME = ("captions", "seed", "steps", "guidance_scale", "personalize_below")
"""How pictures were made: equal among runs that are compared."""


class ChooseBetaConfig(Configuration):
    """Which runs, on which scale."""

    runs: tuple[Path, ...]
    """Files of `training.synthetic_users score`."""
    scale: Scale = "sd"
    """Rewards divided by their standard deviation before they are averaged, or as they are."""
    out: Path | None = None
    """json file of the choice; null: it is only printed."""
    adapter: Path | None = None
    """Where the chosen run's adapter is copied to; null: nowhere."""


@dataclass(frozen=True)
class RunScores:
    """One run: beta, and the mean and standard deviation of each reward over captions."""

    name: str
    beta: float
    mean: Mapping[str, float]
    sd: Mapping[str, float]


@dataclass(frozen=True)
class BetaChoice:
    """`best` counts into the runs; `value_M` is what each was judged by."""

    best: int
    value_M: tuple[float, ...]


def choose_beta(runs: Sequence[RunScores], scale: Scale = "sd") -> BetaChoice:
    """The run with the highest mean reward; of equal ones the one with the largest beta, which
    stays closest to the base model.

    Raises ValueError for no runs, for runs scored by different rewards, and for scores that are
    not finite or, with scale "sd", never vary.
    """
    if not runs:
        raise ValueError("no runs to choose from")
    rewards = sorted(runs[0].mean)
    for run in runs:
        if sorted(run.mean) != rewards or not rewards:
            raise ValueError(
                f"{run.name} was scored by {sorted(run.mean)}, {runs[0].name} by {rewards}"
            )
        if not all(math.isfinite(run.mean[reward]) for reward in rewards):
            raise ValueError(f"{run.name} has a mean that is not finite: {dict(run.mean)}")
    unit = dict.fromkeys(rewards, 1.0)
    if scale == "sd":
        unit = {reward: sum(run.sd[reward] for run in runs) / len(runs) for reward in rewards}
        flat = [reward for reward in rewards if not unit[reward] > 0]
        if flat:
            raise ValueError(f"{', '.join(flat)} never varies: there is no scale to average on")
    value_M = tuple(
        sum(run.mean[reward] / unit[reward] for reward in rewards) / len(rewards) for run in runs
    )
    best = max(range(len(runs)), key=lambda index: (value_M[index], runs[index].beta))
    return BetaChoice(best, value_M)


def read_run(path: Path) -> tuple[RunScores, dict[str, Any]]:
    """A run's scores, and what must be equal among runs that are compared.

    Raises ValueError for another kind of file.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        run = RunScores(
            name=str(path),
            beta=float(record["beta"]),
            mean={name: float(value["mean"]) for name, value in record["rewards"].items()},
            sd={name: float(value["sd"]) for name, value in record["rewards"].items()},
        )
        same = {key: record[key] for key in SAME}
        same |= {key: record["trained"].get(key) for key in ("user", "objective")}
        same |= {key: record.get(key) for key in ("prompts", "snr_shift", "guidance_rescale")}
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not the scores of a run: {error!r}") from error
    return run, same


def choose(config: ChooseBetaConfig) -> dict[str, Any]:
    """Read the runs' files, choose, print and write; returns what is written.

    Raises ValueError for runs that cannot be compared.
    """
    read = [read_run(path) for path in config.runs]
    for run, same in read:
        differing = [key for key, value in same.items() if value != read[0][1][key]]
        if differing:
            raise ValueError(
                f"{run.name} has another {', '.join(differing)} than {read[0][0].name}"
            )
    runs = [run for run, _ in read]
    choice = choose_beta(runs, config.scale)
    best = runs[choice.best]
    for run, value in sorted(zip(runs, choice.value_M, strict=True), key=lambda one: one[0].beta):
        mark = "  <- best" if run is best else ""
        means = ", ".join(f"{name} {mean:.3f}" for name, mean in run.mean.items())
        print(f"beta {run.beta:g}: {value:.4f} ({means}) {run.name}{mark}")
    report = {
        "beta": best.beta,
        "run": best.name,
        "scale": config.scale,
        "runs": [
            {"run": run.name, "beta": run.beta, "value": value, "mean": dict(run.mean)}
            for run, value in zip(runs, choice.value_M, strict=True)
        ],
    }
    if config.adapter is not None:
        trained = Path(json.loads(config.runs[choice.best].read_text())["adapter"])
        config.adapter.parent.mkdir(parents=True, exist_ok=True)
        with replacing(config.adapter) as unfinished:
            shutil.copyfile(trained, unfinished)
    if config.out is not None:
        write_json(config.out, report)
    return report


if __name__ == "__main__":
    run_job(choose, ChooseBetaConfig, __doc__, positional="runs")
