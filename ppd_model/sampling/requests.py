"""Requests as the sampler takes them: which can be made, by what, and when the adapter acts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

import numpy as np
import torch

from ppd_model.nets.adapter import Adapter
from ppd_model.nets.stage_c import StageC
from ppd_model.nets.text_encoder import TextEncoder
from ppd_model.presets import Preset
from ppd_model.types import ImageRequest, Solver

MAX_SEED = 2**32 - 1
"""The generator reads no more than 32 bits of a seed: larger ones would repeat smaller ones."""


SOLVERS: tuple[Solver, ...] = get_args(Solver)


class Cancelled(Exception):  # noqa: N818  (not a failure)
    """The caller asked to stop."""


class NumericalError(RuntimeError):
    """The model produced NaN or infinity; there is no picture."""


@dataclass(frozen=True)
class LoadedAdapter:
    """An adapter in memory. ``version`` and ``encoder_id`` as the pipeline's, once it is in place.

    As many as there is room for may be kept and put in place in turn.
    """

    adapter: Adapter
    version: str
    encoder_id: str


class Models(Protocol):
    """What a sampler samples from; `Pipeline` is one."""

    preset: Preset
    text_encoder: TextEncoder
    stage_c: StageC
    device: torch.device
    personalize_negative: bool

    @property
    def latent_dtype(self) -> torch.dtype:
        """float32, or the network's dtype where that is wider."""


def check_requests(preset: Preset, requests: Sequence[ImageRequest]) -> tuple[int, int, int]:
    """The latents' shape, C x H x W. Raises ValueError for what cannot be made."""
    if not requests:
        raise ValueError("no requests to generate")
    for request in requests:
        _check_numbers(request)
        emb_D = request.user_emb_D
        expected = (preset.user_emb_dim,)
        if emb_D is not None and (emb_D.shape != expected or not np.isfinite(emb_D).all()):
            raise ValueError(
                f"user_emb_D of shape {emb_D.shape}: expected {expected}, every value finite"
            )
    side_px = preset.default_side_px
    sizes_px = {(r.height_px or side_px, r.width_px or side_px) for r in requests}
    if len(sizes_px) > 1:
        raise ValueError(f"one batch makes one size, got {sorted(sizes_px)} (height, width)")
    return (preset.latent_channels, *preset.latent_hw(*sizes_px.pop()))


def _check_numbers(request: ImageRequest) -> None:
    if not 0 <= request.seed <= MAX_SEED:
        raise ValueError(f"seed must lie in [0, {MAX_SEED}], got {request.seed}")
    if request.steps is not None and request.steps < 1:
        raise ValueError(f"steps must be at least 1, got {request.steps}")
    if request.solver is not None and request.solver not in SOLVERS:
        raise ValueError(f"solver {request.solver!r}: expected one of {', '.join(SOLVERS)}")
    low, high = request.guidance_interval or (0, 1)
    if not 0 <= low <= high <= 1:
        raise ValueError(f"guidance_interval ({low}, {high}): expected 0 <= low <= high <= 1")
    for name in ("strength", "guidance_scale", "guidance_rescale"):
        value = getattr(request, name)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be finite and at least 0, got {value}")
    if request.snr_shift is not None and not 0 < request.snr_shift < math.inf:
        raise ValueError(f"snr_shift must be finite and above 0, got {request.snr_shift}")
