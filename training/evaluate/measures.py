"""What an evaluation measures, one part of report.json each.

Legend: U people, K prompts of a person, G groups, L looks, R comparisons, D embedding."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ppd_model.pipeline import Pipeline
from ppd_model.types import ImageRequest
from ppd_model.user_encoder import EncodedUser, EncodingError, UserEncoder
from training.data.dataset import load_pairs
from training.data.vlm_readings import read_each
from training.evaluate.evaluate_config import EvaluateConfig, first_seed
from training.evaluate.page import png
from training.evaluate.painting import (
    ADAPTER_IS_OFF,
    SAME_WITHIN,
    FloatArray,
    Painter,
    Prompt,
    Shown,
    spread_prompts,
)
from training.quiz.quizzes import Person, Quiz
from training.reports.statistics import clustered_mean, mean_cosine, ridge_probe, wins
from training.world import captions, tastes
from training.world.scene import CONTENTS, LOOKS, SETTINGS


def encode(encoder: UserEncoder, people: Sequence[Person], batch: int) -> list[EncodedUser]:
    """The VLM's reading of each person's four choices.

    One that cannot be used is asked for once more, as the service does; raises EncodingError where
    that cannot be used either.
    """
    many = [person.choices for person in people]
    read = read_each(encoder, many, len(many), batch=batch, what="profiles")
    return [
        encoder.encode(many[place], seed=place + 1) if isinstance(one, EncodingError) else one
        for place, one in enumerate(read)
    ]


def paint_people(
    painter: Painter, what: str, prompts_GK: list[list[Prompt]], emb_UD: Sequence[FloatArray]
) -> Shown:
    """Each person's pictures of their group's prompts, U * K of them, person by person."""
    group = len(emb_UD) // len(prompts_GK)
    prompts = [prompt for user in range(len(emb_UD)) for prompt in prompts_GK[user // group]]
    per_person = len(prompts_GK[0])
    return painter.paint(what, prompts, [emb_D for emb_D in emb_UD for _ in range(per_person)])


def wins_report(
    people: Sequence[Person], own: Shown, base: Shown, config: EvaluateConfig
) -> dict[str, Any]:
    """Wins over the base with one's own profile, and with group mates' profiles (the control).

    Tastes lean no way, so the control is one half in expectation whatever the adapter does for all
    alike; "own_over_others", one's own picture against each group mate's, is what tells a personal
    change from a common one.
    """
    rng = np.random.default_rng([config.seed, 9])
    taste_UL = np.stack([person.taste_L for person in people])
    own_UKL, base_UKL = by_person(own, base, len(people), config)
    score_UK = tastes.utility(taste_UL[:, None], own_UKL)
    base_UK = tastes.utility(taste_UL[:, None], base_UKL)
    person_UK = np.repeat(np.arange(len(people))[:, None], config.prompts, 1)
    own_win = clustered_mean(wins(score_UK, base_UK, SAME_WITHIN).ravel(), person_UK.ravel(), rng)
    gain_UK = (taste_UL[:, None] * (own_UKL - base_UKL)).sum(-1)
    gain = clustered_mean(gain_UK.ravel(), person_UK.ravel(), rng)

    outcome, own_over_others, group_of = [], [], []
    for user in range(len(people)):
        first = user - user % config.group
        for mate in range(first, first + config.group):
            if mate != user:
                theirs_K = tastes.utility(taste_UL[user], own_UKL[mate])
                outcome.append(wins(theirs_K, base_UK[user], SAME_WITHIN))
                own_over_others.append(wins(score_UK[user], theirs_K))
                group_of.append(np.full(config.prompts, user // config.group))
    group_R = np.concatenate(group_of)
    control = clustered_mean(np.concatenate(outcome), group_R, rng)
    over_others = clustered_mean(np.concatenate(own_over_others), group_R, rng)
    return {
        "own": own_win.to_dict(),
        "gain_sd": gain.to_dict(),
        "control": control.to_dict(),
        "control_covers_half": control.contains(0.5),
        "own_over_others": over_others.to_dict(),
        "per_person": wins(score_UK, base_UK, SAME_WITHIN).mean(1).tolist(),
        "slope_per_look": look_slopes(taste_UL, own_UKL - base_UKL),
    }


def by_person(
    own: Shown, base: Shown, people: int, config: EvaluateConfig
) -> tuple[FloatArray, FloatArray]:
    """Looks of each person's pictures and of the base's for the same prompts, both U x K x L."""
    own_UKL = own.looks.reshape(people, config.prompts, len(LOOKS))
    base_GKL = base.looks.reshape(-1, config.prompts, len(LOOKS))
    return own_UKL, base_GKL[np.arange(people) // config.group]


def look_slopes(taste_UL: FloatArray, change_UKL: FloatArray) -> dict[str, float]:
    """By how many sd a look moves for each unit of taste for it (least squares)."""
    change_UL = change_UKL.mean(1)
    taste_UL = taste_UL - taste_UL.mean(0)
    slope_L = (taste_UL * change_UL).sum(0) / (taste_UL**2).sum(0)
    return dict(zip(LOOKS, slope_L.tolist(), strict=True))


def one_look_report(
    painter: Painter, encoder: UserEncoder, quiz: Quiz, config: EvaluateConfig
) -> dict[str, Any]:
    """People who care for one look only, in either direction: how far it moves, in sd.

    Each of them answers several quizzes, since four pairs may hardly show a look.
    """
    askers = [
        (look, sign, index)
        for look in range(len(LOOKS))
        for sign in (1.0, -1.0)
        for index in range(config.one_look_quizzes)
    ]
    people = [
        quiz(
            tastes.single_look(look, sign),
            np.random.default_rng([config.seed, first_seed(config), 7, look, int(sign > 0), index]),
        )
        for look, sign, index in askers
    ]
    encoded = encode(encoder, people, config.batch)
    rng = np.random.default_rng([config.seed, first_seed(config), 10])
    count = config.one_look_quizzes * config.one_look_prompts
    prompts = spread_prompts(count, first_seed(config) + 5000, rng)
    base = painter.paint("one look, base", prompts, [ADAPTER_IS_OFF] * len(prompts))
    each = config.one_look_prompts
    asked = [prompts[index * each + k] for _, _, index in askers for k in range(each)]
    base_rows = [index * each + k for _, _, index in askers for k in range(each)]
    embeddings = [user.user_emb_D for user in encoded for _ in range(each)]
    own = painter.paint("one look", asked, embeddings)
    change_RL = own.looks - base.looks[base_rows]
    boot = np.random.default_rng([config.seed, 11])
    effects: dict[str, Any] = {}
    for look, name in enumerate(LOOKS):
        rows = [r for r in range(len(asked)) if askers[r // each][0] == look]
        signed = np.array([askers[r // each][1] * change_RL[r, look] for r in rows])
        quiz_of = np.array([r // each for r in rows])
        effects[name] = clustered_mean(signed, quiz_of, boot).to_dict()
    moved = [name for name, effect in effects.items() if effect["mean"] >= 0.5]
    return {"effect_sd": effects, "moved": moved, "count": len(moved)}


def content_report(
    painter: Painter,
    base: Shown,
    own: Shown,
    prompts_GK: list[list[Prompt]],
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Whether pictures show what was asked, base and personalised, by the classifier.

    kept_of_right: of what the base got right; None where it got nothing right for two people.
    """
    rng = np.random.default_rng([config.seed, first_seed(config), 12])
    extra = spread_prompts(config.content_repeats * CONTENTS, first_seed(config) + 9000, rng)
    plain = painter.paint("content, base", extra, [ADAPTER_IS_OFF] * len(extra))
    base_prompts = [prompt for prompts in prompts_GK for prompt in prompts]
    asked = np.array([prompt.content for prompt in [*base_prompts, *extra]])
    named = np.concatenate([base.content_named, plain.content_named])
    wanted_GK = np.array([prompt.content for prompt in base_prompts]).reshape(-1, config.prompts)
    group_U = np.arange(config.people) // config.group
    wanted = wanted_GK[group_U].ravel()
    of_base = base.content_named.reshape(-1, config.prompts)[group_U].ravel()
    right_before = of_base == wanted
    right_after = own.content_named == wanted
    person = np.repeat(np.arange(config.people), config.prompts)[right_before]
    kept = None
    if len(np.unique(person)) > 1:
        kept = clustered_mean(right_after[right_before].astype(float), person, rng).to_dict()
    return {
        "base": accuracies(named, asked),
        "base_same_prompts": accuracies(of_base, wanted),
        "personalised": accuracies(own.content_named, wanted),
        "kept_ratio": float(right_after.mean() / max(right_before.mean(), 1e-9)),
        "kept_of_right": kept,
    }


def accuracies(named: NDArray[np.int64], asked: NDArray[np.int64]) -> dict[str, float]:
    """Shares of pictures whose subject, setting, or both are named as asked."""
    subject = named // len(SETTINGS) == asked // len(SETTINGS)
    setting = named % len(SETTINGS) == asked % len(SETTINGS)
    return {
        "subject": float(subject.mean()),
        "setting": float(setting.mean()),
        "both": float((subject & setting).mean()),
        "pictures": len(named),
    }


def estimates(people: Sequence[Person], config: EvaluateConfig) -> FloatArray:
    """The best estimate of each taste that the four answers allow, U x L."""
    rng = np.random.default_rng([config.seed, 13])
    prior = tastes.Population().sample(config.population_samples, rng)
    return np.stack(
        [tastes.posterior_mean(person.delta_4L, person.preferred_4, prior) for person in people]
    )


def profiles_report(
    people: Sequence[Person], encoded: Sequence[EncodedUser], config: EvaluateConfig
) -> dict[str, Any]:
    """What the embedding tells of the taste, linearly, against what the answers could tell."""
    taste_UL = np.stack([person.taste_L for person in people])
    estimate_UL = estimates(people, config)
    report: dict[str, Any] = {
        "cosine_of_best_estimate": mean_cosine(estimate_UL, taste_UL),
        "cosine_of_linear_probe": None,
        "confidence": float(np.mean([user.confidence for user in encoded])),
        "distinct_profiles": len({user.profile for user in encoded}),
    }
    if config.probe_data is not None:
        width = encoded[0].user_emb_D.shape[0]
        seen = load_pairs(config.probe_data, "vlm", width)
        truth = load_pairs(config.probe_data, "taste", width).user_emb_ED[:, : len(LOOKS)]
        probed_UL = ridge_probe(
            seen.user_emb_ED.double().numpy(),
            truth.double().numpy(),
            np.stack([user.user_emb_D for user in encoded]).astype(np.float64),
        )
        report["cosine_of_linear_probe"] = mean_cosine(probed_UL, taste_UL)
        report["probe_trained_on"] = len(seen.user_emb_ED)
    return report


def calls_report(
    pipeline: Pipeline,
    encoder: UserEncoder,
    people: Sequence[Person],
    emb_D: FloatArray,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Seconds of single library calls on `threads` threads, and whether a call repeats exactly."""
    request = ImageRequest(
        prompt=captions.canonical(0, 0),
        seed=7,
        user_emb_D=emb_D,
        steps=config.steps,
        guidance_scale=config.guidance_scale,
        solver=config.solver,
        guidance_interval=config.guidance_interval,
        snr_shift=config.snr_shift,
        guidance_rescale=config.guidance_rescale,
    )
    pictures = [png(pipeline.generate([request])[0].image_HWC) for _ in range(2)]
    report: dict[str, Any] = {"identical_bytes": pictures[0] == pictures[1]}
    if config.time_calls:
        report["threads"] = config.threads
        report["picture_s"] = median_s(lambda: pipeline.generate([request]))
        report["profile_s"] = median_s(lambda: encoder.encode(people[0].choices))
    return report


def median_s(call: Any, repeats: int = 3) -> float:
    """Median seconds of a call, after the calls that came before have warmed it up."""
    seconds = []
    for _ in range(repeats):
        started_s = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started_s)
    return float(np.median(seconds))


def bounds_report(
    painter: Painter,
    people: Sequence[Person],
    prompts_GK: list[list[Prompt]],
    base: Shown,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Wins when the adapter is given the true taste, or the best estimate from the four answers.

    Uses an adapter of the same design trained on true tastes; {} without one.
    """
    if config.taste_adapter is None:
        return {}
    painter.pipeline.use_adapter(config.taste_adapter)
    few = people[: config.bound_people]
    groups = config.bound_people // config.group
    features = {
        "true_taste": np.stack([person.taste_L for person in few]),
        "best_estimate": estimates(few, config),
    }
    width = painter.pipeline.preset.user_emb_dim
    part = base.looks[: groups * config.prompts]
    few_base = Shown(base.images[: len(part)], part, base.content_named[: len(part)])
    report: dict[str, Any] = {}
    for name, feature_UL in features.items():
        emb_UD = np.pad(feature_UL, ((0, 0), (0, width - feature_UL.shape[1])))
        shown = paint_people(painter, name, prompts_GK[:groups], list(emb_UD))
        measured = wins_report(few, shown, few_base, config)
        report[name] = {key: measured[key] for key in ("own", "control", "gain_sd")}
        report[name]["slope_per_look"] = measured["slope_per_look"]
    return report
