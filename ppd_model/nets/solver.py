"""Samplers, each step as a sum whose numbers depend on the schedule alone: pure functions.

From ``t`` to ``t_next``, with the clean latents x0 that the network has in mind now and had in mind
at the step before, and fresh noise z,

    x_next = keep x_t + clean x0 + before x0_before + fresh z

Between the two times lies h = lambda(t_next) - lambda(t), where lambda = ln(alpha / sigma). The
solution of the probability flow is exact in x_t and an integral over x0 of weight e^lambda; that of
the diffusion with noise the same with e^(2 lambda) (Lu et al., DPM-Solver++, 2022, Eq. 8 and 19).
Held constant over a step, x0 gives DDIM and DDPM; drawn on as a line through its last two values it
gives the second-order multistep solvers ``dpm++2m`` and ``dpm++2m-sde``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch

from ppd_model.nets.diffusion import alpha_bar
from ppd_model.types import Solver

NOISY: tuple[Solver, ...] = ("ddpm", "dpm++2m-sde")
SECOND_ORDER: tuple[Solver, ...] = ("dpm++2m", "dpm++2m-sde")


class Step(NamedTuple):
    """The numbers of one step of one row: where it begins, and its sum."""

    t: float
    alpha: float
    sigma: float
    keep: float
    clean: float
    before: float
    fresh: float


def steps_of(solver: Solver, times: Sequence[float]) -> list[Step]:
    """The steps from each time to the next; ``times`` fall to 0, one more than there are steps.

    The first step has no value before it and is of first order; so is the last, whose h is so much
    longer than that of the step before that a line would be drawn on too far. At the beginning
    alpha-bar is clamped, so early times may be one: such a step stays where it is.
    """
    bar = alpha_bar(torch.tensor(times, dtype=torch.float64)).tolist()
    alpha, sigma = [math.sqrt(b) for b in bar], [math.sqrt(1 - b) for b in bar]
    lengths = [
        math.log(alpha[i + 1] * sigma[i] / (alpha[i] * sigma[i + 1])) for i in range(len(bar) - 1)
    ]
    noisy = solver in NOISY
    made = []
    for i, (t, t_next) in enumerate(pairwise(times)):
        h = lengths[i]
        left = math.exp(-2 * h if noisy else -h)
        keep = sigma[i + 1] / sigma[i] * (math.exp(-h) if noisy else 1)
        clean = alpha[i + 1] * (1 - left)
        drawn_on = 0.0
        if solver in SECOND_ORDER and 0 < i < len(lengths) - 1 and lengths[i - 1] > 0:
            drawn_on = h / (2 * lengths[i - 1])
        fresh = sigma[i + 1] * math.sqrt(1 - left) if noisy and t_next > 0 else 0.0
        made.append(
            Step(t, alpha[i], sigma[i], keep, clean * (1 + drawn_on), -clean * drawn_on, fresh)
        )
    return made
