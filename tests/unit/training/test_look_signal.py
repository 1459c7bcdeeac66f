"""What part of an error follows a look, on errors made by hand."""

from __future__ import annotations

import torch

from training.look_signal import explained_error


def test_the_part_that_follows_a_look_is_found_and_noise_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    look_NL = torch.randn((4000, 2), generator=generator)
    direction_K = torch.tensor([3.0, 0.0, 4.0, 0.0])
    noise_NK = torch.randn((4000, 4), generator=generator)
    error_NK = look_NL[:, :1] * direction_K + noise_NK
    explained_L = explained_error(error_NK, look_NL)
    # |direction|^2 / K = 25 / 4 for the first look, nothing for the second.
    assert abs(float(explained_L[0]) - 6.25) < 0.5
    assert abs(float(explained_L[1])) < 0.02


def test_units_of_a_look_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(1)
    look_NL = torch.randn((200, 1), generator=generator)
    error_NK = look_NL * torch.ones(3)
    once, scaled = explained_error(error_NK, look_NL), explained_error(error_NK, 10 * look_NL + 5)
    assert torch.allclose(once, scaled, atol=1e-4)
