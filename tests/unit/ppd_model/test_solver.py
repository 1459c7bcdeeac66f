"""Steps of the samplers against numbers by hand, an exact solution, and the step of DDPM."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from ppd_model.nets.diffusion import alpha_bar, ddpm_step, predict_x0, sampling_times
from ppd_model.nets.solver import Step, steps_of
from ppd_model.types import Solver

SPREAD = 0.5
"""Standard deviation of the data of the exact solution; their mean is .3."""
MEAN = 0.3


def level(t: float) -> tuple[float, float]:
    """alpha and sigma."""
    bar = float(alpha_bar(torch.tensor([t], dtype=torch.float64)))
    return math.sqrt(bar), math.sqrt(1 - bar)


def half_log_snr(t: float) -> float:
    alpha, sigma = level(t)
    return math.log(alpha / sigma)


def ideal(x: torch.Tensor, step: Step, mean: float = MEAN) -> torch.Tensor:
    """The expected clean value where data are N(mean, SPREAD^2)."""
    gain = step.alpha * SPREAD**2 / (step.alpha**2 * SPREAD**2 + step.sigma**2)
    return mean + gain * (x - step.alpha * mean)


def marginal(step_alpha: float, step_sigma: float) -> float:
    """Standard deviation of x_t for those data."""
    return math.sqrt(step_alpha**2 * SPREAD**2 + step_sigma**2)


@pytest.mark.parametrize("solver", ["dpm++2m", "dpm++2m-sde"])
def test_a_step_of_second_order_by_hand(solver: Solver) -> None:
    times = [0.9, 0.7, 0.4, 0.1]
    step = steps_of(solver, times)[1]
    (_, s0), (a1, s1) = level(0.7), level(0.4)
    before_h = half_log_snr(0.7) - half_log_snr(0.9)
    h = half_log_snr(0.4) - half_log_snr(0.7)
    # D = x0 + (x0 - x0_before) h / (2 before_h)
    drawn_on = h / (2 * before_h)
    if solver == "dpm++2m":
        keep, clean, fresh = s1 / s0, a1 * (1 - math.exp(-h)), 0.0
    else:
        keep, clean = s1 / s0 * math.exp(-h), a1 * (1 - math.exp(-2 * h))
        fresh = s1 * math.sqrt(1 - math.exp(-2 * h))
    expected = (keep, clean * (1 + drawn_on), -clean * drawn_on, fresh)
    assert step[3:] == pytest.approx(expected, abs=1e-14)


def test_ddpm_is_the_step_of_the_stock_scheduler() -> None:
    torch.manual_seed(0)
    times = sampling_times(7, torch.float64)
    x, eps, z = torch.randn(3, 1, 2, 4, 4, dtype=torch.float64)
    for i, step in enumerate(steps_of("ddpm", times.tolist())):
        t, t_next = times[i : i + 1], times[i + 1 : i + 2]
        made = step.keep * x + step.clean * predict_x0(x, eps, t) + step.fresh * z
        torch.testing.assert_close(made, ddpm_step(x, eps, t, t_next, z), rtol=0, atol=1e-12)
        assert step.before == 0
        assert (step.t, step.alpha**2) == pytest.approx((float(t), float(alpha_bar(t))))


def test_first_and_last_step_of_the_multistep_solvers_are_of_first_order() -> None:
    made = steps_of("dpm++2m", sampling_times(4, torch.float64).tolist())
    assert [step.before != 0 for step in made] == [False, True, True, False]
    first, (a0, s0), (a1, s1) = made[0], level(1.0), level(0.75)
    x, x0 = 0.7, -0.2
    ddim = a1 * x0 + s1 * (x - a0 * x0) / s0  # Song et al., 2021, Eq. 12, without noise
    assert first.keep * x + first.clean * x0 == pytest.approx(ddim, abs=1e-14)


def flow_error(steps: int) -> float:
    """How far the probability flow ends from its exact solution, x_t = alpha m + sd(t) z."""
    times = torch.linspace(0.98, 0.02, steps + 1, dtype=torch.float64).tolist()
    z = torch.tensor([1.3], dtype=torch.float64)
    alpha, sigma = level(times[0])
    x = alpha * MEAN + marginal(alpha, sigma) * z
    before = torch.zeros_like(x)
    for step in steps_of("dpm++2m", times):
        x0 = ideal(x, step)
        x, before = step.keep * x + step.clean * x0 + step.before * before, x0
    alpha, sigma = level(times[-1])
    return float((x - alpha * MEAN - marginal(alpha, sigma) * z).abs())


def test_the_flow_converges_with_the_square_of_the_steps() -> None:
    errors = [flow_error(steps) for steps in (160, 320, 640, 1280)]
    orders = [math.log2(a / b) for a, b in pairwise(errors)]
    assert orders[-1] == pytest.approx(2, abs=0.1), orders
    assert errors[-1] < 1e-5


def spread_error(solver: Solver, steps: int) -> float:
    """How far the standard deviation ends from the exact one, with noise in every step.

    Values are sums over independent noises, so their variance is exact.
    """
    times = torch.linspace(0.98, 0.02, steps + 1, dtype=torch.float64).tolist()
    noises = torch.eye(steps + 1, dtype=torch.float64)
    x, before = marginal(*level(times[0])) * noises[0], torch.zeros_like(noises[0])
    for i, step in enumerate(steps_of(solver, times)):
        x0 = ideal(x, step, mean=0.0)
        x = step.keep * x + step.clean * x0 + step.before * before + step.fresh * noises[i + 1]
        before = x0
    return abs(float(x.norm()) - marginal(*level(times[-1])))


def test_with_noise_the_second_order_ends_nearer() -> None:
    for steps in (10, 20, 40):
        print(steps, spread_error("dpm++2m-sde", steps), spread_error("ddpm", steps))
        assert spread_error("dpm++2m-sde", steps) < spread_error("ddpm", steps) / 2


def test_early_times_at_which_alpha_bar_is_clamped_move_nothing() -> None:
    made = steps_of("dpm++2m", sampling_times(400, torch.float64).tolist())
    assert made[0].alpha == made[1].alpha
    assert made[0][3:] == (1, 0, 0, 0)
    assert all(math.isfinite(number) for step in made for number in step)
    assert max(abs(step.before) for step in made) < 2
