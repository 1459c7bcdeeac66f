"""What the VLM that is continued reads of simulated people: its responses and embeddings.

They are the anchor of the training: for choices with their own profile, the embedding stays.

Legend: N people, P = 4 pairs, D embedding, L looks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ppd_model import prompts
from ppd_model.user_encoder import UserEncoder
from training.jobs.files import replacing
from training.pretrain.vlm.examples import World
from training.pretrain.vlm.held_out_scores import encode_people

CHUNK = 64
_RELEASED_EVERY = 8
"""One chunk in so many is read by the released wording of the prompt."""


@dataclass(frozen=True)
class Readings:
    """People, their four answers, and what the VLM made of them. Text is unicode."""

    taste_NL: NDArray[np.float32]
    pictures_NP2: NDArray[np.int64]
    preferred_NP: NDArray[np.int64]
    captions_NP: NDArray[np.str_]
    variant_N: NDArray[np.str_]
    response_N: NDArray[np.str_]
    user_emb_ND: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.taste_NL)

    def save(self, path: Path) -> None:
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, paths: list[Path]) -> Readings:
        """Those files one after the other."""
        parts: dict[str, list[NDArray[np.generic]]] = {field.name: [] for field in fields(cls)}
        for path in paths:
            with np.load(path) as arrays:
                for name, values in parts.items():
                    values.append(arrays[name])
        return cls(**{name: np.concatenate(values) for name, values in parts.items()})


def read_people(
    folder: Path,
    people: int,
    world: World,
    seed: int,
    load: Callable[[str], UserEncoder],
) -> Readings:
    """Read ``people`` fresh people, a file a chunk; files that are there are kept.

    ``load`` gives the encoder of a prompt variant; it is asked only if something is to be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    encoders: dict[str, UserEncoder] = {}
    paths = [folder / f"readings-{i:05d}.npz" for i in range(-(-people // CHUNK))]
    for number, path in enumerate(paths):
        if path.exists():
            continue
        released = number % _RELEASED_EVERY == _RELEASED_EVERY - 1
        variant: prompts.Variant = "released" if released else "paper"
        if variant not in encoders:
            encoders[variant] = load(variant)
        _read_chunk(encoders[variant], variant, world, (seed, 6, number)).save(path)
        print(f"{path.name} of {len(paths)}", flush=True)
    return Readings.load(paths)


def _read_chunk(
    encoder: UserEncoder, variant: prompts.Variant, world: World, seed: tuple[int, ...]
) -> Readings:
    rng = np.random.default_rng(seed)
    answers = [world.person(rng) for _ in range(CHUNK)]
    users, _ = encode_people(encoder, answers, world.store)
    kept = [(a, u) for a, u in zip(answers, users, strict=True) if u is not None]
    return Readings(
        taste_NL=np.stack([a.taste_L for a, _ in kept]),
        pictures_NP2=np.stack([a.pictures_P2 for a, _ in kept]),
        preferred_NP=np.stack([a.preferred_P for a, _ in kept]),
        captions_NP=np.array([a.captions for a, _ in kept]),
        variant_N=np.array([variant] * len(kept)),
        response_N=np.array([u.transcript for _, u in kept]),
        user_emb_ND=np.stack([u.user_emb_D for _, u in kept]),
    )
