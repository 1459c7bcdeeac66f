"""Eq. 6 against numbers that can be checked on paper."""

from __future__ import annotations

import math

import pytest
import torch

from training.dpo.loss import (
    PairErrors,
    PairWeights,
    dspo_loss,
    mapo_loss,
    nft_loss,
    ppd_loss,
    sft_loss,
    squared_error,
)


def errors(chosen: list[float], rejected: list[float]) -> PairErrors:
    return PairErrors(torch.tensor(chosen), torch.tensor(rejected))


def test_a_policy_equal_to_the_reference_costs_log_two() -> None:
    same = errors([0.3, 0.9], [0.5, 0.1])
    out = ppd_loss(same, same, beta=0.7)
    assert out.loss.item() == pytest.approx(math.log(2), abs=1e-7)
    assert out.implicit_accuracy.item() == 0.5
    assert out.margin.item() == 0.0


def test_one_pair_by_hand() -> None:
    # Delta = (0.50 - 0.52) - (0.61 - 0.60) = -0.03; logits = 0.1 * 1000 * 0.03 = 3
    out = ppd_loss(errors([0.50], [0.61]), errors([0.52], [0.60]), beta=0.1)
    assert out.margin.item() == pytest.approx(3.0, rel=1e-4)
    assert out.loss.item() == pytest.approx(math.log1p(math.exp(-3.0)), rel=1e-4)
    assert out.implicit_accuracy.item() == 1.0
    assert out.chosen_error.item() == pytest.approx(0.50)
    assert out.rejected_error.item() == pytest.approx(0.61)
    assert out.chosen_gain.item() == pytest.approx(0.02, rel=1e-4)
    assert out.rejected_gain.item() == pytest.approx(-0.01, rel=1e-4)


def test_the_batch_is_averaged_after_the_sigmoid() -> None:
    # logits +2 and -2: the mean of -log sigmoid is log(1 + e^-2) + 1, not log 2
    out = ppd_loss(
        errors([0.0, 2.0], [0.0, 0.0]), errors([2.0, 0.0], [0.0, 0.0]), beta=1.0, timesteps=1
    )
    assert out.loss.item() == pytest.approx(math.log1p(math.exp(-2.0)) + 1.0, rel=1e-6)
    assert out.implicit_accuracy.item() == 0.5


def test_omega_weighs_each_pair_inside_the_sigmoid() -> None:
    policy, reference = errors([0.0, 0.0], [0.0, 0.0]), errors([1.0, 1.0], [0.0, 0.0])
    omega = PairWeights(torch.tensor([0.5, 0.0]), torch.tensor([0.5, 0.0]))
    out = ppd_loss(policy, reference, beta=2.0, timesteps=1, omega=omega)
    expected = (math.log1p(math.exp(-1.0)) + math.log(2)) / 2
    assert out.loss.item() == pytest.approx(expected, rel=1e-6)


def test_pictures_at_different_times_keep_their_own_omega() -> None:
    # logits = -(0.5 * (0.2 - 0.6) - 2 * (0.4 - 0.3)) = 0.2 + 0.2
    omega = PairWeights(torch.tensor([0.5]), torch.tensor([2.0]))
    out = ppd_loss(errors([0.2], [0.4]), errors([0.6], [0.3]), beta=1.0, timesteps=1, omega=omega)
    assert out.margin.item() == pytest.approx(0.4, rel=1e-5)


def test_supervised_loss_by_hand() -> None:
    chosen_B = torch.tensor([0.2, 0.6], requires_grad=True)
    assert sft_loss(chosen_B).loss.item() == pytest.approx(0.4)
    out = sft_loss(chosen_B, torch.tensor([1.0, 0.5]))
    assert out.loss.item() == pytest.approx(0.25)
    assert out.chosen_error.item() == pytest.approx(0.4)
    out.loss.backward()
    assert chosen_B.grad is not None
    assert chosen_B.grad.tolist() == pytest.approx([0.5, 0.25])


def test_the_gradient_lowers_the_chosen_error_and_raises_the_rejected_one() -> None:
    # d loss / d chosen = beta T sigmoid(-logits) / B = 10 * 0.5 / 1 at logits 0
    chosen = torch.tensor([0.4], requires_grad=True)
    rejected = torch.tensor([0.4], requires_grad=True)
    ppd_loss(PairErrors(chosen, rejected), errors([0.4], [0.4]), beta=0.01).loss.backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.item() == pytest.approx(5.0)
    assert rejected.grad.item() == pytest.approx(-5.0)


def test_sum_is_mean_times_the_number_of_values() -> None:
    target, predicted = torch.zeros(2, 4, 3, 3), torch.full((2, 4, 3, 3), 0.5)
    assert squared_error(target, predicted, "mean").tolist() == [0.25, 0.25]
    assert squared_error(target, predicted, "sum").tolist() == [9.0, 9.0]


def test_a_far_margin_stays_finite() -> None:
    out = ppd_loss(errors([1e3], [0.0]), errors([0.0], [0.0]), beta=1.0)
    assert math.isfinite(out.loss.item())
    assert out.loss.item() == pytest.approx(1e6)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.nan])
def test_a_beta_that_is_not_positive_is_refused(beta: float) -> None:
    same = errors([0.1], [0.1])
    with pytest.raises(ValueError, match="beta"):
        ppd_loss(same, same, beta=beta)


def test_unknown_reductions_and_unequal_shapes_are_refused() -> None:
    zero = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="reduction"):
        squared_error(zero, zero, "median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape"):
        squared_error(zero, torch.zeros(1, 1, 2, 3), "mean")


def test_errors_are_not_rounded_to_float32() -> None:
    # 0.1 in float32 is 0.100000001490116...; Eq. 6 takes differences of its square
    tenth = torch.full((1, 1, 3, 3), 0.1)
    error_B = squared_error(torch.zeros_like(tenth), tenth, "mean")
    assert error_B.item() == pytest.approx(float(tenth[0, 0, 0, 0]) ** 2, rel=1e-15)


def test_negative_aware_loss_by_hand() -> None:
    chosen_B, opposite_B = torch.tensor([0.2, 0.6]), torch.tensor([0.4, 1.0])
    assert nft_loss(chosen_B, opposite_B).item() == pytest.approx((0.3 + 0.8) / 2)
    omega = PairWeights(torch.tensor([1.0, 0.5]), torch.tensor([2.0, 0.0]))
    assert nft_loss(chosen_B, opposite_B, omega).item() == pytest.approx((0.5 + 0.15) / 2)


def test_negative_aware_loss_is_least_at_the_mean_of_what_chosen_and_rejected_say() -> None:
    # two pairs' errors of the reference, r+ and r-; the policy adds the same d to every prediction
    chosen_B2 = torch.tensor([[1.0, 0.2], [0.6, -0.4]])
    rejected_B2 = torch.tensor([[-0.8, 0.4], [0.2, 0.2]])
    d_2 = torch.zeros(2, requires_grad=True)
    for _ in range(200):
        chosen_B = (chosen_B2 - d_2).square().sum(1)
        loss = nft_loss(chosen_B, (rejected_B2 + d_2).square().sum(1))
        (slope_2,) = torch.autograd.grad(loss, d_2)
        d_2 = (d_2 - 0.2 * slope_2).detach().requires_grad_()
    mean_2 = torch.cat([chosen_B2, -rejected_B2]).mean(0)
    # A step leaves 0.6 of the distance; what 200 leave (4e-45) is nothing beside the rounding of
    # numbers below 1, which the steps add up to 1 / (1 - 0.6) times: 8 eps are three times that.
    rounding = 8 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(d_2.detach(), mean_2, rtol=0, atol=rounding)


def test_mapo_by_hand() -> None:
    # snr * errors are log 2 and log 4: h(log 2) = log 2 / (2 - 1), h(log 4) = log 4 / (4 - 1)
    chosen, rejected = 2 * math.log(2), 2 * math.log(4)
    out = mapo_loss(errors([chosen], [rejected]), beta=0.1, snr=0.5, timesteps=3)
    margin = 3 * (math.log(2) - math.log(4) / 3)
    assert out.margin.item() == pytest.approx(margin, rel=1e-6)
    expected = chosen + 0.1 * math.log1p(math.exp(-margin))
    assert out.loss.item() == pytest.approx(expected, rel=1e-6)
    assert out.implicit_accuracy.item() == 1.0
    assert out.chosen_error.item() == pytest.approx(chosen)


def test_mapo_of_equal_errors_is_supervised_and_beta_times_log_two() -> None:
    out = mapo_loss(errors([0.3, 0.5], [0.3, 0.5]), beta=0.2, snr=0.5)
    assert out.loss.item() == pytest.approx(0.4 + 0.2 * math.log(2), rel=1e-6)
    assert out.implicit_accuracy.item() == 0.5


@pytest.mark.parametrize("error", [1e-12, 1e4])
def test_mapo_and_its_gradient_stay_finite(error: float) -> None:
    chosen_B = torch.tensor([error], dtype=torch.float64, requires_grad=True)
    rejected_B = torch.tensor([1.0], dtype=torch.float64)
    loss = mapo_loss(PairErrors(chosen_B, rejected_B), beta=0.1, snr=0.5).loss
    loss.backward()
    assert chosen_B.grad is not None
    assert torch.isfinite(torch.stack([loss.detach(), chosen_B.grad[0]])).all()


def test_dspo_by_hand() -> None:
    # The noise is (0, 0); chosen: the policy says (1, 2), the reference (1, 1), errors 2.5 and 1,
    # half of |(0, 1)|^2 between them; rejected: 0.3 both. The logits are -1.5 at beta T = 1.
    c = 2 / (1 + math.exp(-1.5))
    out = dspo_loss(
        errors([2.5], [0.3]), errors([1.0], [0.3]), torch.tensor([0.5]), beta=0.5, timesteps=2
    )
    assert out.item() == pytest.approx((1**2 + (2 - c) ** 2) / 2, rel=1e-6)


def test_dspo_of_the_reference_itself_is_the_supervised_loss() -> None:
    same = errors([0.2, 0.6], [0.4, 0.1])
    out = dspo_loss(same, same, torch.zeros(2), beta=1e-6)
    assert out.item() == pytest.approx(0.4)
