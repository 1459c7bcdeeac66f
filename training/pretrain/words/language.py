"""The language model learns to obey texts, at the place where the embedding is read.

Legend: B rows, S tokens, D embedding, N texts, L looks.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaOnevisionForConditionalGeneration

from ppd_model.user_encoder import small_tokenizer
from training.pretrain.vlm.steps import Log, run_steps
from training.pretrain.words.continued import parameters_of
from training.pretrain.words.embedding_map import EmbeddingMap
from training.pretrain.words.examples import (
    KINDS,
    PackedBatch,
    Packer,
    alone_row,
    person_row,
    transcripts,
)
from training.pretrain.words.readings import Readings
from training.pretrain.words.words_config import WordsConfig
from training.world.scene import LOOKS
from training.world.tastes import Population

_EVALUATION_SEED = 900_002
_PEOPLE_AT_ONCE = 8


@dataclass(frozen=True)
class Material:
    """What the steps draw from. ``features`` and ``looks_NL`` are of all pictures of the store."""

    readings: Readings
    held_out: Readings
    space: EmbeddingMap
    features: Features
    looks_NL: NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """The vision tower's features of some pictures: ``row_N`` is where each picture's are."""

    row_N: NDArray[np.int64]
    features_NSD: NDArray[np.float16]

    def of(self, pictures: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self.features_NSD[self.row_N[pictures]]).float()


class Heads(nn.Module):
    """Linear read-outs of the last layer and, of terms, of one in the middle: for training only.

    A term turned round is a product: its factors are to be known before the last layers.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.estimate = nn.Linear(width, len(LOOKS))
        self.apart = nn.Linear(width, 1 + len(LOOKS))
        self.terms = nn.Linear(width, 2 * len(LOOKS))


def train_language(
    config: WordsConfig,
    model: LlavaOnevisionForConditionalGeneration,
    material: Material,
    tokenizer_path: Path,
    log: Log,
    resume: bool,
) -> None:
    """Transcripts and texts, step by step; leaves the model in eval mode."""
    tokens_per_image = material.features.features_NSD.shape[1] + 1
    pack = Packer(small_tokenizer(tokenizer_path), tokens_per_image)
    prior_NL = Population().sample(config.prior_size, np.random.default_rng(config.seed))
    spread = float(np.square(material.readings.user_emb_ND - material.space.mean_D).sum(1).mean())
    trained = parameters_of(model)
    before = copy.deepcopy(model).eval().requires_grad_(False)
    heads = Heads(model.config.text_config.hidden_size)
    trained["heads"] = heads
    if config.start is not None:
        state = torch.load(config.start, weights_only=True)["trained"]
        kept = {name: value for name, value in state.items() if not name.startswith("heads.")}
        trained.load_state_dict(kept, strict=False)

    def batches_of(
        readings: Readings, people: NDArray[np.int64], rng: np.random.Generator
    ) -> list[PackedBatch]:
        rows = [
            person_row(
                readings, int(i), material.looks_NL, prior_NL, material.space, config.texts, rng
            )
            for i in people
        ]
        alone = [alone_row(material.space, config.texts, rng) for _ in range(config.rows_alone)]
        return [pack(rows), pack(alone)]

    def step(number: int) -> tuple[Tensor, dict[str, Any]]:
        rng = np.random.default_rng((config.seed, 8, number))
        people = rng.integers(len(material.readings), size=config.batch)
        batches = batches_of(material.readings, people, rng)
        return words_loss(config, model, heads, batches, material.features, spread, before)

    def evaluate(number: int) -> None:
        model.eval()
        rng = np.random.default_rng(_EVALUATION_SEED)
        sums: dict[str, float] = {}
        chunks = np.array_split(
            np.arange(len(material.held_out)), len(material.held_out) // _PEOPLE_AT_ONCE
        )
        with torch.inference_mode():
            for people in chunks:
                batches = batches_of(material.held_out, people, rng)
                _, parts = words_loss(
                    config, model, heads, batches, material.features, spread, before
                )
                for name, value in parts.items():
                    sums[name] = sums.get(name, 0.0) + value / len(chunks)
        log.write("eval", step=number, **{name: round(v, 4) for name, v in sums.items()})
        model.train()

    run_steps(
        trained,
        step,
        evaluate,
        config.out / "language.pt",
        log,
        resume,
        stage="words",
        steps=config.steps,
        lr=config.lr,
        config=config,
    )
    model.eval()


def words_loss(
    config: WordsConfig,
    model: LlavaOnevisionForConditionalGeneration,
    heads: Heads,
    batches: Sequence[PackedBatch],
    features: Features,
    spread: float,
    before: LlavaOnevisionForConditionalGeneration,
) -> tuple[Tensor, dict[str, float]]:
    """Next tokens, the estimate at the heading, the transcripts' states, all texts' embeddings.

    ``batches`` are people and texts alone. The embeddings' errors are shares of ``spread``, the
    variance of people's embeddings. ``before`` is the VLM that is continued: how it reads choices,
    up to the profile, is to stay.
    """
    people, _ = batches
    states = [hidden_states(model, batch, features) for batch in batches]
    hidden, middle = [last for last, _ in states], [middle for _, middle in states]
    words = functional.cross_entropy(model.lm_head(hidden[0][people.words_at]), people.words)
    known = functional.mse_loss(heads.estimate(hidden[0][people.heading_at]), people.estimates)
    said = torch.cat([batch.terms for batch in batches])
    apart_said, there_said = said[:, : 1 + len(LOOKS)], said[:, 1 + len(LOOKS) :]
    apart_ND = torch.cat([m[batch.terms_at] for m, batch in zip(middle, batches, strict=True)])
    there_ND = torch.cat([h[batch.terms_at] for h, batch in zip(hidden, batches, strict=True)])
    apart = functional.mse_loss(heads.apart(apart_ND), apart_said)
    terms = functional.mse_loss(heads.terms(there_ND), there_said)
    read_ND = torch.cat([h[batch.final_at] for h, batch in zip(hidden, batches, strict=True)])
    target_ND = torch.cat([batch.targets for batch in batches])
    kind_N = torch.cat([batch.kinds for batch in batches])
    error_N = (read_ND - target_ND).square().sum(dim=1) / spread
    by_kind = {kind: error_N[kind_N == number].mean() for number, kind in enumerate(KINDS)}
    weights: Mapping[str, float] = {
        "own": config.own_weight,
        "stated": config.stated_weight,
        "alone": config.stated_weight / 2,
    }
    total = config.words_weight * words + config.estimate_weight * known
    with torch.no_grad():
        read_before = transcripts(people)
        before_BSD, _ = hidden_states(before, read_before, features)
        before_ND = before_BSD[read_before.shared_BS]
    shared_ND = hidden[0][:, : read_before.shared_BS.shape[1]][read_before.shared_BS]
    drift_N = (shared_ND - before_ND).square().sum(dim=1) / before_ND.square().sum(dim=1)
    drift = drift_N.mean()
    total = total + config.terms_weight * (terms + 0.5 * apart) + config.drift_weight * drift
    for kind, error in by_kind.items():
        total = total + weights[kind] * error
    return total, {
        "words": float(words.detach()),
        "estimate": float(known.detach()),
        "apart": float(apart.detach()),
        "terms": float(terms.detach()),
        "drift": float(drift.detach()),
        **{kind: float(error.detach()) for kind, error in by_kind.items()},
        "tokens": float(sum(batch.input_ids_BS.numel() for batch in batches)),
    }


def hidden_states(
    model: LlavaOnevisionForConditionalGeneration, batch: PackedBatch, features: Features
) -> tuple[Tensor, Tensor]:
    """The last and the middle layer's states B x S x D, as the whole model makes them each."""
    inner = model.model
    embeds_BSD = inner.language_model.embed_tokens(batch.input_ids_BS)
    if len(batch.image_rows):
        images = inner.multi_modal_projector(features.of(batch.image_rows))
        newline = inner.image_newline.expand(len(images), 1, -1)
        image_tokens = torch.cat([images, newline], dim=1).flatten(0, 1)
        is_image_BS1 = (batch.input_ids_BS == model.config.image_token_id)[..., None]
        embeds_BSD = embeds_BSD.masked_scatter(is_image_BS1, image_tokens)
    output = inner.language_model(
        inputs_embeds=embeds_BSD,
        attention_mask=batch.sees_B1SS,
        position_ids=batch.position_ids_BS,
        use_cache=False,
        output_hidden_states=True,
    )
    return output.last_hidden_state, output.hidden_states[len(output.hidden_states) // 2]
