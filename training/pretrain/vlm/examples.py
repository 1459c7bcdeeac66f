"""Transcripts that teach mini's language model: four answered pairs, reasoning, profile, taste.

Every example is a fresh person of the population who answers four random pairs of the store. The
best estimate that the four answers allow is the target of the profile's words and of the taste
read from its final token. Part of the examples carry a profile that somebody edited or typed; the
target then follows the text on the looks it speaks of, and the choices on the others.

Legend: B examples, S tokens, N pictures, P = 4 pairs, L looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppd_model import prompts
from training.pretrain.vlm import profile_text
from training.world.captions import caption
from training.world.scene import LOOKS, SETTINGS
from training.world.store import PictureStore
from training.world.tastes import Population, choice_probability, posterior_mean

ProfileKind = Literal["generated", "revised", "typed", "changed"]
_KINDS: tuple[ProfileKind, ...] = ("generated", "revised", "typed", "changed")
_KIND_SHARES = (0.6, 0.14, 0.13, 0.13)
RELEASED_SHARE = 0.12
MISLED_SHARE = 0.35
"""Share of transcripts whose reasoning is wrong about half of its pairs: the taste must be read
from the pictures and answers, not only from words that the model itself may get wrong."""
IGNORED = -100


@dataclass(frozen=True)
class Answers:
    """One person's four answered pairs: picture indices P x 2, which was preferred, captions."""

    taste_L: NDArray[np.float32]
    pictures_P2: NDArray[np.int64]
    preferred_P: NDArray[np.int64]
    captions: list[str]
    estimate_L: NDArray[np.float32]
    """Posterior mean of the taste given the answers and the pictures' measured looks."""


@dataclass(frozen=True)
class Example:
    """A transcript as text, its pictures in the order shown, and what to read where."""

    prompt: str
    response: str
    pictures: list[int]
    shown_looks_8L: NDArray[np.float32]
    deltas_PL: NDArray[np.float32]
    """Looks of the preferred picture minus the other's."""
    estimate_L: NDArray[np.float32]
    target_L: NDArray[np.float32]
    misled: bool = False
    """The reasoning before the profile is partly wrong and is not to be learned."""


@dataclass(frozen=True)
class LanguageBatch:
    """Tokens padded on the right, and where each thing is to be read.

    ``image_rows`` are the picture indices in order of the image tokens; each ``*_at`` is a pair
    of index tensors (row, position) with targets of as many rows.
    """

    input_ids_BS: Tensor
    labels_BS: Tensor
    image_rows: NDArray[np.int64]
    looks_at: tuple[Tensor, Tensor]
    looks: Tensor
    deltas_at: tuple[Tensor, Tensor]
    deltas: Tensor
    unsaid_at: tuple[Tensor, Tensor]
    """Where the preference is known and nothing has been said of the difference yet."""
    unsaid: Tensor
    heading_at: tuple[Tensor, Tensor]
    estimates: Tensor
    final_at: tuple[Tensor, Tensor]
    targets: Tensor


class World:
    """People who answer pairs of a part of the store."""

    def __init__(self, store: PictureStore, part: slice, prior_size: int, seed: int) -> None:
        self.store = store
        self._by_content = store.by_content(part)
        self._population = Population()
        self.prior_NL = self._population.sample(prior_size, np.random.default_rng(seed))

    def person(self, rng: np.random.Generator) -> Answers:
        """A fresh person, and answers to four random pairs of same-content pictures."""
        taste_L = self._population.sample(1, rng)[0]
        return self.answers_of(taste_L, rng)

    def answers_of(self, taste_L: NDArray[np.float32], rng: np.random.Generator) -> Answers:
        """What a person of that taste answers to four random pairs."""
        pictures, preferred, captions = [], [], []
        for content in rng.choice(len(self._by_content), prompts.N_PAIRS, replace=False):
            pair = rng.choice(self._by_content[content], 2, replace=False)
            looks_2L = self.store.looks[pair]
            probability = choice_probability(taste_L, looks_2L[0], looks_2L[1])
            pictures.append(pair)
            preferred.append(int(rng.random() < probability))
            captions.append(caption(content // len(SETTINGS), content % len(SETTINGS), rng))
        pictures_P2, preferred_P = np.stack(pictures), np.array(preferred)
        looks_P2L = self.store.looks[pictures_P2]
        estimate_L = posterior_mean(looks_P2L[:, 1] - looks_P2L[:, 0], preferred_P, self.prior_NL)
        return Answers(taste_L, pictures_P2, preferred_P, captions, estimate_L)

    def fresh_taste(self, rng: np.random.Generator) -> NDArray[np.float32]:
        taste_L: NDArray[np.float32] = self._population.sample(1, rng)[0]
        return taste_L


def make_example(world: World, rng: np.random.Generator) -> Example:
    """One transcript of a fresh person; kind of profile and prompt variant at random."""
    answers = world.person(rng)
    kind = _KINDS[int(rng.choice(len(_KINDS), p=_KIND_SHARES))]
    variant: prompts.Variant = "released" if rng.random() < RELEASED_SHARE else "paper"
    text, target_L = profile_and_target(answers, kind, world, rng)
    misled_by = rng if rng.random() < MISLED_SHARE else None
    return compose(answers, variant, text, target_L, world.store.looks, misled_by)


def profile_and_target(
    answers: Answers, kind: ProfileKind, world: World, rng: np.random.Generator
) -> tuple[str, NDArray[np.float32]]:
    """A profile text of that kind, and the taste that choices and text together stand for."""
    if kind == "generated":
        # A little noise: the model's own words will not be exact either.
        noise_L = rng.normal(0, rng.choice((0.0, 0.05, 0.1)), len(LOOKS))
        return profile_text.profile(answers.estimate_L + noise_L), answers.estimate_L
    if kind == "revised":
        revised_L = _revised(answers.estimate_L, rng)
        return profile_text.profile(revised_L), revised_L
    stated_L = answers.taste_L if kind == "typed" else world.fresh_taste(rng)
    text, axes = profile_text.typed_profile(stated_L, rng)
    target_L = answers.estimate_L.copy()
    target_L[axes] = stated_L[axes]
    return text, _at_most_unit(target_L)


def compose(
    answers: Answers,
    variant: prompts.Variant,
    profile: str,
    target_L: NDArray[np.float32],
    looks_NL: NDArray[np.float32],
    misled_by: np.random.Generator | None = None,
) -> Example:
    """The transcript of these answers with that profile; misled if a generator is given."""
    labelled = [
        prompts.LabelledCaption(text, int(preferred))
        for text, preferred in zip(answers.captions, answers.preferred_P, strict=True)
    ]
    prompt = prompts.build_prompt(labelled, variant)
    shown = [int(answers.pictures_P2[pair, image]) for pair, image in prompt.images]
    looks_8L = looks_NL[shown]
    second = [
        prompt.images[2 * pair + 1][1] == answers.preferred_P[pair]
        for pair in range(prompts.N_PAIRS)
    ]
    sign_P = np.where(second, 1.0, -1.0).astype(np.float32)
    deltas_PL = (looks_8L[1::2] - looks_8L[::2]) * sign_P[:, None]
    said_PL = deltas_PL
    if misled_by is not None:
        wrong_P1 = misled_by.random((prompts.N_PAIRS, 1)) < 0.5
        said_PL = np.where(wrong_P1, misled_by.normal(0, 1.4, deltas_PL.shape), deltas_PL)
    return Example(
        prompt=prompt.text,
        response=profile_text.response(
            variant, list(zip(looks_8L[::2], looks_8L[1::2], strict=True)), list(said_PL), profile
        ),
        pictures=shown,
        shown_looks_8L=looks_8L,
        deltas_PL=deltas_PL,
        estimate_L=answers.estimate_L,
        target_L=target_L,
        misled=misled_by is not None,
    )


class Collator:
    """Examples to padded tensors, with the places where looks and tastes are to be read."""

    def __init__(self, tokenizer: Any, tokens_per_image: int) -> None:
        self._tokenizer = tokenizer
        self._tokens_per_image = tokens_per_image
        self._image_id = tokenizer.convert_tokens_to_ids(prompts.IMAGE_TOKEN)
        self._end_id = tokenizer.convert_tokens_to_ids(prompts.TURN_END)
        self._heading_id = tokenizer.convert_tokens_to_ids(prompts.profile_heading())
        headings = [
            prompts.response_headings(variant, pair)
            for variant in prompts.VARIANTS
            for pair in range(prompts.N_PAIRS)
        ]
        first, second, differences = (
            {tokenizer.convert_tokens_to_ids(h[part]) for h in headings} for part in range(3)
        )
        self._before_looks = second | differences
        self._preferences = {
            tokenizer.convert_tokens_to_ids(phrase)
            for variant in prompts.VARIANTS
            for phrase in prompts.preference_phrases(variant)
        }
        self._differences = differences
        self._before_deltas = first | {self._heading_id}

    def __call__(self, examples: Sequence[Example]) -> LanguageBatch:
        rows, labels = [], []
        looks_at, deltas_at, unsaid_at, heading_at, final_at = [], [], [], [], []
        for row, example in enumerate(examples):
            prompt_ids = self._expand(self._tokenizer(example.prompt)["input_ids"])
            response_ids = self._tokenizer(example.response)["input_ids"]
            start = len(prompt_ids)
            unsaid_at += [(row, i) for i, t in enumerate(prompt_ids) if t in self._preferences]
            for offset, token in enumerate(response_ids):
                before = (row, start + offset - 1)
                if token in self._before_looks:
                    looks_at.append(before)
                if token in self._before_deltas and offset > 0:
                    deltas_at.append(before)
                if token in self._differences:
                    unsaid_at.append((row, start + offset))
                if token == self._heading_id:
                    heading_at.append((row, start + offset))
            ids = [*prompt_ids, *response_ids, self._end_id]
            final_at.append((row, len(ids) - 2))
            rows.append(ids)
            if example.misled:
                start = heading_at[-1][1] + 1
            labels.append([IGNORED] * start + ids[start:])
        length = max(len(ids) for ids in rows)
        pad = self._tokenizer.pad_token_id
        return LanguageBatch(
            input_ids_BS=torch.tensor([ids + [pad] * (length - len(ids)) for ids in rows]),
            labels_BS=torch.tensor([ids + [IGNORED] * (length - len(ids)) for ids in labels]),
            image_rows=np.array([i for example in examples for i in example.pictures]),
            looks_at=_indices(looks_at),
            looks=_stacked([e.shown_looks_8L for e in examples]),
            deltas_at=_indices(deltas_at),
            deltas=_stacked([e.deltas_PL for e in examples]),
            unsaid_at=_indices(unsaid_at),
            unsaid=_stacked([part for e in examples for part in (e.deltas_PL, e.deltas_PL)]),
            heading_at=_indices(heading_at),
            estimates=_stacked([e.estimate_L[None] for e in examples]),
            final_at=_indices(final_at),
            targets=_stacked([e.target_L[None] for e in examples]),
        )

    def _expand(self, ids: list[int]) -> list[int]:
        expanded: list[int] = []
        for token in ids:
            expanded += [token] * (self._tokens_per_image if token == self._image_id else 1)
        return expanded


def tokenizer_sentences(count: int, seed: int) -> list[str]:
    """Captions, descriptions and profiles of random looks and tastes, to learn a tokenizer."""
    rng = np.random.default_rng(seed)
    people = Population().sample(count, rng)
    sentences = []
    for taste_L in people:
        looks_L = rng.normal(size=len(LOOKS))
        content = int(rng.integers(48))
        sentences += [
            f" {caption(content // len(SETTINGS), content % len(SETTINGS), rng)}",
            profile_text.describe(looks_L),
            profile_text.differences(looks_L),
            f" {profile_text.profile(taste_L)}",
            f" {profile_text.typed_profile(taste_L, rng)[0]}",
        ]
    return sentences


def _revised(estimate_L: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """An estimate with one or two looks turned round, forgotten or newly cared for."""
    revised_L = estimate_L.copy()
    strongest = np.argsort(-np.abs(estimate_L))
    for _ in range(int(rng.integers(1, 3))):
        change = rng.integers(3)
        axis = int(strongest[rng.integers(3)])
        if change == 0:
            revised_L[axis] = -revised_L[axis]
        elif change == 1:
            revised_L[axis] = 0
        else:
            axis = int(strongest[rng.integers(len(LOOKS))])
            revised_L[axis] = rng.choice((-1, 1)) * max(0.4, float(np.abs(estimate_L).max()))
    if not revised_L.any():
        return estimate_L
    return _at_most_unit(revised_L)


def _at_most_unit(vector_L: NDArray[np.float32]) -> NDArray[np.float32]:
    bounded: NDArray[np.float32] = vector_L / max(1.0, float(np.linalg.norm(vector_L)))
    return bounded


def _indices(places: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    rows, positions = zip(*places, strict=True)
    return torch.tensor(rows), torch.tensor(positions)


def _stacked(parts: list[NDArray[np.float32]]) -> Tensor:
    return torch.from_numpy(np.concatenate(parts)).float()
