"""START HERE for Figure 6: win rates over the base model, for seen people, unseen people, and all.

    python -m training.win_rates --config training/configs/mini_win_rates.yaml [--resume]

People of the two test splits of a folder that training.precompute wrote are painted pictures of
captions that nobody trained on: by the base model and by each method, from one seed. A judge who
knows the person from their first four choices says which of two pictures they would prefer, asked
in both orders; inconsistent answers are dropped (paper, 5.2). Before that the judge itself is
measured on choices of the same people whose answer is known: a win rate says no more than its
judge.

OUT/pictures holds what was painted and OUT/verdicts-JUDGE.jsonl every verdict, so that an
interrupted run goes on and another judge may be asked about the same pictures. Writes
OUT/report-JUDGE.json and OUT/win-rates-JUDGE.png, and prints a table.

By a person's own taste ("taste") near-ties are no verdict and are dropped, as inconsistent answers
are; training.evaluate counts them as one half.

Legend: D embedding, B pictures, H W sides in pixels.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from ppd_model.checkpoint import sha256_of
from ppd_model.pipeline import ImageRequest, Pipeline
from training.configuration import git_commit, parse_command_line, save_resolved
from training.data.dataset import read_profiles
from training.data.shards import MANIFEST, ShardFolder, read_manifest
from training.judges.judge import Judge, Outcome, Question, ask_all
from training.judges.known_choices import KnownChoice, TestSplit, accuracy, known_choices
from training.judges.options import JudgeOf, JudgeOptions, make_judge
from training.reports.plots import OTHER, OURS, as_png
from training.reports.statistics import as_shares, clustered_mean
from training.synthetic_users.arms import adapter_of
from training.win_rates.user_features import Answers, Features, Told

FloatArray = NDArray[np.float32]
BASE = "base"
SPLITS: tuple[TestSplit, ...] = ("seen_users", "unseen_users")
FIRST_SEED = 800_000_000
"""Of the first picture: far from the seeds of pictures that are trained on."""


class WinRatesConfig(JudgeOptions):
    """Who is asked for, about what, and who paints.

    adapters: a file for each method; the first is compared with all others too. Each is told of a
    person what it was trained with, from these `answers` (told.py).
    people: of each split, the first so many that could be read; None takes all. prompts: of each
    person, at most. The paper takes 30 steps.
    """

    out: Path
    adapters: dict[str, Path]
    answers: Answers = "first_set"
    people: int | None = None
    prompts: int = 1
    strength: float = 1.0
    steps: int = 30
    guidance_scale: float = 4.0
    batch: int = 32
    threads: int = 1
    seed: int = 0

    def model_post_init(self, _: object) -> None:
        """Raises ValueError where nothing could be compared."""
        if not self.adapters or BASE in self.adapters:
            raise ValueError(f"adapters {list(self.adapters)}: one at least, none called {BASE!r}")
        for key in ("people", "prompts", "batch"):
            if (value := getattr(self, key)) is not None and value < 1:
                raise ValueError(f"{key} is {value}, expected 1 or more")


@dataclass(frozen=True)
class Task:
    """One picture of every method: for whom, of what, from which seed."""

    person: KnownChoice
    split: TestSplit
    prompt: str
    seed: int


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    config, resume = parse_command_line(WinRatesConfig, argv, __doc__)
    win_rates(config, resume)


@dataclass(frozen=True)
class Method:
    """Who paints: an adapter and what it is told of each task's person; the base has neither.

    trained: what the adapter says of its training.
    """

    name: str
    adapter: Path | None
    user_emb: Sequence[FloatArray | None]
    trained: Mapping[str, str]


def win_rates(config: WinRatesConfig, resume: bool = False) -> dict[str, Any]:
    """Paint, measure the judge, judge, write; returns the report.

    Whatever can be refused is refused before anything is painted. Raises ValueError for adapters
    and data that do not belong together, and for a folder that holds other pictures; ArtifactError
    for an adapter of another model; JudgeError when an endpoint does not answer.
    """
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
        folder = ShardFolder(config.out / "pictures", made_with, resume)
        save_resolved(config, config.out)
        paint(config, pipeline, tasks, methods, folder)
        report: dict[str, Any] = {
            "commit": git_commit(),
            "model": pipeline.model_id,
            "data": str(config.data),
            "adapters": {method.name: dict(method.trained) for method in methods[1:]},
            "people": {split: len(known) for split, known in people.items()},
            "pictures_of_each": len(tasks),
            "judge": {
                "name": config.judge,
                "identity": judge_of(tasks[0].person.user).identity,
                "accuracy": {
                    split: accuracy(known, judge_of, config.at_a_time)
                    for split, known in people.items()
                },
            },
            "answers": config.answers,
            "strength": config.strength,
            "seed": config.seed,
        }
        report["wins"] = judged(config, tasks, judge_of)
    (config.out / f"report-{config.judge}.json").write_text(json.dumps(report, indent=2) + "\n")
    (config.out / f"win-rates-{config.judge}.png").write_bytes(plot(report["wins"]))
    print(format_table(report))
    return report


def readable_people(config: WinRatesConfig, split: TestSplit) -> list[KnownChoice]:
    """The split's people whose first four choices the VLM could read."""
    read = {
        person["user_id"]
        for person in read_profiles(config.data)
        if all(failed["set"] != 0 for failed in person["failed"])
    }
    return known_choices(config.data, split, config.people, among=read)


def make_tasks(
    config: WinRatesConfig, people: Mapping[TestSplit, Sequence[KnownChoice]]
) -> list[Task]:
    """What is painted, person by person."""
    asked = [
        (person, split, caption)
        for split in SPLITS
        for person in people[split]
        for caption in person.captions[: config.prompts]
    ]
    first_seed = FIRST_SEED + 1_000_000 * config.seed
    return [
        Task(person, split, caption, first_seed + index)
        for index, (person, split, caption) in enumerate(asked)
    ]


def make_methods(config: WinRatesConfig, pipeline: Pipeline, tasks: Sequence[Task]) -> list[Method]:
    """The base and every adapter, each loaded once to see that it fits.

    Raises ValueError for adapters that read other embeddings, or were trained on another base or
    other data than each other, as far as they say.
    """
    encoder_id = read_manifest(config.data)["provenance"]["encoder_id"]
    told = Told(
        config.data,
        SPLITS,
        [task.person.user for task in tasks],
        config.answers,
        config.preset,
        config.weights_dir,
        config.device,
    )
    methods = [Method(BASE, None, [None] * len(tasks), {})]
    for name, path in config.adapters.items():
        trained = adapter_of(path, get_args(Features)).extra
        features = cast(Features, trained["user"])
        if features == "vlm" and trained["encoder_id"] != encoder_id:
            raise ValueError(
                f"{path} reads embeddings of {trained['encoder_id']!r}, "
                f"{config.data} holds those of {encoder_id!r}"
            )
        pipeline.use_adapter(path)
        user_emb = told.of(features, pipeline.preset.user_emb_dim)
        methods.append(Method(name, path, user_emb, trained))
    for key in ("base_sha256", "data_sha256"):
        found = {method.trained[key] for method in methods if key in method.trained}
        if len(found) > 1:
            raise ValueError(f"the adapters were trained with different {key}: {sorted(found)}")
    return methods


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
        "steps": config.steps,
        "guidance_scale": config.guidance_scale,
        "batch": config.batch,
    }


def digest(user_emb: Sequence[FloatArray | None]) -> str:
    """sha256 of what a method is told of everybody."""
    told = b"".join(b"nothing" if emb_D is None else emb_D.tobytes() for emb_D in user_emb)
    return hashlib.sha256(told).hexdigest()


def paint(
    config: WinRatesConfig,
    pipeline: Pipeline,
    tasks: Sequence[Task],
    methods: Sequence[Method],
    folder: ShardFolder,
) -> None:
    """Every task painted by every method, part by part; what is there is passed by."""
    for method in methods:
        if method.adapter is not None:
            pipeline.use_adapter(method.adapter)
        started_s, made = time.monotonic(), 0
        for part, first in enumerate(range(0, len(tasks), config.batch)):
            name = shard_name(method.name, part)
            if folder.has(name):
                continue
            own = slice(first, first + config.batch)
            requests = [
                ImageRequest(
                    prompt=task.prompt,
                    seed=task.seed,
                    user_emb_D=emb_D,
                    strength=config.strength,
                    steps=config.steps,
                    guidance_scale=config.guidance_scale,
                )
                for task, emb_D in zip(tasks[own], method.user_emb[own], strict=True)
            ]
            images = np.stack([one.image_HWC for one in pipeline.generate(requests)])
            folder.write(name, {"image_BHW3": torch.from_numpy(images)})
            made += len(requests)
            rate = made / (time.monotonic() - started_s)
            done = min(own.stop, len(tasks))
            print(f"{method.name}: {done}/{len(tasks)} {rate:.1f} pictures/s", flush=True)
    folder.finish()


def shard_name(method: str, part: int) -> str:
    """A part of a method's pictures."""
    return f"{method}-{part:05d}.safetensors"


def pictures_of(config: WinRatesConfig, method: str, count: int) -> Iterator[Image.Image]:
    """What a method painted, in the order of the tasks; one part in memory at a time."""
    for part in range(-(-count // config.batch)):
        shard = load_file(config.out / "pictures" / shard_name(method, part))
        for image_HW3 in shard["image_BHW3"].numpy():
            yield Image.fromarray(image_HW3)


def judged(
    config: WinRatesConfig, tasks: Sequence[Task], judge_of: JudgeOf
) -> dict[str, dict[str, Any]]:
    """ "METHOD over OTHER": win rates for each split and all, and what was dropped."""
    first, *others = config.adapters
    matches = [(method, BASE) for method in config.adapters] + [(first, each) for each in others]
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
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
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
    """How often the consistent verdicts name the first picture; the interval redraws people.

    "share" is None when fewer than two people have a consistent verdict.
    """
    kept = [
        (float(outcome == "first"), task.person.user)
        for task, outcome in zip(tasks, outcomes, strict=True)
        if outcome in ("first", "second")
    ]
    share = None
    people = {user: number for number, user in enumerate(dict.fromkeys(user for _, user in kept))}
    if len(people) >= 2:
        won_R = np.array([won for won, _ in kept])
        person_R = np.array([people[user] for _, user in kept])
        share = clustered_mean(won_R, person_R, np.random.default_rng([seed, 61])).to_dict()
    return {
        "share": share,
        "asked": len(tasks),
        "inconsistent": sum(outcome == "inconsistent" for outcome in outcomes),
        "unreadable": sum(outcome == "unreadable" for outcome in outcomes),
    }


def format_table(report: Mapping[str, Any]) -> str:
    """The judge's accuracy and the win rates, as a Markdown table; in brackets what was dropped."""

    def cell(rates: Mapping[str, Any], key: str) -> str:
        dropped = rates["inconsistent"] + rates["unreadable"]
        return as_shares(rates[key]) + (f" ({dropped})" if dropped else "")

    right = report["judge"]["accuracy"]
    judge = [cell(right[split], "share_right") for split in SPLITS]
    lines = [
        "| | seen people | unseen people | all |",
        "|---|---|---|---|",
        f"| the judge is right | {' | '.join(judge)} | |",
    ]
    for match, rates in report["wins"].items():
        cells = [cell(rates[group], "share") for group in (*SPLITS, "all")]
        lines.append(f"| {match} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(wins: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Figure 6: win rates of every match, for seen and unseen people."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    for offset, split, colour in ((-0.2, SPLITS[0], OTHER), (0.2, SPLITS[1], OURS)):
        for place, rates in enumerate(wins.values()):
            share = rates[split]["share"]
            if share is None:
                continue
            mean = share["mean"]
            axes.bar(place + offset, mean, 0.4, color=colour, label=split if not place else None)
            error = [[mean - share["low"]], [share["high"] - mean]]
            axes.errorbar(place + offset, mean, error, color="black", capsize=3)
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(wins)), [match.replace(" over ", "\nover ") for match in wins])
    axes.set_ylim(0, 1)
    axes.set_ylabel("win rate")
    axes.legend(frameon=False)
    return as_png(figure)


if __name__ == "__main__":
    main()
