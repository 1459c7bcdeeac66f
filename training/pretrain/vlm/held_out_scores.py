"""What the user embedding knows of a taste, measured through the encoder as it is served.

People, pictures and answers are fresh. The bound is the best estimate that the same four answers
allow when the pictures' looks are measured and the population is known.

Legend: N people, D embedding, L looks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from transformers import LlavaOnevisionForConditionalGeneration

from ppd_model.types import LabelledPair
from ppd_model.user_encoder import (
    EncodedUser,
    EncodingError,
    UserEncoder,
    make_processor,
    small_image_processor,
    small_tokenizer,
)
from training.pretrain.vlm.examples import Answers, World, profile_and_target
from training.world.scene import LOOKS
from training.world.store import PictureStore

_BATCH = 32
_EVALUATION_SEED = 900_001
"""People of evaluations come from seeds that no training uses."""
RIDGE = 1e-2


def encoder_of(
    model: LlavaOnevisionForConditionalGeneration, tokenizer_path: Path, max_new_tokens: int
) -> UserEncoder:
    """The served encoder around a model in training. It freezes the model's parameters."""
    processor = make_processor(
        small_tokenizer(tokenizer_path),
        small_image_processor(model.config.vision_config.image_size),
        model.config,
    )
    return UserEncoder(model, processor, weights_id="in-training", max_new_tokens=max_new_tokens)


def evaluate(
    encoder: UserEncoder,
    store: PictureStore,
    part: slice,
    *,
    people: int,
    seed: int,
    taste_head: nn.Linear | None = None,
) -> dict[str, Any]:
    """Probes of the embeddings of ``people`` fresh people, on pictures of ``part`` of the store.

    A ridge probe is fitted on as many further people, where there are at least 256.
    """
    world = World(store, part, 32768, seed + _EVALUATION_SEED)
    rng = np.random.default_rng((seed, _EVALUATION_SEED))
    answers = [world.person(rng) for _ in range(people)]
    start = time.monotonic()
    users, failures = encode_people(encoder, answers, store)
    seconds = (time.monotonic() - start) / people
    kept = [a for a, u in zip(answers, users, strict=True) if u is not None]
    known = [u for u in users if u is not None]
    report: dict[str, Any] = {"people": people, "without_profile": failures}
    report["seconds_per_person_in_batch"] = round(seconds, 3)
    if not known:
        return report
    taste_NL = np.stack([a.taste_L for a in kept])
    estimate_NL = np.stack([a.estimate_L for a in kept])
    fresh = _fresh_deltas(world, len(kept), rng)
    report["bound"] = _scores(estimate_NL, taste_NL, fresh)
    report["confidence"] = round(float(np.mean([u.confidence for u in known])), 3)
    emb_ND = np.stack([u.user_emb_D for u in known])
    if taste_head is not None:
        with torch.inference_mode():
            read_NL = taste_head(torch.from_numpy(emb_ND)).numpy()
        report["trained_head"] = _scores(read_NL, taste_NL, fresh)
        report["trained_head"]["cosine_to_bound"] = _mean_cosine(read_NL, estimate_NL)
        report["edited"] = _edited(encoder, world, kept, store, taste_head, rng)
    if people >= 256:
        others = [world.person(rng) for _ in range(people)]
        encoded, _ = encode_people(encoder, others, store)
        pairs = [(a, u) for a, u in zip(others, encoded, strict=True) if u is not None]
        weights = fit_ridge(
            np.stack([u.user_emb_D for _, u in pairs]), np.stack([a.taste_L for a, _ in pairs])
        )
        report["ridge_probe"] = _scores(apply_ridge(emb_ND, weights), taste_NL, fresh)
    report["example"] = known[0].transcript
    report["profiles"] = [u.profile for u in known[:8]]
    return report


def encode_people(
    encoder: UserEncoder,
    answers: Sequence[Answers],
    store: PictureStore,
    profiles: Sequence[str | None] | None = None,
) -> tuple[list[EncodedUser | None], int]:
    """Encodings in order; None for a person whose response had no profile, and how many.

    A response without profile spoils its batch, whose people are then encoded one by one.
    """
    given = list(profiles) if profiles is not None else [None] * len(answers)
    if answers and _or_none(encoder, choices_of(answers[0], store), given[0]) is None:
        # A model this young writes no profiles yet; do not ask everybody.
        return [None] * len(answers), len(answers)
    users: list[EncodedUser | None] = []
    for start in range(0, len(answers), _BATCH):
        many = [choices_of(a, store) for a in answers[start : start + _BATCH]]
        texts = given[start : start + _BATCH]
        try:
            users += encoder.encode_batch(many, profiles=texts)
        except EncodingError:
            users += [_or_none(encoder, c, t) for c, t in zip(many, texts, strict=True)]
    return users, sum(user is None for user in users)


def choices_of(answers: Answers, store: PictureStore) -> list[LabelledPair]:
    """A person's answers as the service would hand them to the encoder."""
    return [
        LabelledPair(
            caption,
            Image.fromarray(store.pictures[int(first)]),
            Image.fromarray(store.pictures[int(second)]),
            int(preferred),
        )
        for caption, (first, second), preferred in zip(
            answers.captions, answers.pictures_P2, answers.preferred_P, strict=True
        )
    ]


def fit_ridge(emb_ND: NDArray[np.float32], taste_NL: NDArray[np.float32]) -> NDArray[np.float64]:
    """Linear map from embeddings (and a one) to tastes, (D + 1) x L, with a small ridge."""
    ones = np.ones((len(emb_ND), 1))
    x = np.concatenate([emb_ND, ones], axis=1).astype(np.float64)
    penalty = RIDGE * len(x) * float(x.var()) * np.eye(x.shape[1])
    weights = np.linalg.solve(x.T @ x + penalty, x.T @ taste_NL)
    return np.asarray(weights, dtype=np.float64)


def apply_ridge(emb_ND: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    ones = np.ones((len(emb_ND), 1))
    read_NL: NDArray[np.float32] = (np.concatenate([emb_ND, ones], axis=1) @ weights).astype(
        np.float32
    )
    return read_NL


def _or_none(
    encoder: UserEncoder, choices: list[LabelledPair], text: str | None
) -> EncodedUser | None:
    try:
        return encoder.encode(choices, profile=text)
    except EncodingError:
        return None


def _fresh_deltas(world: World, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Look differences of 16 fresh pairs per person, N x 16 x L."""
    drawn = [world.person(rng).pictures_P2 for _ in range(4 * count)]
    looks = world.store.looks[np.stack(drawn)].reshape(count, 16, 2, len(LOOKS))
    deltas: NDArray[np.float32] = looks[:, :, 1] - looks[:, :, 0]
    return deltas


def _scores(
    read_NL: NDArray[np.float32], taste_NL: NDArray[np.float32], fresh: NDArray[np.float32]
) -> dict[str, float]:
    """Mean cosine to the taste, and how often the better of two fresh pictures is picked."""
    picked = np.einsum("nl,npl->np", read_NL, fresh) > 0
    better = np.einsum("nl,npl->np", taste_NL, fresh) > 0
    return {
        "cosine": _mean_cosine(read_NL, taste_NL),
        "picking_accuracy": round(float((picked == better).mean()), 4),
    }


def _mean_cosine(a_NL: NDArray[np.float32], b_NL: NDArray[np.float32]) -> float:
    norms = np.linalg.norm(a_NL, axis=1) * np.linalg.norm(b_NL, axis=1) + 1e-9
    return round(float(((a_NL * b_NL).sum(axis=1) / norms).mean()), 4)


def _edited(
    encoder: UserEncoder,
    world: World,
    answers: Sequence[Answers],
    store: PictureStore,
    taste_head: nn.Linear,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Texts of people who changed their mind: does the reading follow text and choices?"""
    some = list(answers[:64])
    edits = [profile_and_target(a, "changed", world, rng) for a in some]
    users, _ = encode_people(encoder, some, store, [text for text, _ in edits])
    kept = [
        (u, target_L, a)
        for u, (_, target_L), a in zip(users, edits, some, strict=True)
        if u is not None
    ]
    if not kept:
        return {}
    emb_ND = np.stack([u.user_emb_D for u, _, _ in kept])
    target_NL = np.stack([target_L for _, target_L, _ in kept])
    with torch.inference_mode():
        read_NL = taste_head(torch.from_numpy(emb_ND)).numpy()
    unread_NL = np.stack([a.estimate_L for _, _, a in kept])
    return {
        "cosine_to_target": _mean_cosine(read_NL, target_NL),
        "cosine_to_target_without_reading": _mean_cosine(unread_NL, target_NL),
    }
