"""What one step reads: people's transcripts up to the profile, and many texts in its place.

The texts of one person share the row, so that the choices are read once: each text sees the
transcript and itself, at the places it would have alone. Texts without choices share a row too.

Legend: B rows, S tokens, P = 4 pairs, D embedding, L looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ppd_model import prompts
from training.pretrain.vlm import profile_text
from training.pretrain.words import statements
from training.pretrain.words.embedding_map import EmbeddingMap
from training.pretrain.words.readings import Readings
from training.world import tastes

Floats = NDArray[np.floating]
Kind = Literal["own", "stated", "alone"]
KINDS: tuple[Kind, ...] = ("own", "stated", "alone")


@dataclass(frozen=True)
class Text:
    """A profile, the embedding that it should have, and whether its words are to be learned."""

    text: str
    target_D: Floats
    kind: Kind
    to_write: bool = False
    said: statements.Statement | None = None


@dataclass(frozen=True)
class Row:
    """A transcript up to and with the profile's heading, and texts that may follow."""

    prompt: str
    response: str
    pictures: list[int]
    texts: list[Text]
    estimate_L: Floats | None = None


@dataclass(frozen=True)
class PackedBatch:
    """Rows padded on the right. ``sees_B1SS`` is True where a token (row) sees another (column)."""

    input_ids_BS: Tensor
    position_ids_BS: Tensor
    sees_B1SS: Tensor
    image_rows: NDArray[np.int64]
    words_at: tuple[Tensor, Tensor]
    words: Tensor
    """The next token at each of ``words_at``."""
    heading_at: tuple[Tensor, Tensor]
    estimates: Tensor
    final_at: tuple[Tensor, Tensor]
    targets: Tensor
    kinds: Tensor
    """Index into ``KINDS`` of each of ``final_at``."""
    terms_at: tuple[Tensor, Tensor]
    """The last token of each term, and of each text that states something."""
    terms: Tensor
    """By what its sentence multiplies a term, what the term says by itself, what it says there,
    and what all has been said up to there: 1 + 3 L each."""
    shared_BS: Tensor
    """True for the transcript's tokens before the heading's last, which all texts share."""


def person_row(
    readings: Readings,
    person: int,
    looks_NL: NDArray[np.float32],
    prior_NL: tastes.TasteNL,
    space: EmbeddingMap,
    count: int,
    rng: np.random.Generator,
) -> Row:
    """A person's transcript with their own profile, in the old words and in better, and others."""
    pictures_P2, preferred_P = readings.pictures_NP2[person], readings.preferred_NP[person]
    looks_P2L = looks_NL[pictures_P2]
    weight_N = tastes.posterior_weights(looks_P2L[:, 1] - looks_P2L[:, 0], preferred_P, prior_NL)
    estimate_L = weight_N @ prior_NL
    positive_L = weight_N @ (prior_NL > 0)
    own = profile_text.profile(estimate_L, np.maximum(positive_L, 1 - positive_L))
    variant = prompts.check_variant(str(readings.variant_N[person]))
    captions = [
        prompts.LabelledCaption(str(text), int(preferred))
        for text, preferred in zip(readings.captions_NP[person], preferred_P, strict=True)
    ]
    prompt = prompts.build_prompt(captions, variant)
    response, written = prompts.split_profile(str(readings.response_N[person]))
    emb_D = readings.user_emb_ND[person]
    texts = [Text(own, emb_D, "own", to_write=True), Text(written, emb_D, "own")]
    while len(texts) < count:
        said = _statement(own, written, rng)
        if said.text not in (own, written):
            texts.append(Text(said.text, space.stated(said.says_L, emb_D), "stated", said=said))
    pictures = [int(pictures_P2[pair, image]) for pair, image in prompt.images]
    return Row(prompt.text, response, pictures, texts, estimate_L)


def alone_row(space: EmbeddingMap, count: int, rng: np.random.Generator) -> Row:
    """Texts of people of whom nothing else is known."""
    texts: list[Text] = []
    while len(texts) < count:
        said = statements.typed(rng) if rng.random() < 0.7 else statements.edited("", rng)
        if said.says_L.any():
            texts.append(Text(said.text, space.stated(said.says_L), "alone", said=said))
    variant: prompts.Variant = "paper" if rng.random() < 0.8 else "released"
    return Row(prompts.build_words_prompt(variant).text, prompts.profile_heading(), [], texts)


def _statement(own: str, written: str, rng: np.random.Generator) -> statements.Statement:
    kind = rng.random()
    if kind < 0.55:
        return statements.typed(rng)
    if kind < 0.95:
        return statements.edited(own if rng.random() < 0.5 else written, rng)
    return statements.unread(rng)


@dataclass
class _Packed:
    """One row's tokens: where each stands, and to which text it belongs (0: to all)."""

    ids: list[int]
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)


def transcripts(batch: PackedBatch) -> PackedBatch:
    """The same rows without what comes after the transcripts."""
    length = int(batch.shared_BS.sum(dim=1).max())
    return replace(
        batch,
        input_ids_BS=batch.input_ids_BS[:, :length],
        position_ids_BS=batch.position_ids_BS[:, :length],
        sees_B1SS=batch.sees_B1SS[:, :, :length, :length],
        shared_BS=batch.shared_BS[:, :length],
    )


class Packer:
    """Rows to padded tensors."""

    def __init__(self, tokenizer: Any, tokens_per_image: int) -> None:
        self._tokenizer = tokenizer
        self._tokens: Callable[[str], list[int]] = lambda text: tokenizer(text)["input_ids"]
        self._tokens_per_image = tokens_per_image
        self._image_id = tokenizer.convert_tokens_to_ids(prompts.IMAGE_TOKEN)
        self._end_id = tokenizer.convert_tokens_to_ids(prompts.TURN_END)
        self._pad_id = tokenizer.pad_token_id

    def __call__(self, rows: Sequence[Row]) -> PackedBatch:
        packed: list[_Packed] = []
        words: list[tuple[int, int, int]] = []
        heading_at, estimates, final_at, targets, kinds = [], [], [], [], []
        terms_at: list[tuple[int, int]] = []
        terms: list[Floats] = []
        for number, row in enumerate(rows):
            prompt_ids = self._expand(self._tokens(row.prompt))
            shared = prompt_ids + self._tokens(row.response)
            if row.pictures:
                words += [(number, i - 1, shared[i]) for i in range(len(prompt_ids), len(shared))]
            if row.estimate_L is not None:
                heading_at.append((number, len(shared) - 1))
                estimates.append(row.estimate_L)
            one = _Packed(list(shared), list(range(len(shared))), [0] * len(shared))
            for segment, text in enumerate(row.texts, start=1):
                ids = self._tokens(f" {text.text}")
                start = len(one.ids)
                if text.to_write:
                    before = [len(shared) - 1, *range(start, start + len(ids))]
                    following = [*ids, self._end_id]
                    words += [(number, at, i) for at, i in zip(before, following, strict=True)]
                one.ids += ids
                one.positions += range(len(shared), len(shared) + len(ids))
                one.segments += [segment] * len(ids)
                if text.said is not None:
                    for at, told in self._said(text.said):
                        terms_at.append((number, start + at))
                        terms.append(told)
                final_at.append((number, len(one.ids) - 1))
                targets.append(text.target_D)
                kinds.append(KINDS.index(text.kind))
            packed.append(one)
        length = max(len(one.ids) for one in packed)
        segments_BS = _padded([one.segments for one in packed], length, -1)
        return PackedBatch(
            input_ids_BS=_padded([one.ids for one in packed], length, self._pad_id),
            position_ids_BS=_padded([one.positions for one in packed], length, 0),
            sees_B1SS=_sees(segments_BS),
            image_rows=np.array([i for row in rows for i in row.pictures], dtype=np.int64),
            words_at=_indices([(row, at) for row, at, _ in words]),
            words=torch.tensor([token for _, _, token in words]),
            heading_at=_indices(heading_at),
            estimates=_rows(estimates),
            final_at=_indices(final_at),
            targets=_rows(targets),
            kinds=torch.tensor(kinds),
            terms_at=_indices(terms_at),
            terms=_rows(terms),
            shared_BS=(segments_BS == 0) & (segments_BS.roll(-1, dims=1) == 0),
        )

    def _said(self, said: statements.Statement) -> Iterator[tuple[int, Floats]]:
        """For each term the number of its last token, and a row of ``PackedBatch.terms``."""
        text = f" {said.text}"
        ends = [end for _, end in self._tokenizer(text, return_offsets_mapping=True).offset_mapping]
        so_far_L = np.zeros_like(said.says_L)
        after = 0
        for term in said.terms:
            start = text.lower().find(term.text.lower(), after)
            if start < 0:
                return
            after = start + len(term.text)
            so_far_L = statements.either(so_far_L, term.says_L)
            at = next(i for i, end in enumerate(ends) if end >= after)
            yield (
                at,
                np.concatenate(
                    [[term.factor], term.says_L / term.factor, term.says_L, so_far_L],
                    dtype=np.float32,
                ),
            )

    def _expand(self, ids: list[int]) -> list[int]:
        return [
            token
            for token in ids
            for _ in range(self._tokens_per_image if token == self._image_id else 1)
        ]


def _sees(segments_BS: Tensor) -> Tensor:
    """A token sees the earlier ones of its own text and of the transcript; B x 1 x S x S."""
    row_BS1, column_B1S = segments_BS[:, :, None], segments_BS[:, None, :]
    length = segments_BS.shape[1]
    earlier_SS = torch.ones(length, length, dtype=torch.bool).tril()
    return (((row_BS1 == column_B1S) | (column_B1S == 0)) & earlier_SS)[:, None]


def _padded(rows: Sequence[list[int]], length: int, value: int) -> Tensor:
    return torch.tensor([row + [value] * (length - len(row)) for row in rows])


def _indices(places: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    at = torch.tensor(places, dtype=torch.int64).reshape(-1, 2)
    return at[:, 0], at[:, 1]


def _rows(parts: list[Floats]) -> Tensor:
    return torch.from_numpy(np.array(parts)).float()
