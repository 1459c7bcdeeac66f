"""START HERE: measures the whole path, four choices to a personalised picture, on unseen people.

    python -m training.evaluate --preset mini --out DIR

writes DIR/report.json and DIR/index.html and prints the table. Simulated people whose seeds no
training and no choice of hyperparameters has used answer four pairs of pictures: freshly painted
ones at random or, with `--quiz served`, those that the service would ask. The VLM reads the
answers; the model paints with and without the embedding, same prompt and seed; the world's measured
looks decide which of the two the person prefers.

People come in groups that share prompts and seeds. A person's control is a group mate's picture:
the same prompt and seed, another's profile.

Legend: U people, K prompts of a person, G groups, L looks, D embedding, B pictures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ppd_model.user_encoder import EncodedUser, UserEncoder
from training.evaluate.evaluate_config import EvaluateConfig, check, first_seed
from training.evaluate.measures import (
    bounds_report,
    calls_report,
    content_report,
    encode,
    one_look_report,
    paint_people,
    profiles_report,
    wins_report,
)
from training.evaluate.page import write_page
from training.evaluate.painting import (
    ADAPTER_IS_OFF,
    Judge,
    Painter,
    Prompt,
    Shown,
    spread_prompts,
)
from training.evaluate.table import format_table, table
from training.jobs.command_line import run_job
from training.jobs.configuration import git_commit, save_resolved
from training.jobs.files import write_json
from training.quiz.quizzes import Person, make_quiz, quiz_people
from training.world.people import person_seeds


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Measure everything, write the report, print the table; returns the report."""
    check(config)
    torch.set_num_threads(config.threads)
    started_s = time.monotonic()
    save_resolved(config, config.out)
    judge = Judge.load(config.weights_dir, config.classifier)
    encoder = UserEncoder.load(
        config.preset,
        config.weights_dir,
        prompt_variant=config.prompt_variant,
        decoding=config.decoding,
    )
    painter = Painter.load(config, judge, config, config.strength)
    pipeline = painter.pipeline
    pipeline.set_personalize_below(config.personalize_below)
    if pipeline.encoder_id != encoder.encoder_version:
        raise ValueError(
            f"the adapter reads embeddings of {pipeline.encoder_id!r}, "
            f"the user encoder is {encoder.encoder_version!r}"
        )

    quiz = make_quiz(config.quiz, judge.looks, config.tie_below)
    seeds = person_seeds(config.split, config.people, config.first_person)
    people = quiz_people(quiz, seeds)
    encoded = encode(encoder, people, config.batch)
    prompts_GK = group_prompts(config)
    base = paint_base(painter, prompts_GK)
    emb_UD = [user.user_emb_D for user in encoded]
    own = paint_people(painter, "personalised", prompts_GK, emb_UD)
    report: dict[str, Any] = {
        "preset": config.preset,
        "commit": git_commit(),
        "model": pipeline.model_id,
        "adapter_version": pipeline.adapter_version,
        "encoder_version": encoder.encoder_version,
        "people": {"split": config.split, "first": config.first_person, "count": config.people},
        "quiz": config.quiz,
        "wins": wins_report(people, own, base, config),
        "one_look": one_look_report(painter, encoder, quiz, config),
        "content": content_report(painter, base, own, prompts_GK, config),
        "profiles": profiles_report(people, encoded, config),
        "calls": calls_report(pipeline, encoder, people, emb_UD[0], config),
        "bounds": bounds_report(painter, people, prompts_GK, base, config),
    }
    report["pictures"] = {"made": painter.made, "per_s": painter.made / painter.seconds}
    report["minutes"] = (time.monotonic() - started_s) / 60
    report["table"] = table(report)
    write_json(config.out / "report.json", report)
    write_page(config.out, report, gallery(people, encoded, base, own, prompts_GK, config))
    print(format_table(report["table"]))
    print(f"{config.out / 'index.html'} ({report['minutes']:.1f} minutes)")
    return report


def group_prompts(config: EvaluateConfig) -> list[list[Prompt]]:
    """K prompts for each group, contents spread evenly, seeds all different."""
    rng = np.random.default_rng([config.seed, first_seed(config), 8])
    groups = config.people // config.group
    prompts = spread_prompts(groups * config.prompts, first_seed(config) + 1000, rng)
    return [prompts[g * config.prompts : (g + 1) * config.prompts] for g in range(groups)]


def paint_base(painter: Painter, prompts_GK: list[list[Prompt]]) -> Shown:
    """The base model's pictures of every group's prompts, G * K of them."""
    flat = [prompt for prompts in prompts_GK for prompt in prompts]
    return painter.paint("base", flat, [ADAPTER_IS_OFF] * len(flat))


def gallery(
    people: Sequence[Person],
    encoded: Sequence[EncodedUser],
    base: Shown,
    own: Shown,
    prompts_GK: list[list[Prompt]],
    config: EvaluateConfig,
    count: int = 8,
) -> list[dict[str, Any]]:
    """Some people for the page: their profile, what they preferred, base and own pictures.

    The first of each group, in order: nobody chose them.
    """
    entries = []
    for user in range(0, min(len(people), count * config.group), config.group):
        preferred = [
            np.asarray(choice.image_1 if choice.preferred else choice.image_0)
            for choice in people[user].choices
        ]
        first_base, first_own = user // config.group * config.prompts, user * config.prompts
        entries.append(
            {
                "profile": encoded[user].profile,
                "prompts": [prompt.text for prompt in prompts_GK[user // config.group]],
                "preferred": preferred,
                "base": list(base.images[first_base : first_base + config.prompts]),
                "own": list(own.images[first_own : first_own + config.prompts]),
            }
        )
    return entries


if __name__ == "__main__":
    run_job(evaluate, EvaluateConfig, __doc__)
