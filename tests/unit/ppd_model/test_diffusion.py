"""The schedule and the sampler, against numbers a reader can derive and diffusers' scheduler."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from diffusers import DDPMWuerstchenScheduler

from ppd_model.diffusion import (
    add_noise,
    alpha_bar,
    ddpm_step,
    epsilon_from_velocity,
    p2_weight,
    predict_x0,
    row_noise,
    sampling_times,
    velocity,
)


def pixel(*values: float) -> torch.Tensor:
    """One 1 x 1 x 1 latent for each value."""
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1)


def test_alpha_bar_is_clamped_at_both_ends_and_cosine_between() -> None:
    # t = 1/2: cos(0.508 / 1.008 * pi / 2) ** 2 / cos(0.008 / 1.008 * pi / 2) ** 2
    #        = cos(0.79163) ** 2 / cos(0.012467) ** 2 = 0.493768 / 0.999845
    expected = torch.tensor([0.9999, 0.493844, 0.0001])
    torch.testing.assert_close(
        alpha_bar(torch.tensor([0.0, 0.5, 1.0])), expected, atol=2e-6, rtol=0
    )


def test_add_noise_mixes_each_row_at_its_own_time() -> None:
    # t = 0: sqrt(.9999) * 2 - sqrt(.0001) * 1 = 1.9899; t = 1: .01 * 2 - .99995 * 1 = -.97995
    xt = add_noise(pixel(2, 2), pixel(-1, -1), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(xt, pixel(1.9899, -0.97995), atol=1e-6, rtol=0)


def test_predict_x0_undoes_add_noise() -> None:
    x0, noise, t_B = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0.2, 0.5, 0.8])
    torch.testing.assert_close(predict_x0(add_noise(x0, noise, t_B), noise, t_B), x0)


def test_sampling_times_run_from_one_to_zero() -> None:
    torch.testing.assert_close(sampling_times(4), torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))
    with pytest.raises(ValueError, match="at least 1, got 0"):
        sampling_times(0)


def test_every_step_equals_the_stock_scheduler_when_rows_share_a_time() -> None:
    scheduler = DDPMWuerstchenScheduler()
    scheduler.set_timesteps(20)
    times = sampling_times(20)
    torch.testing.assert_close(scheduler.timesteps, times)
    xt, eps = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    for step, (t, t_next) in enumerate(pairwise(times.unbind())):
        stock = scheduler.step(
            eps, t.expand(2), xt, generator=torch.Generator().manual_seed(step)
        ).prev_sample
        noise = torch.randn(xt.shape, generator=torch.Generator().manual_seed(step))
        own = ddpm_step(xt, eps, t.expand(2), t_next.expand(2), noise)
        torch.testing.assert_close(own, stock, rtol=1e-5, atol=1e-5)


def test_rows_at_different_times_are_stepped_as_if_alone() -> None:
    xt, eps, noise = torch.randn(3, 3, 2, 4, 4).unbind()
    t_B, t_next_B = torch.tensor([1.0, 0.5, 0.1]), torch.tensor([0.9, 0.25, 0.0])
    together = ddpm_step(xt, eps, t_B, t_next_B, noise, x0_clamp=2.5)
    for row in range(3):
        one = slice(row, row + 1)
        alone = ddpm_step(xt[one], eps[one], t_B[one], t_next_B[one], noise[one], x0_clamp=2.5)
        torch.testing.assert_close(together[one], alone)


def test_the_last_step_adds_no_noise() -> None:
    xt, eps = torch.randn(2, 1, 2, 4, 4).unbind()
    t_B, zero_B = torch.tensor([0.05]), torch.tensor([0.0])
    quiet = ddpm_step(xt, eps, t_B, zero_B, torch.zeros_like(xt))
    assert torch.equal(ddpm_step(xt, eps, t_B, zero_B, 100 * torch.randn_like(xt)), quiet)


def test_a_step_from_zero_to_zero_changes_no_bit() -> None:
    xt, eps, noise = torch.randn(3, 1, 2, 4, 4).unbind()
    zero_B = torch.tensor([0.0])
    assert torch.equal(ddpm_step(xt, eps, zero_B, zero_B, noise, x0_clamp=2.5), xt)


def test_a_jump_from_noise_to_data_lands_on_the_clamp() -> None:
    # At t = 1, x_t = 1 and eps = 0 imply x0 = 1 / 0.01 = 100, clamped to 2.5. The posterior mean at
    # t = 0 is sqrt(.9999) (1 - a) / .9999 * 2.5 + sqrt(a) (.0001) / .9999 with a = .0001 / .9999:
    # 0.99995 * 1.0000 * 2.5 + 0.000001 = 2.49988
    landed = ddpm_step(
        pixel(1), pixel(0), torch.tensor([1.0]), torch.tensor([0.0]), pixel(0), x0_clamp=2.5
    )
    torch.testing.assert_close(landed, pixel(2.49988), atol=5e-5, rtol=0)


def test_a_wide_clamp_changes_nothing() -> None:
    xt, eps, noise = torch.randn(3, 1, 2, 4, 4).unbind()
    t_B, t_next_B = torch.tensor([0.6]), torch.tensor([0.4])
    torch.testing.assert_close(
        ddpm_step(xt, eps, t_B, t_next_B, noise, x0_clamp=1e3),
        ddpm_step(xt, eps, t_B, t_next_B, noise),
    )


def test_velocity_and_epsilon_are_two_names_of_one_prediction() -> None:
    x0, noise, t_B = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0.0, 0.5, 1.0])
    v = velocity(x0, noise, t_B)
    torch.testing.assert_close(epsilon_from_velocity(v, add_noise(x0, noise, t_B), t_B), noise)
    # t = 1: alpha = .01, sigma = .99995, so v = .01 * 3 - .99995 * 2 = -1.9699
    torch.testing.assert_close(
        velocity(pixel(2), pixel(3), torch.tensor([1.0])), pixel(-1.9699), atol=1e-6, rtol=0
    )


def test_p2_weight_is_one_minus_alpha_bar() -> None:
    # 1 / (1 + SNR) with SNR = a / (1 - a) is 1 - a
    torch.testing.assert_close(
        p2_weight(torch.tensor([0.0, 0.5, 1.0])),
        torch.tensor([0.0001, 0.506156, 0.9999]),
        atol=2e-6,
        rtol=0,
    )


def test_row_noise_is_the_generators_alone() -> None:
    one = row_noise((2, 3, 4), torch.Generator().manual_seed(7))
    torch.manual_seed(0)
    again = row_noise((2, 3, 4), torch.Generator().manual_seed(7))
    assert one.shape == (2, 3, 4)
    assert torch.equal(one, again)
