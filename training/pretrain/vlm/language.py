"""Stage two: projector and language model learn to read four choices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaOnevisionForConditionalGeneration

from ppd_model.user_encoder import small_tokenizer
from training.pretrain.vlm import held_out_scores
from training.pretrain.vlm.examples import (
    Collator,
    LanguageBatch,
    World,
    make_example,
)
from training.pretrain.vlm.steps import Log, run_steps
from training.pretrain.vlm.vlm_config import VlmConfig, held_out, trained_on
from training.world.scene import LOOKS
from training.world.store import PictureStore


class TasteHeads(nn.Module):
    """Linear read-outs of the language model's last layer; used for training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.looks = nn.Linear(width, len(LOOKS))
        self.deltas = nn.Linear(width, len(LOOKS))
        self.estimate = nn.Linear(width, len(LOOKS))
        self.taste = nn.Linear(width, len(LOOKS))


def train_language(
    config: VlmConfig,
    model: LlavaOnevisionForConditionalGeneration,
    store: PictureStore,
    features_NSD: NDArray[np.float16],
    tokenizer_path: Path,
    log: Log,
    resume: bool,
) -> TasteHeads:
    """Stage 4: projector and language model, on transcripts over cached features."""
    if trained_on(config, store).stop < config.language_pictures:
        raise ValueError(f"{config.language_pictures} pictures overlap with those held out")
    world = World(store, slice(0, config.language_pictures), config.prior_size, config.seed)
    tokens_per_image = features_NSD.shape[1] + 1
    collate = Collator(small_tokenizer(tokenizer_path), tokens_per_image)
    heads = TasteHeads(config.width)

    def step(number: int) -> tuple[Tensor, dict[str, Any]]:
        rng = np.random.default_rng((config.seed, 4, number))
        batch = collate([make_example(world, rng) for _ in range(config.batch)])
        return language_loss(config, model, heads, batch, features_NSD)

    def evaluate(number: int) -> None:
        model.eval()
        report = held_out_scores.evaluate(
            held_out_scores.encoder_of(model, tokenizer_path, config.max_new_tokens),
            store,
            held_out(config, store),
            people=32,
            seed=config.seed,
            taste_head=heads.taste,
        )
        log.write("language_eval", step=number, **report)
        model.requires_grad_(True)
        model.model.vision_tower.requires_grad_(False)
        model.train()

    trained = nn.ModuleDict(
        {
            "projector": model.model.multi_modal_projector,
            "language": model.model.language_model,
            "lm_head": model.lm_head,
            "heads": heads,
        }
    )
    newline = nn.ParameterDict({"image_newline": model.model.image_newline})
    trained["newline"] = newline
    run_steps(
        trained,
        step,
        evaluate,
        config.out / "language.pt",
        log,
        resume,
        stage="language",
        steps=config.steps,
        lr=config.lr,
        config=config,
    )
    model.eval()
    return heads


def language_loss(
    config: VlmConfig,
    model: LlavaOnevisionForConditionalGeneration,
    heads: TasteHeads,
    batch: LanguageBatch,
    features_NSD: NDArray[np.float16],
) -> tuple[Tensor, dict[str, Any]]:
    """Next tokens of the response, and the four read-outs; all in one pass."""
    hidden_BSD = hidden_states(model, batch, features_NSD)
    answer_BS = batch.labels_BS[:, 1:] >= 0
    logits_NV = model.lm_head(hidden_BSD[:, :-1][answer_BS])
    words = functional.cross_entropy(logits_NV, batch.labels_BS[:, 1:][answer_BS])
    looks = functional.mse_loss(heads.looks(hidden_BSD[batch.looks_at]), batch.looks)
    deltas = functional.mse_loss(heads.deltas(hidden_BSD[batch.deltas_at]), batch.deltas)
    # The words of a difference give its direction away: it must be known before they are said.
    unsaid = functional.mse_loss(heads.deltas(hidden_BSD[batch.unsaid_at]), batch.unsaid)
    estimate = functional.mse_loss(heads.estimate(hidden_BSD[batch.heading_at]), batch.estimates)
    read_BL = heads.taste(hidden_BSD[batch.final_at])
    taste = functional.mse_loss(read_BL, batch.targets)
    direction = functional.cosine_similarity(read_BL, batch.targets).mean()
    total = (
        config.words_weight * words
        + config.looks_weight * looks
        + config.deltas_weight * (deltas + unsaid)
        + config.taste_weight * (taste + 0.5 * estimate)
        + 0.5 * (1 - direction)
    )
    return total, {
        "words": float(words.detach()),
        "looks": float(looks.detach()),
        "deltas": float(deltas.detach()),
        "unsaid": float(unsaid.detach()),
        "estimate": float(estimate.detach()),
        "taste": float(taste.detach()),
        "cosine": float(direction.detach()),
        "tokens": batch.input_ids_BS.shape[1],
    }


def hidden_states(
    model: LlavaOnevisionForConditionalGeneration,
    batch: LanguageBatch,
    features_NSD: NDArray[np.float16],
) -> Tensor:
    """The last layer's states B x S x D, as the whole model makes them from the pixels."""
    inner = model.model
    features = torch.from_numpy(features_NSD[batch.image_rows]).float()
    images = inner.multi_modal_projector(features)
    newline = inner.image_newline.expand(len(images), 1, -1)
    image_tokens = torch.cat([images, newline], dim=1).flatten(0, 1)
    embeds_BSD = inner.language_model.embed_tokens(batch.input_ids_BS)
    is_image_BS1 = (batch.input_ids_BS == model.config.image_token_id)[..., None]
    embeds_BSD = embeds_BSD.masked_scatter(is_image_BS1, image_tokens)
    # Padding is on the right and attention is causal: no mask is needed.
    output = inner.language_model(inputs_embeds=embeds_BSD, use_cache=False)
    hidden_BSD: Tensor = output.last_hidden_state
    return hidden_BSD
