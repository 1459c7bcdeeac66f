"""START HERE for sweeps: one value of train_dpo's configuration varied, everything else equal.

    python -m training.sweep --config training/configs/mini_sweep_beta.yaml

Every value trains an adapter in OUT/VALUE and is measured there: how often the adapter tells chosen
from rejected on validation pairs, with the person's own embedding and with another's; and, in the
world, what training.evaluate measures on people of its validation split, whom no test ever meets.
Run it again after an interruption: what is finished is passed by, what was started continues.
With `reference: cached` the reference's errors are computed first, once for all values.
(For beta, the paper's own rule goes by the rewards of pictures: training.choose_beta.)

Writes OUT/report.json and OUT/sweep.png, and prints a table.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure
from pydantic import Field

from ppd_model.files.artifact import sha256_of
from ppd_model.presets import get_preset
from training.data.shards import MANIFEST, read_manifest
from training.dpo.dpo_config import DpoConfig
from training.evaluate.__main__ import evaluate
from training.evaluate.evaluate_config import EvaluateConfig
from training.jobs.command_line import run_job
from training.jobs.configuration import (
    Configuration,
    differences,
    git_commit,
    read_configuration,
    read_file,
    save_resolved,
)
from training.jobs.files import write_json
from training.jobs.shared_options import Out, PersonalizeBelow, Strength, Threads, WeightsDir
from training.reference_errors import DRAWN_BY
from training.reports.plots import OTHER, OURS, as_png, error_bars
from training.reports.statistics import as_shares
from training.reports.tables import markdown_table

ADAPTER, CHECKPOINT, REPORT = "adapter.safetensors", "checkpoint.pt", "report.json"
REFERENCE_ERRORS = "reference_errors"
Value = bool | int | float | str
MEASURES = {
    "wins": "wins over base",
    "own_over_others": "own over others",
    "content": "content kept",
}


class SweepConfig(Configuration):
    """What is varied."""

    train: Path
    """A configuration of training.train_dpo."""
    key: str
    """One of its keys."""
    values: tuple[Value, ...]
    """Each trained once."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Other keys that differ from the file, for all."""
    out: Out
    launch: tuple[str, ...] = (sys.executable,)
    """What stands before "-m training.train_dpo", such as ["accelerate", "launch"]."""
    evaluate: bool = True
    """Whether people of the world judge pictures."""
    weights_dir: WeightsDir = None
    strength: Strength = 1.0
    personalize_below: PersonalizeBelow = None
    people: int = 64
    """As in training.evaluate."""
    prompts: int = 4
    """As in training.evaluate."""
    threads: Threads = 2

    def unread(self) -> Set[str]:
        """How pictures are judged, where none is."""
        judged = {"weights_dir", "strength", "personalize_below", "people", "prompts", "threads"}
        return set() if self.evaluate else judged

    def run_dir(self, value: Value) -> Path:
        """The folder of one value's run; a value that is a path is one name there."""
        return self.out / f"{self.key}={value}".replace("/", "_")

    def training(self, value: Value) -> DpoConfig:
        """The configuration of one value's run. Raises ValueError for one that cannot be.

        Where the reference is cached and no place for its errors is named, it is OUT.
        """
        given = self.overrides | {self.key: value, "output_dir": self.run_dir(value)}
        of_all = read_file(self.train) | given
        if of_all.get("reference") == "cached" and of_all.get("reference_dir") is None:
            given["reference_dir"] = self.out / REFERENCE_ERRORS
        return read_configuration(DpoConfig, self.train, given)


def sweep(config: SweepConfig) -> dict[str, Any]:
    """Train and measure every value, write; returns the report.

    Raises ValueError for values that cannot be trained with, before any is, and for a folder of
    another sweep; CalledProcessError when a run fails.
    """
    if len(config.values) < 2 or len(set(map(str, config.values))) < len(config.values):
        raise ValueError(f"values {config.values}: expected two different ones at least")
    trainings = {value: config.training(value) for value in config.values}
    if config.evaluate:
        for training in trainings.values():
            if get_preset(training.preset).published or training.user != "vlm":
                raise ValueError(
                    f"user {training.user!r} of {training.preset} cannot be evaluated in the "
                    f"world: set evaluate to false"
                )
    cached = [training for training in trainings.values() if training.reference == "cached"]
    check_shared(cached)
    if cached:
        compute_reference_errors(config, cached[0])
    runs = []
    for value, training in trainings.items():
        train(config, training)
        runs.append({"value": value, **validation(training), **measured(config, training)})
    report = {
        "commit": git_commit(),
        "key": config.key,
        "train": str(config.train),
        "overrides": config.overrides,
        "strength": config.strength,
        "personalize_below": config.personalize_below,
        "seed": next(iter(trainings.values())).seed,
        "runs": runs,
    }
    save_resolved(config, config.out)
    write_json(config.out / REPORT, report)
    (config.out / "sweep.png").write_bytes(plot(report))
    print(format_table(report))
    return report


def check_shared(cached: Sequence[DpoConfig]) -> None:
    """Raises ValueError unless the same reference errors serve all of these."""
    decisive = (*DRAWN_BY, "preset", "data_dir", "stage_c", "base_dtype", "reference_dir")
    for name in decisive:
        values = {str(getattr(training, name)) for training in cached}
        if len(values) > 1:
            raise ValueError(
                f"{name} of {', '.join(sorted(values))} asks for reference errors of its own: "
                f"set reference to live"
            )


def compute_reference_errors(config: SweepConfig, training: DpoConfig) -> None:
    """All reference errors of the sweep, in a process of its own; passed by when they are there.

    Whether they are the right ones is for each run to say.
    """
    folder = training.reference_dir
    assert folder is not None, "SweepConfig.training names one"
    manifest = folder / MANIFEST
    if manifest.exists() and json.loads(manifest.read_text())["complete"]:
        return
    resume = ["--resume"] if manifest.exists() else []
    launch(config, "training.reference_errors", training, folder, resume)


def train(config: SweepConfig, training: DpoConfig) -> None:
    """One run, in a process of its own; passed by when it is finished, resumed when it was begun.

    Raises ValueError when the folder holds a finished run of another configuration.
    """
    folder = training.output_dir
    if (folder / ADAPTER).exists():
        found = json.loads((folder / "resolved.json").read_text())["config"]
        wanted = json.loads(training.model_dump_json())
        if training.epochs is not None:  # a run writes the steps that they came to
            wanted |= {"steps": found["steps"], "epochs": found["epochs"]}
        if differing := differences(found, wanted):
            raise ValueError(f"{folder} was trained with another {differing}")
        return
    resume = ["--resume"] if (folder / CHECKPOINT).exists() else []
    launch(config, "training.train_dpo", training, folder, resume)


def launch(
    config: SweepConfig, module: str, training: DpoConfig, folder: Path, resume: Sequence[str]
) -> None:
    """A job with this configuration, which is kept in the folder that it writes to."""
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "train.yaml"
    written.write_text(yaml.safe_dump(training.model_dump(mode="json")))
    command = [*config.launch, "-m", module, "--config", str(written), *resume]
    print(shlex.join(command), flush=True)
    subprocess.run(command, check=True)  # noqa: S603


def validation(training: DpoConfig) -> dict[str, float]:
    """The last accuracies on validation pairs that the run logged."""
    lines = (training.output_dir / "log.jsonl").read_text().splitlines()
    last = [record for line in lines if "validation_accuracy" in (record := json.loads(line))][-1]
    keys = ("validation_accuracy", "validation_swapped_accuracy")
    return {key: last[key] for key in keys if key in last}


def measured(config: SweepConfig, training: DpoConfig) -> dict[str, Any]:
    """What people of the world's validation split make of the run's pictures, read by the VLM as
    those were whom the run was trained on.

    Raises ValueError when the folder holds a measurement of something else.
    """
    if not config.evaluate:
        return {}
    adapter, out = training.output_dir / ADAPTER, training.output_dir / "evaluation"
    read_with = read_manifest(training.data_dir)["provenance"]
    wanted = EvaluateConfig(
        preset=training.preset,
        out=out,
        weights_dir=config.weights_dir,
        adapter=adapter,
        prompt_variant=read_with["prompt_variant"],
        decoding=read_with["decoding"],
        split="validate",
        strength=config.strength,
        personalize_below=config.personalize_below,
        people=config.people,
        prompts=config.prompts,
        threads=config.threads,
        time_calls=False,
    )
    if not (out / REPORT).exists():
        evaluate(wanted)
    found = json.loads((out / REPORT).read_text())
    resolved = json.loads((out / "resolved.json").read_text())["config"]
    if EvaluateConfig.model_validate(resolved) != wanted or not sha256_of(adapter).startswith(
        found["adapter_version"]
    ):
        raise ValueError(f"{out} was measured with other settings or weights: remove it")
    return {
        "wins": found["wins"]["own"],
        "own_over_others": found["wins"]["own_over_others"],
        "gain_sd": found["wins"]["gain_sd"],
        "content": found["content"]["kept_of_right"],
    }


def format_table(report: Mapping[str, Any]) -> str:
    shown = [key for key in MEASURES if key in report["runs"][0]]
    titles = [report["key"], "validation accuracy", *(MEASURES[key] for key in shown)]
    rows = [
        [
            f"{run['value']}",
            f"{run['validation_accuracy']:.1%}",
            *(as_shares(run[k]) for k in shown),
        ]
        for run in report["runs"]
    ]
    return markdown_table(titles, rows)


def plot(report: Mapping[str, Any]) -> bytes:
    """Wins and validation accuracy over the values, in the order they were given."""
    runs = report["runs"]
    places = range(len(runs))
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    accuracy = [run["validation_accuracy"] for run in runs]
    axes.plot(places, accuracy, "o--", color=OTHER, label="validation accuracy")
    if "wins" in runs[0]:
        wins = [run["wins"] for run in runs]
        mean = [each["mean"] for each in wins]
        axes.errorbar(
            places, mean, error_bars(wins), marker="o", color=OURS, capsize=3, label="wins"
        )
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set_xticks(places, [str(run["value"]) for run in runs])
    axes.set_xlabel(report["key"])
    axes.legend(frameon=False)
    return as_png(figure)


if __name__ == "__main__":
    run_job(sweep, SweepConfig, __doc__)
