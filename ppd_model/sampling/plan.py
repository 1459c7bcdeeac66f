"""What a picture's steps are: decided before the first, by the request and the preset alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ppd_model.nets.diffusion import sampling_times, shifted_times
from ppd_model.nets.solver import NOISY, Step, steps_of
from ppd_model.presets import Preset
from ppd_model.types import ImageRequest, Solver


@dataclass(frozen=True)
class Plan:
    """A row's steps; for each, whether the adapter acts and whether it is guided."""

    steps: tuple[Step, ...]
    personal: tuple[bool, ...]
    guided: tuple[bool, ...]
    noisy: bool
    """Whether the steps draw noise."""

    @property
    def common_steps(self) -> int:
        """Steps before the adapter acts: those of everybody with this seed and prompt."""
        return self.personal.index(True)

    @property
    def network_rows(self) -> int:
        """Rows that a picture takes in passes of the network, over all its steps."""
        return len(self.steps) + sum(self.guided)


def plan_of(preset: Preset, request: ImageRequest, dtype: torch.dtype) -> Plan:
    """The plan of a request that `check_requests` has passed. ``dtype`` is that of times."""
    own = preset.sampling
    low, high = request.guidance_interval or own.guidance_interval
    if request.guidance_scale <= 1:
        low, high = 1.0, 1.0
    steps, solver = request.steps or own.steps, request.solver or own.solver
    return _plan(solver, steps, preset.personalize_below, low, high, request.snr_shift, dtype)


@lru_cache(maxsize=256)
def _plan(
    solver: Solver,
    steps: int,
    below: float,
    low: float,
    high: float,
    shift: float | None,
    dtype: torch.dtype,
) -> Plan:
    times = sampling_times(steps, dtype) if shift is None else shifted_times(steps, shift, dtype)
    guided = (times[:-1] > low) & (times[:-1] <= high)
    return Plan(
        tuple(steps_of(solver, times.tolist())),
        tuple(personal_steps(times, below).tolist()),
        tuple(guided.tolist()),
        solver in NOISY,
    )


def personal_steps(times: Tensor, below: float) -> Tensor:
    """Whether the adapter acts, for each step of a row: from the first time t <= ``below`` on.

    ``times`` are one more than steps. A row of so few steps that none begins there is personalised
    throughout.
    """
    acts_S = times[:-1] <= below
    return acts_S if bool(acts_S.any()) else torch.ones_like(acts_S)
