"""Stage one: the vision tower learns to tell content and looks; then its features are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration

from training.jobs.files import replacing
from training.pretrain.vlm.steps import Log, run_steps
from training.pretrain.vlm.vision import (
    VisionHeads,
    all_features,
    small_pictures,
    vision_batch,
    vision_loss,
)
from training.pretrain.vlm.vlm_config import VlmConfig, held_out, trained_on
from training.world.scene import LOOKS
from training.world.store import PictureStore


def train_vision(
    config: VlmConfig,
    model: LlavaOnevisionForConditionalGeneration,
    store: PictureStore,
    log: Log,
    resume: bool,
) -> None:
    """Stage 2: the tower alone; leaves it in eval mode and frozen."""
    tower = model.model.vision_tower
    heads = VisionHeads(config.vision_width)
    pictures = small_pictures(store, config.image_px)
    candidates = np.arange(len(store))[trained_on(config, store)]
    unseen = np.arange(len(store))[held_out(config, store)][:512]

    def step(number: int) -> tuple[Tensor, dict[str, Any]]:
        rng = np.random.default_rng((config.seed, 2, number))
        indices = rng.choice(candidates, config.vision_batch, replace=False)
        loss = vision_loss(tower, heads, *vision_batch(store, pictures, indices, rng))
        return loss.total, {"subject": loss.subject_accuracy, "setting": loss.setting_accuracy}

    def evaluate(number: int) -> None:
        with torch.inference_mode():
            rng = np.random.default_rng(0)
            loss = vision_loss(tower, heads, *vision_batch(store, pictures, unseen, rng))
        variance_L = store.looks[unseen].clip(-3, 3).var(axis=0)
        r2_L = 1 - loss.looks_mse_L.numpy() / variance_L
        r2 = {name: round(float(v), 3) for name, v in zip(LOOKS, r2_L, strict=True)}
        log.write(
            "vision_eval",
            step=number,
            r2=r2,
            subject=loss.subject_accuracy,
            setting=loss.setting_accuracy,
        )

    trained = nn.ModuleDict({"tower": tower, "heads": heads})
    run_steps(
        trained,
        step,
        evaluate,
        config.out / "vision.pt",
        log,
        resume,
        stage="vision",
        steps=config.vision_steps,
        lr=config.vision_lr,
        config=config,
    )
    tower.eval().requires_grad_(False)


def cache_features(
    config: VlmConfig,
    model: LlavaOnevisionForConditionalGeneration,
    store: PictureStore,
    log: Log,
    resume: bool,
) -> NDArray[np.float16]:
    """Stage 3: the tower's features of the transcripts' pictures, N x S x D, kept on disk."""
    path = config.out / "features.npy"
    if not (resume and path.exists()):
        pictures = small_pictures(store, config.image_px)[: config.language_pictures]
        features = np.concatenate(list(all_features(model.model.vision_tower, pictures)))
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, features)
        log.write(
            "features",
            shape=list(features.shape),
            std=float(features[:512].astype(np.float32).std()),
        )
    loaded: NDArray[np.float16] = np.load(path)
    return loaded
