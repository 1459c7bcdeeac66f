"""START HERE for Figure 5 on Pick-a-Pic: for people of the two tests, whose taste nobody knows.

    python -m training.augmented_captions.pickapic \\
        --config training/configs/stable_cascade_augmented_captions.yaml [--resume]

The rows are those of `__main__.py`, for people and captions that were held out. There is no true
taste to win by: who prefers which picture is for training.win_rates and its judge. Measured here is
what the paper says augmented captions lose, the caption: each reward of a picture with the plain
caption, whatever it was painted from, and its difference from "base" on the same captions and
seeds. And the figure itself: the first people's pictures side by side.

Writes OUT/report.json, OUT/pictures.png and, beside it, OUT/pictures.txt with captions and
profiles; OUT/pictures holds all that was painted, so that an interrupted run goes on.

Legend: R tasks, A rewards, D embedding, B pictures, H W sides in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import PositiveInt

from ppd_model.files.artifact import sha256_of
from ppd_model.pipeline import Pipeline
from training.augmented_captions.text import augmented, reading
from training.data.dataset import load_pairs, read_profiles
from training.data.shards import MANIFEST, ShardFolder, read_lists, read_manifest, read_shards
from training.data.splits import Split
from training.jobs.command_line import run_job
from training.jobs.configuration import git_commit, save_resolved
from training.jobs.files import write_json
from training.jobs.picture_batches import picture_requests, sampling_of
from training.jobs.shared_options import Device, ModelJob, PromptsEach, SamplingOptions, Strength
from training.reports.statistics import clustered_mean
from training.reports.tables import markdown_table
from training.rewards.catalog import RewardSources, load_rewards
from training.rewards.reward import Reward
from training.synthetic_users.arms import adapter_of, everybody

FloatArray = NDArray[np.float32]
TESTS: tuple[Split, ...] = ("seen_users", "unseen_users")
FIRST_SEED = 900_000_000
"""Of the first picture: far from the seeds of pictures that are trained on."""


class PickapicCaptionsConfig(RewardSources, ModelJob, SamplingOptions):
    """Whose pictures, by which models."""

    device: Device = "cpu"
    data: Path
    """What training.precompute wrote, with the VLM."""
    ppd: Path
    """Adapter trained with objective ppd."""
    diffusion_dpo: Path | None = None
    """Adapter trained with objective diffusion_dpo; null leaves its rows out."""
    people: PositiveInt | None = None
    """Of each test, the first so many; null: all."""
    prompts: PromptsEach = 1
    strength: Strength = 1.0
    rewards: tuple[str, ...] = ("clip",)
    """What is scored with the plain caption."""
    shown: PositiveInt = 8
    """Tasks in pictures.png."""


@dataclass(frozen=True)
class Task:
    """A person, by number, one of their held-out captions, and what the VLM made of the first set
    of four."""

    person: int
    caption: str
    profile: str
    user_emb_D: FloatArray
    seed: int


@dataclass(frozen=True)
class Row:
    """What is painted for every task: by which adapter, with which prompts and embeddings."""

    name: str
    adapter: Path | None
    prompts: Sequence[str]
    user_emb: Sequence[FloatArray | None]


def run(config: PickapicCaptionsConfig, resume: bool = False) -> dict[str, Any]:
    """Paint every row, score, write; returns the report.

    Raises ValueError for an adapter that reads other embeddings than the data hold, and for a
    folder that holds other pictures.
    """
    torch.set_num_threads(config.threads)
    rewards = load_rewards(config.rewards, config)
    pipeline = Pipeline.load(config.preset, config.weights_dir, config.device, with_adapter=False)
    tasks = make_tasks(config, pipeline.preset.user_emb_dim)
    rows = make_rows(config, tasks, pipeline.preset.user_emb_dim)
    folder = ShardFolder(config.out / "pictures", made_with(config, pipeline, tasks, rows), resume)
    save_resolved(config, config.out)
    seeds = [task.seed for task in tasks]
    for row in rows:
        if row.adapter is not None:
            pipeline.use_adapter(row.adapter)
        requests = picture_requests(config, row.prompts, seeds, row.user_emb, config.strength)
        for name, part in folder.missing(row.name, len(requests), config.batch):
            made = pipeline.generate(requests[part])
            folder.write(name, {"image_BHW3": np.stack([one.image_HWC for one in made])})
    folder.finish()
    captions = [task.caption for task in tasks]
    scores = {row.name: scored(folder.folder, row.name, captions, rewards) for row in rows}
    report = {
        "commit": git_commit(),
        "model": pipeline.model_id,
        "data": str(config.data),
        "people": len({task.person for task in tasks}),
        "pictures_of_each": len(tasks),
        "seed": config.seed,
        "text": reading(pipeline.text_encoder, captions, [task.profile for task in tasks]),
        "rewards": {reward.name: reward.identity for reward in rewards},
        "rows": compared(scores, rewards, [task.person for task in tasks], config.seed),
    }
    write_json(config.out / "report.json", report)
    write_figure(config, tasks, rows, folder.folder)
    print(format_table(report))
    return report


def make_tasks(config: PickapicCaptionsConfig, width: int) -> list[Task]:
    """The people of both tests with the first captions that each is asked about."""
    profiles, captions = read_profiles(config.data), read_lists(config.data, "texts-")
    asked = []
    for split in TESTS:
        pairs = load_pairs(config.data, "vlm", width, (split,))
        for person in range(pairs.people)[: config.people]:
            place = int(pairs.place_U[person])
            own = dict.fromkeys(pairs.caption_P[pairs.person_P == person].tolist())
            emb_D = pairs.user_emb_ED[pairs.first_embedding_U[person]].numpy()
            profile = profiles[place]["sets"][0]["profile"]
            asked += [(place, captions[one], profile, emb_D) for one in [*own][: config.prompts]]
    first_seed = FIRST_SEED + 1_000_000 * config.seed
    return [Task(*each, seed=first_seed + index) for index, each in enumerate(asked)]


def make_rows(config: PickapicCaptionsConfig, tasks: Sequence[Task], width: int) -> list[Row]:
    """The base, Diffusion-DPO, both with longer captions, and the adapter that is told the person.

    Raises ValueError for adapters that were trained with another kind of user, or another VLM.
    """
    plain = [task.caption for task in tasks]
    longer = [augmented(task.caption, task.profile) for task in tasks]
    nobody: list[FloatArray | None] = [None] * len(tasks)
    rows = [Row("base", None, plain, nobody), Row("base_augmented", None, longer, nobody)]
    if config.diffusion_dpo is not None:
        adapter_of(config.diffusion_dpo, ("none",))
        alike: list[FloatArray | None] = [everybody(width)] * len(tasks)
        rows.append(Row("diffusion_dpo", config.diffusion_dpo, plain, alike))
        rows.append(Row("diffusion_dpo_augmented", config.diffusion_dpo, longer, alike))
    read_by = read_manifest(config.data, finished=True)["provenance"]["encoder_id"]
    trained_on = adapter_of(config.ppd, ("vlm",)).extra["encoder_id"]
    if trained_on != read_by:
        raise ValueError(
            f"{config.ppd} reads embeddings of {trained_on!r}, {config.data} holds those of "
            f"{read_by!r}"
        )
    return [*rows, Row("ppd", config.ppd, plain, [task.user_emb_D for task in tasks])]


def made_with(
    config: PickapicCaptionsConfig, pipeline: Pipeline, tasks: Sequence[Task], rows: Sequence[Row]
) -> dict[str, Any]:
    """What the pictures, and their parts, depend on."""
    adapters = {row.name: row.adapter for row in rows if row.adapter is not None}
    return {
        "model": pipeline.model_id,
        "data": sha256_of(config.data / MANIFEST),
        "adapters": {name: sha256_of(path) for name, path in adapters.items()},
        "tasks": [[task.person, task.caption, task.seed] for task in tasks],
        "strength": config.strength,
        **sampling_of(config),
        "batch": config.batch,
    }


def parts_of(folder: Path, row: str) -> Iterator[NDArray[np.uint8]]:
    """What a row painted, B x H x W x 3, part by part."""
    for shard in read_shards(folder, f"{row}-"):
        yield shard["image_BHW3"].numpy()


def scored(
    folder: Path, row: str, captions: Sequence[str], rewards: Sequence[Reward]
) -> FloatArray:
    """Every reward of a row's pictures with the plain captions, A x R."""
    scores: list[FloatArray] = []
    done = 0
    for image_BHW3 in parts_of(folder, row):
        asked = captions[done : done + len(image_BHW3)]
        scores.append(np.stack([reward.score(image_BHW3, asked) for reward in rewards]))
        done += len(image_BHW3)
    return np.concatenate(scores, axis=1)


def compared(
    scores: dict[str, FloatArray], rewards: Sequence[Reward], person_R: Sequence[int], seed: int
) -> dict[str, Any]:
    """Of each row and reward the mean, and the mean difference from "base"; intervals redraw
    people."""
    rng = np.random.default_rng([seed, 71])
    cluster_R = np.array(person_R)

    def mean(value_R: FloatArray) -> dict[str, float | int]:
        return clustered_mean(value_R, cluster_R, rng).to_dict()

    return {
        name: {
            reward.name: {
                "mean": mean(scores_AR[a]),
                "over_base": mean(scores_AR[a] - scores["base"][a]),
            }
            for a, reward in enumerate(rewards)
        }
        for name, scores_AR in scores.items()
    }


def write_figure(
    config: PickapicCaptionsConfig, tasks: Sequence[Task], rows: Sequence[Row], folder: Path
) -> None:
    """pictures.png: a line for each of the first tasks, a column for each row; pictures.txt."""
    columns = [
        np.concatenate(list(next(parts_of(folder, row.name))[: config.shown])) for row in rows
    ]
    Image.fromarray(np.concatenate(columns, axis=1)).save(config.out / "pictures.png")
    lines = [f"columns: {', '.join(row.name for row in rows)}", ""]
    for number, task in enumerate(tasks[: config.shown], start=1):
        lines += [f"{number}. {task.caption}", f"   {task.profile}", ""]
    (config.out / "pictures.txt").write_text("\n".join(lines), encoding="utf-8")


def format_table(report: dict[str, Any]) -> str:
    """Means and differences from the base, with intervals."""

    def cell(estimate: dict[str, float]) -> str:
        return "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**estimate)

    titles = [title for name in report["rewards"] for title in (name, f"{name}, over base")]
    rows = [
        [row, *(cell(of[key]) for of in found.values() for key in ("mean", "over_base"))]
        for row, found in report["rows"].items()
    ]
    return markdown_table(["", *titles], rows)


if __name__ == "__main__":
    run_job(run, PickapicCaptionsConfig, __doc__)
