"""START HERE for Figure 6: win rates over the base model, for seen people, unseen people, and all.

    python -m training.win_rates --config training/configs/mini_win_rates.yaml [--resume]
    accelerate launch -m training.win_rates --config ... [--resume]

People of the two test splits of a folder that training.precompute wrote are painted pictures of
captions that nobody trained on: by the base model, by each method, and by the first from another
person's profile, from one seed. A judge who
knows the person from their first four choices says which of two pictures they would prefer, asked
in both orders; inconsistent answers are dropped (paper, 5.2), and beside it counted as one half.
Before that the judge itself is
measured on choices of the same people whose answer is known: a win rate says no more than its
judge.

OUT/pictures holds what was painted, OUT/verdicts-JUDGE.jsonl every verdict and
OUT/known-choices-JUDGE.jsonl those on known choices, so that an interrupted run goes on and another
judge may be asked about the same pictures. Several processes share both; what they write is the
same, however many they are. Writes OUT/report-JUDGE.json and OUT/win-rates-JUDGE.png, and prints a
table.

By a person's own taste ("taste") near-ties are no verdict and are dropped, as inconsistent answers
are; training.evaluate counts them as one half.

Legend: D embedding, B pictures, H W sides in pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from ppd_model.files.artifact import sha256_of
from ppd_model.pipeline import Pipeline
from training.data.shards import MANIFEST, ShardFolder
from training.jobs.command_line import run_job
from training.jobs.configuration import git_commit, save_resolved
from training.jobs.files import write_json
from training.jobs.picture_batches import picture_requests, sampling_of
from training.judges.known_choices import accuracy
from training.judges.options import make_judge
from training.judges.verdicts import Verdicts
from training.precompute.processes import Worker, open_folder, this_process
from training.reports.plots import OTHER, OURS, grouped_bars
from training.reports.statistics import as_shares
from training.reports.tables import markdown_table
from training.win_rates.judging import judged
from training.win_rates.methods import (
    FloatArray,
    Method,
    Task,
    make_methods,
    make_tasks,
    readable_people,
)
from training.win_rates.win_rates_config import SPLITS, WinRatesConfig


def main(config: WinRatesConfig, resume: bool) -> None:
    win_rates(config, resume, this_process())
    PartialState().destroy_process_group()


def win_rates(
    config: WinRatesConfig, resume: bool = False, worker: Worker | None = None
) -> dict[str, Any]:
    """Paint, measure the judge, judge, write; returns the report.

    Whatever can be refused is refused before anything is painted. Raises ValueError for adapters
    and data that do not belong together, and for a folder that holds other pictures; ArtifactError
    for an adapter of another model; JudgeError when an endpoint does not answer.
    """
    worker = worker or Worker()
    config = config.of_process(worker)
    torch.set_num_threads(config.threads)
    with ExitStack() as stack:
        judge_of = make_judge(config, stack)
        pipeline = Pipeline.load(
            config.preset, config.weights_dir, config.device, with_adapter=False
        )
        people = {split: readable_people(config, split) for split in SPLITS}
        tasks = make_tasks(config, people)
        methods = make_methods(config, pipeline, tasks)
        made_with = provenance(config, pipeline, tasks, methods)
        folder = open_folder(config.out / "pictures", made_with, resume, worker)
        if worker.is_first:
            save_resolved(config, config.out)
        paint(config, pipeline, tasks, methods, folder, worker)
        identity = judge_of(tasks[0].person.user).identity
        kept = {
            name: Verdicts(config.out / f"{name}-{config.judge}.jsonl", identity, worker)
            for name in ("known-choices", "verdicts")
        }
        asking = {"workers": config.at_a_time, "together": config.together}
        report: dict[str, Any] = {
            "commit": git_commit(),
            "model": pipeline.model_id,
            "data": str(config.data),
            "adapters": {method.name: dict(method.trained) for method in methods[1:]},
            "people": {split: len(known) for split, known in people.items()},
            "pictures_of_each": len(tasks),
            "judge": {
                "name": config.judge,
                "identity": identity,
                "accuracy": {
                    split: accuracy(known, judge_of, kept["known-choices"], split, **asking)
                    for split, known in people.items()
                },
            },
            "answers": config.answers,
            "strength": config.strength,
            "seed": config.seed,
        }
        report["wins"] = judged(config, tasks, judge_of, kept["verdicts"])
    if worker.is_first:
        write_json(config.out / f"report-{config.judge}.json", report)
        (config.out / f"win-rates-{config.judge}.png").write_bytes(plot(report["wins"]))
        print(format_table(report))
    return report


def provenance(
    config: WinRatesConfig, pipeline: Pipeline, tasks: Sequence[Task], methods: Sequence[Method]
) -> dict[str, Any]:
    """What the pictures, and their parts, depend on."""
    asked = json.dumps([[task.person.user, task.prompt, task.seed] for task in tasks])
    return {
        "model": pipeline.model_id,
        "data": sha256_of(config.data / MANIFEST),
        "adapters": {name: sha256_of(path) for name, path in config.adapters.items()},
        "tasks": hashlib.sha256(asked.encode()).hexdigest(),
        "answers": config.answers,
        "told": {method.name: digest(method.user_emb) for method in methods},
        "strength": config.strength,
        **sampling_of(config),
        "batch": config.batch,
    }


def digest(user_emb: Sequence[FloatArray | None]) -> str:
    """sha256 of what a method is told of everybody."""
    given = b"".join(b"nothing" if emb_D is None else emb_D.tobytes() for emb_D in user_emb)
    return hashlib.sha256(given).hexdigest()


def paint(
    config: WinRatesConfig,
    pipeline: Pipeline,
    tasks: Sequence[Task],
    methods: Sequence[Method],
    folder: ShardFolder,
    worker: Worker,
) -> None:
    """Every task painted by every method, part by part, each process its own; what is there is
    passed by."""
    prompts, seeds = [task.prompt for task in tasks], [task.seed for task in tasks]
    for method in methods:
        if method.adapter is not None:
            pipeline.use_adapter(method.adapter)
        requests = picture_requests(config, prompts, seeds, method.user_emb, config.strength)
        for name, part in worker.missing(folder, method.name, len(requests), config.batch):
            made = pipeline.generate(requests[part])
            folder.write(name, {"image_BHW3": np.stack([one.image_HWC for one in made])})
    worker.wait()
    if worker.is_first:
        folder.finish()
    worker.wait()


def format_table(report: Mapping[str, Any]) -> str:
    """The judge's accuracy and the win rates, as a Markdown table; in brackets what was dropped.

    Where verdicts were inconsistent, a second row counts them as one half.
    """
    right = report["judge"]["accuracy"]
    rows = _rows("the judge is right", [right[split] for split in SPLITS], "share_right")
    for match, rates in report["wins"].items():
        rows += _rows(match, [rates[group] for group in (*SPLITS, "all")], "share")
    columns = ["", "seen people", "unseen people", "all"]
    return markdown_table(columns, [row + [""] * (len(columns) - len(row)) for row in rows])


def _rows(title: str, groups: Sequence[Mapping[str, Any]], key: str) -> list[list[str]]:
    def cell(rates: Mapping[str, Any]) -> str:
        dropped = rates["inconsistent"] + rates["unreadable"]
        return as_shares(rates[key]) + (f" ({dropped})" if dropped else "")

    rows = [[title, *map(cell, groups)]]
    if any(rates["inconsistent"] for rates in groups):
        halves = [as_shares(rates[f"{key}_with_halves"]) for rates in groups]
        rows.append([f"{title}, inconsistent as one half", *halves])
    return rows


def plot(wins: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Figure 6: win rates of every match, for seen and unseen people."""
    series: dict[str, tuple[str, list[Any]]] = {
        split: (colour, [rates[split]["share"] for rates in wins.values()])
        for split, colour in zip(SPLITS, (OTHER, OURS), strict=True)
    }
    return grouped_bars(series, [match.replace(" over ", "\nover ") for match in wins], "win rate")


if __name__ == "__main__":
    run_job(main, WinRatesConfig, __doc__)
