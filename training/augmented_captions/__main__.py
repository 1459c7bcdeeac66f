"""START HERE for Figure 5's baseline: the profile in words, put behind the caption.

    python -m training.augmented_captions --config training/configs/mini_augmented_captions.yaml

Instead of an adapter that reads the embedding, the same profile text is appended to the prompt, for
the base model and for Diffusion-DPO. Measured against the base with the plain prompt, on the same
prompts and seeds: wins by the person's true taste, and content: of pictures that showed what was
asked for without the profile, how many still do with it (paper, 5.2: augmented captions "overlook
the intended image caption").

Before any picture, the text itself: how much of the profile the preset's text encoder can read at
all. It cuts a prompt at its last place, and mini's knows only the words of the world's captions,
which name no look, so that a profile is mostly unknown words to it: for `mini` this baseline can
lose content and cannot personalise, by construction. Published text encoders know the words.

Rows: "base", "base_augmented"; "ppd" (the adapter and the embedding, plain prompt); with
`diffusion_dpo_adapter` also "diffusion_dpo" and "diffusion_dpo_augmented".

Writes OUT/report.json and OUT/augmented_captions.png. People of Pick-a-Pic: pickapic.py.

Legend: U people, K prompts of a person, B pictures, D embedding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ppd_model.user_encoder import UserEncoder
from training.augmented_captions.text import augmented, reading
from training.evaluate.evaluate_config import PersonalPictures
from training.evaluate.painting import (
    SAME_WITHIN,
    Judge,
    Painter,
    Prompt,
    Shown,
    spread_prompts,
)
from training.jobs.command_line import run_job
from training.jobs.configuration import git_commit, save_resolved
from training.jobs.files import write_json
from training.jobs.shared_options import FirstPerson, SolverOptions
from training.quiz.answered_sets import read_sets
from training.quiz.quizzes import RandomPairs, quiz_people
from training.reports.plots import OTHER, OURS, grouped_bars
from training.reports.statistics import as_shares, clustered_mean, wins
from training.reports.tables import markdown_table
from training.world import tastes
from training.world.people import SeedRange, person_seeds

FloatArray = NDArray[np.float32]


class AugmentedConfig(PersonalPictures):
    """Who, with how many prompts, and which adapters."""

    diffusion_dpo_adapter: Path | None = None
    """Adapter trained with objective diffusion_dpo; null leaves its row out."""
    people: int = 64
    """How many people."""
    split: SeedRange = "test"
    """People of which seeds."""
    first_person: FirstPerson = 40_000


def run(config: AugmentedConfig) -> dict[str, Any]:
    """Read profiles, count words, paint every row, write; returns the report."""
    torch.set_num_threads(config.threads)
    save_resolved(config, config.out)
    judge = Judge.load(config.weights_dir)
    seeds = person_seeds(config.split, config.people, config.first_person)
    people = quiz_people(RandomPairs(judge.looks, config.tie_below), seeds)
    encoder = UserEncoder.load(config.preset, config.weights_dir)
    choices = [person.choices for person in people]
    read = read_sets(encoder, choices, batch=config.encode_batch, what="profiles").complete()
    rng = np.random.default_rng([config.seed, seeds[0], 29])
    plain = spread_prompts(len(people) * config.prompts, seeds[0] + 1000, rng)
    profiles = [profile for profile in read.profiles for _ in range(config.prompts)]
    longer = [
        Prompt(augmented(prompt.text, profile), prompt.content, prompt.seed)
        for prompt, profile in zip(plain, profiles, strict=True)
    ]
    own_BD = list(np.repeat(read.user_emb_ED, config.prompts, axis=0))
    nobody = [None] * len(plain)
    options = SolverOptions(batch=config.picture_batch)
    painter = Painter.load(config, judge, options)
    pipeline = painter.pipeline
    rows = {
        "base": painter.paint("base", plain, nobody),
        "base_augmented": painter.paint("base, augmented", longer, nobody),
        "ppd": painter.paint("ppd", plain, own_BD),
    }
    versions = {"ppd": pipeline.adapter_version}
    if config.diffusion_dpo_adapter is not None:
        pipeline.use_adapter(config.diffusion_dpo_adapter)
        versions["diffusion_dpo"] = pipeline.adapter_version
        everybody = [np.ones(pipeline.preset.user_emb_dim, dtype=np.float32)] * len(plain)
        rows["diffusion_dpo"] = painter.paint("Diffusion-DPO", plain, everybody)
        rows["diffusion_dpo_augmented"] = painter.paint(
            "Diffusion-DPO, augmented", longer, everybody
        )
    report = {
        "commit": git_commit(),
        "encoder_version": encoder.encoder_version,
        "model": pipeline.model_id,
        "adapter_versions": versions,
        "people": {"split": config.split, "first": config.first_person, "count": config.people},
        "seed": config.seed,
        "text": reading(pipeline.text_encoder, [prompt.text for prompt in plain], profiles),
        "rows": compared(rows, plain, np.stack([one.taste_L for one in people]), config),
    }
    write_json(config.out / "report.json", report)
    (config.out / "augmented_captions.png").write_bytes(plot(report))
    print(json.dumps(report["text"], indent=2))
    print(format_table(report))
    return report


def compared(
    rows: dict[str, Shown], plain: Sequence[Prompt], taste_UL: FloatArray, config: AugmentedConfig
) -> dict[str, Any]:
    """Of each row: wins over "base", content right, and content kept where "base" had it right."""
    rng = np.random.default_rng([config.seed, 30])
    taste_BL = np.repeat(taste_UL, config.prompts, axis=0)
    person_B = np.repeat(np.arange(len(taste_UL)), config.prompts)
    asked_B = np.array([prompt.content for prompt in plain])
    right_before_B = rows["base"].content_named == asked_B
    before_B = tastes.utility(taste_BL, rows["base"].looks)
    report: dict[str, Any] = {}
    for name, shown in rows.items():
        right_B = (shown.content_named == asked_B).astype(float)
        entry: dict[str, Any] = {
            "content_right": clustered_mean(right_B, person_B, rng).to_dict(),
            "content_kept": clustered_mean(
                right_B[right_before_B], person_B[right_before_B], rng
            ).to_dict(),
        }
        if name != "base":
            outcome_B = wins(tastes.utility(taste_BL, shown.looks), before_B, SAME_WITHIN)
            entry["wins"] = clustered_mean(outcome_B, person_B, rng).to_dict()
        report[name] = entry
    return report


def format_table(report: dict[str, Any]) -> str:
    keys = ("wins", "content_right", "content_kept")
    rows = [
        [name, *(as_shares(row.get(key)) for key in keys)] for name, row in report["rows"].items()
    ]
    return markdown_table(["", "wins over base", "content right", "content kept"], rows)


def plot(report: dict[str, Any]) -> bytes:
    """Wins and content kept of every row but the base."""
    rows = {name: row for name, row in report["rows"].items() if name != "base"}
    series = {
        key.replace("_", " "): (colour, [row[key] for row in rows.values()])
        for key, colour in (("wins", OURS), ("content_kept", OTHER))
    }
    return grouped_bars(series, [name.replace("_", "\n") for name in rows], "share of pictures")


if __name__ == "__main__":
    run_job(run, AugmentedConfig, __doc__)
