"""The loss weights against numbers that can be checked on paper."""

from __future__ import annotations

import math

import pytest
import torch

from ppd_model.nets.diffusion import alpha_bar
from training.dpo.time_weight import Omega, log_snr


def test_constant_weighs_nothing() -> None:
    assert Omega("constant")(torch.tensor([0.1, 0.9])) is None


def test_p2_is_the_share_of_noise() -> None:
    t_B = torch.tensor([0.2, 0.7])
    weight_B = Omega("p2")(t_B)  # 1 / (1 + SNR) = sigma^2
    assert weight_B is not None
    torch.testing.assert_close(weight_B, 1 - alpha_bar(t_B))


def test_log_snr_is_zero_where_signal_and_noise_are_equal() -> None:
    # alpha_bar = cos^2(angle) / cos^2(angle at 0) = 1/2 just below the middle
    at_zero = math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    t = math.acos(math.sqrt(at_zero / 2)) / (math.pi / 2) * 1.008 - 0.008
    assert log_snr(torch.tensor([t])).item() == pytest.approx(0, abs=1e-4)


def test_adaptive_starts_at_one_and_moves_by_a_hundredth() -> None:
    omega, t_B = Omega("adaptive"), torch.tensor([0.3, 0.8])
    assert_weights(omega, t_B, [1, 1])
    omega.update(torch.tensor([0.3, 0.3]), torch.tensor([0.1, 0.3]))
    # the bucket of 0.3: 0.99 * 1 + 0.01 * mean(0.1, 0.3); that of 0.8 was not met
    assert_weights(omega, t_B, [1 / 0.992, 1])
    omega.update(torch.tensor([0.3]), torch.tensor([0.2]))
    assert_weights(omega, t_B, [1 / (0.99 * 0.992 + 0.01 * 0.2), 1])


def test_adaptive_makes_every_noise_level_count_alike() -> None:
    omega, t_B = Omega("adaptive"), torch.tensor([0.3, 0.8])
    for _ in range(1800):
        omega.update(t_B, torch.tensor([0.5, 0.02]))
    assert_weights(omega, t_B, [2, 50])


def test_the_ends_of_the_schedule_have_buckets() -> None:
    omega = Omega("adaptive")
    omega.update(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1e12]))
    assert_weights(omega, torch.tensor([0.0, 1.0]), [1 / 0.99, 1e-7])


def assert_weights(omega: Omega, t_B: torch.Tensor, expected: list[float]) -> None:
    weight_B = omega(t_B)
    assert weight_B is not None
    assert weight_B.tolist() == pytest.approx(expected, rel=1e-5)
