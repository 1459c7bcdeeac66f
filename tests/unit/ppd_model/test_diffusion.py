"""The schedule and the sampler, against numbers a reader can derive and diffusers' scheduler.

In float64. What two formulas leave between them is then 1e-15 of values of a few units, times the
100 by which a step from t = 1 may multiply it: ROUNDING. Numbers derived by hand have the six
digits that are written down, and are compared to two units of the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from diffusers import DDPMWuerstchenScheduler

from ppd_model.nets.diffusion import (
    LATEST_TIME,
    add_noise,
    alpha_bar,
    ddpm_step,
    epsilon_from_velocity,
    p2_weight,
    predict_x0,
    row_noise,
    sampler_dtype,
    sampling_times,
    shifted_times,
    velocity,
)
from ppd_model.nets.unet import CascadeUNet, wide_embedding
from ppd_model.presets import Preset

ROUNDING = {"rtol": 0.0, "atol": 1e-12}


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pixel(*values: float) -> torch.Tensor:
    """One 1 x 1 x 1 latent for each value."""
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)


def test_alpha_bar_is_clamped_at_both_ends_and_cosine_between() -> None:
    # t = 1/2: cos(0.508 / 1.008 * pi / 2) ** 2 / cos(0.008 / 1.008 * pi / 2) ** 2
    #        = cos(0.79163) ** 2 / cos(0.012467) ** 2 = 0.493768 / 0.999845
    expected = torch.tensor([0.9999, 0.493844, 0.0001])
    torch.testing.assert_close(
        alpha_bar(torch.tensor([0.0, 0.5, 1.0])), expected, atol=2e-6, rtol=0
    )


def test_stable_cascades_own_times_begin_where_the_signal_is_clamped() -> None:
    # cos(x) ** 2 = .0001 * .999845: x = 1.560797, t = x / (pi / 2) * 1.008 - .008 = .99358
    assert round(LATEST_TIME, 5) == 0.99358
    assert shifted_times(4, 1.0).tolist() == pytest.approx([LATEST_TIME, 0.75, 0.5, 0.25, 0.0])
    torch.testing.assert_close(alpha_bar(torch.tensor([LATEST_TIME])), torch.tensor([1e-4]))


def test_a_shift_divides_the_signal_to_noise_ratio_by_its_square() -> None:
    # At t = 1/2 alpha-bar is .493844, SNR .975675; a quarter of it is .243919, alpha-bar .196089:
    # cos(x) ** 2 = .196089 * .999845, x = 1.112075, t = .70565
    times = shifted_times(2, 2.0)
    assert times.tolist() == pytest.approx([LATEST_TIME, 0.70565, 0.0], abs=2e-5)
    assert shifted_times(20, 2.0, torch.float32).dtype == torch.float32
    assert bool((shifted_times(20, 2.0).diff() <= 0).all())
    with pytest.raises(ValueError, match="snr_shift"):
        shifted_times(2, 0.0)


def test_add_noise_mixes_each_row_at_its_own_time() -> None:
    # t = 0: sqrt(.9999) * 2 - sqrt(.0001) * 1 = 1.9899; t = 1: .01 * 2 - .99995 * 1 = -.97995
    xt = add_noise(pixel(2, 2), pixel(-1, -1), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(xt, pixel(1.9899, -0.97995), atol=1e-6, rtol=0)


def test_predict_x0_undoes_add_noise() -> None:
    x0, noise, t_B = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0.2, 0.5, 0.8])
    torch.testing.assert_close(predict_x0(add_noise(x0, noise, t_B), noise, t_B), x0, **ROUNDING)


def test_sampling_times_run_from_one_to_zero() -> None:
    assert sampling_times(4).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert sampling_times(4).dtype == torch.float32
    assert sampling_times(3, torch.float64).tolist() == [1.0, 1 - 1 / 3, 1 - 2 / 3, 0.0]
    with pytest.raises(ValueError, match="at least 1, got 0"):
        sampling_times(0)


def test_every_step_equals_the_stock_scheduler_when_rows_share_a_time(
    wide_scheduler: DDPMWuerstchenScheduler,
) -> None:
    scheduler, times = wide_scheduler, sampling_times(20, torch.float64)
    scheduler.set_timesteps(20)
    xt, eps = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    for step, (t, t_next) in enumerate(pairwise(times.unbind())):
        stock = scheduler.step(
            eps, t.expand(2), xt, generator=torch.Generator().manual_seed(step)
        ).prev_sample
        generator = torch.Generator().manual_seed(step)
        noise = torch.stack([row_noise((3, 4, 4), generator, torch.float64) for _ in range(2)])
        own = ddpm_step(xt, eps, t.expand(2), t_next.expand(2), noise)
        torch.testing.assert_close(own, stock, **ROUNDING)


def test_float32_times_are_those_of_the_stock_scheduler() -> None:
    torch.set_default_dtype(torch.float32)
    scheduler = DDPMWuerstchenScheduler()
    scheduler.set_timesteps(20)
    assert torch.equal(scheduler.timesteps, sampling_times(20))


def test_rows_at_different_times_are_stepped_as_if_alone() -> None:
    xt, eps, noise = torch.randn(3, 3, 2, 4, 4).unbind()
    t_B, t_next_B = torch.tensor([1.0, 0.5, 0.1]), torch.tensor([0.9, 0.25, 0.0])
    together = ddpm_step(xt, eps, t_B, t_next_B, noise, x0_clamp=2.5)
    for row in range(3):
        one = slice(row, row + 1)
        alone = ddpm_step(xt[one], eps[one], t_B[one], t_next_B[one], noise[one], x0_clamp=2.5)
        torch.testing.assert_close(together[one], alone, **ROUNDING)


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
        **ROUNDING,
    )


def test_velocity_and_epsilon_are_two_names_of_one_prediction() -> None:
    x0, noise, t_B = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0.0, 0.5, 1.0])
    v = velocity(x0, noise, t_B)
    xt = add_noise(x0, noise, t_B)
    torch.testing.assert_close(epsilon_from_velocity(v, xt, t_B), noise, **ROUNDING)
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


@pytest.mark.parametrize("shape_CHW", [(2, 2, 4), (16, 8, 8), (3, 5, 16)])
def test_float64_noise_is_the_float32_noise_to_its_rounding(
    shape_CHW: tuple[int, int, int],
) -> None:
    narrow, wide = (torch.Generator().manual_seed(7) for _ in range(2))
    for _ in range(3):
        noise = row_noise(shape_CHW, narrow)
        own = row_noise(shape_CHW, wide, torch.float64)
        assert (noise.dtype, own.dtype) == (torch.float32, torch.float64)
        # An angle up to 2 pi is rounded by 2.4e-7 there, and turns a radius of at most
        # sqrt(2 * 24 ln 2) = 5.8 by it: 1.4e-6. Radius and cosine add less.
        torch.testing.assert_close(noise.double(), own, rtol=0, atol=3e-6)
    assert torch.equal(narrow.get_state(), wide.get_state())


def test_float64_noise_by_hand() -> None:
    # Of eight uniforms u and eight v: sqrt(-2 ln(1 - u)) times cosine, then sine, of 2 pi v.
    uniform = torch.rand(16, generator=torch.Generator().manual_seed(7), dtype=torch.float32)
    drawn = row_noise((1, 4, 4), torch.Generator().manual_seed(7), torch.float64).flatten()
    for i in range(8):
        radius = math.sqrt(-2 * math.log(1 - float(uniform[i])))
        angle = 2 * math.pi * float(uniform[i + 8])
        assert drawn[i].item() == pytest.approx(radius * math.cos(angle), abs=1e-14)
        assert drawn[i + 8].item() == pytest.approx(radius * math.sin(angle), abs=1e-14)


def test_the_sampler_is_never_in_less_than_float32() -> None:
    kinds = (torch.bfloat16, torch.float32, torch.float64)
    assert [sampler_dtype(kind) for kind in kinds] == [torch.float32, torch.float32, torch.float64]


def test_the_embedding_of_float64_times_is_the_stock_one(tiny: Preset) -> None:
    torch.set_default_dtype(torch.float32)
    unet, t_B = CascadeUNet(**tiny.stage_c), torch.tensor([0.0, 0.3, 1.0])
    stock_BD = unet.get_timestep_ratio_embedding(t_B)
    own_BD = wide_embedding(t_B.double(), 10000, stock_BD.shape[1])
    # An angle of up to 10,000 holds a frequency rounded to float32 there, and is rounded itself:
    # by 2 * 2^-24 of it, 1.2e-3.
    torch.testing.assert_close(own_BD, stock_BD.double(), rtol=0, atol=2e-3)
    wide_BD = unet.double().get_timestep_ratio_embedding(t_B.double())
    assert torch.equal(wide_BD, own_BD)
