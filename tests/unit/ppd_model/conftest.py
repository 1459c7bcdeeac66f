"""A Stable Cascade of a few thousand weights, diffusers' samplers in float64, and comparison.

What is mathematics is compared in float64: there a difference that rounding explains is some 1e-12,
whatever the processor, and one that it does not explain is seen. Equal bytes are asked for where
equal products are made (the same shapes, every tensor where torch lets it begin) or, of pictures,
in float64, where 1e-11 grey levels lie between processors.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDPMWuerstchenScheduler
from torch import Tensor

from ppd_model.nets.diffusion import COSINE_S, row_noise, sampling_times
from ppd_model.nets.stage_c import StageC, build_stage_c
from ppd_model.pipeline import Pipeline
from ppd_model.presets import Preset, get_preset
from ppd_model.types import Sampling

THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
WORDS = ("a", "red", "boat", "on", "the", "sea", "at", "night", "tree", "house", "quiet", "hill")


@pytest.fixture(autouse=True)
def few_threads_and_a_fixed_seed() -> Iterator[None]:
    """One thread, or as many as OMP_NUM_THREADS says."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny() -> Preset:
    """The shape of ``mini``, down to the sampler's x0 clamp, with narrow layers; sampled by DDPM,
    which diffusers has too."""
    mini = get_preset("mini")
    text = dict(hidden_size=16, intermediate_size=32, projection_dim=24, num_hidden_layers=2)
    return replace(
        mini,
        name="tiny",
        base_model="tiny-base",
        stage_c=mini.stage_c
        | dict(
            conditioning_dim=24,
            block_out_channels=(32, 48),
            num_attention_heads=(2, 3),
            clip_text_in_channels=16,
            clip_text_pooled_in_channels=24,
            clip_image_in_channels=8,
            dropout=(0.1, 0.1),
        ),
        stage_b=mini.stage_b
        | dict(
            conditioning_dim=16,
            block_out_channels=(16, 32),
            num_attention_heads=(-1, 2),
            clip_text_pooled_in_channels=24,
        ),
        stage_a=mini.stage_a | dict(embed_dim=16, num_vq_embeddings=32),
        text_encoder=mini.text_encoder | text | dict(max_position_embeddings=16),
        user_emb_dim=20,
        user_token_dim=12,
        sampling=Sampling(),
        stage_b_solver="ddpm",
        stage_b_steps=3,
    )


@pytest.fixture
def stage_c(tiny: Preset) -> StageC:
    """Random base, and an adapter whose V' is no longer zero."""
    torch.manual_seed(1)
    model = build_stage_c(tiny)
    for weight in model.adapter.to_v.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


@pytest.fixture
def random_pipeline(tiny: Preset) -> Callable[[torch.dtype], Pipeline]:
    """Always of the same weights."""
    return lambda dtype: Pipeline.random(tiny, WORDS, seed=2, dtype=dtype)


@pytest.fixture
def pipeline(random_pipeline: Callable[[torch.dtype], Pipeline]) -> Pipeline:
    return random_pipeline(torch.float32)


@pytest.fixture
def wide_pipeline(random_pipeline: Callable[[torch.dtype], Pipeline]) -> Pipeline:
    return random_pipeline(torch.float64)


class WideScheduler(DDPMWuerstchenScheduler):
    """diffusers' scheduler, with its schedule in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.s = torch.tensor([COSINE_S], dtype=torch.float64)
        self._init_alpha_cumprod = torch.cos(self.s / (1 + self.s) * torch.pi * 0.5) ** 2

    def set_timesteps(self, num_inference_steps: int, device: object = None) -> None:
        self.timesteps = sampling_times(num_inference_steps, torch.float64)


@pytest.fixture
def wide_scheduler(monkeypatch: pytest.MonkeyPatch) -> DDPMWuerstchenScheduler:
    """It draws its noise as the pipeline does: float64 noise of torch's own is another."""

    def drawn(shape: torch.Size, generator: object, **_: object) -> Tensor:
        generators = generator if isinstance(generator, list) else [generator] * shape[0]
        return torch.stack([row_noise(tuple(shape[1:]), g, torch.float64) for g in generators])

    for module in (
        "schedulers.scheduling_ddpm_wuerstchen",
        "pipelines.stable_cascade.pipeline_stable_cascade_prior",
        "pipelines.stable_cascade.pipeline_stable_cascade",
    ):
        monkeypatch.setattr(f"diffusers.{module}.randn_tensor", drawn)
    return WideScheduler()


@pytest.fixture(name="user_emb_D")
def a_user(tiny: Preset) -> np.ndarray:
    return np.random.default_rng(3).normal(size=tiny.user_emb_dim).astype(np.float32)


@pytest.fixture
def same_bits() -> Callable[[Tensor, Tensor], bool]:
    """True only for identical bit patterns: 0.0 and -0.0 differ."""

    def compare(one: Tensor, other: Tensor) -> bool:
        return torch.equal(one.contiguous().view(torch.int32), other.contiguous().view(torch.int32))

    return compare
