"""What part of an error follows a look, on errors made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ppd_model.nets.diffusion import add_noise
from ppd_model.nets.stage_c import build_stage_c
from ppd_model.presets import get_preset
from training.look_signal import Shown, directions, errors, explained_error


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


def test_a_direction_that_turns_with_the_content_is_told_from_a_common_one() -> None:
    generator = torch.Generator().manual_seed(2)
    content_N = np.repeat([3, 7], 400)
    look_NL = torch.randn((800, 2), generator=generator)
    turn_N1 = torch.where(torch.from_numpy(content_N) == 3, 1.0, -1.0)[:, None]
    latent_NK = torch.randn((800, 6), generator=generator) * 0.1
    latent_NK[:, 0] += 100 * turn_N1[:, 0]  # what contents differ by is no look
    latent_NK[:, 1:3] += look_NL[:, :1] * torch.tensor([3.0, 4.0])
    latent_NK[:, 3:5] += look_NL[:, 1:] * torch.cat([torch.ones(800, 1), 2 * turn_N1], dim=1)
    same, turning = directions(latent_NK, look_NL, content_N).values()
    assert same == pytest.approx({"common": 5, "own": 5, "cosine": 1}, rel=0.05)
    assert turning["own"] == pytest.approx(5**0.5, rel=0.05)
    assert turning["cosine"] == pytest.approx(5**-0.5, rel=0.1)
    with pytest.raises(ValueError, match="too few of each"):
        directions(latent_NK[:3], look_NL[:3], content_N[:3])


def test_errors_are_the_bases_or_a_persons_under_the_same_noise() -> None:
    preset = get_preset("mini")
    torch.manual_seed(0)
    stage_c = build_stage_c(preset).eval()
    for weight in stage_c.adapter.to_v.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    text = torch.randn(2, 5, 128), torch.randn(2, 1, 128)
    shown = Shown(torch.randn(2, 16, 8, 8), *text, torch.randn(2, 8), np.array([0, 1]))
    emb_ND = torch.stack([torch.randn(preset.user_emb_dim), torch.zeros(preset.user_emb_dim)])

    base_NK, own_NK = (
        errors(stage_c, shown, 0.8, torch.Generator().manual_seed(1), who) for who in (None, emb_ND)
    )
    noise_NCHW = torch.randn(shown.latent_NCHW.shape, generator=torch.Generator().manual_seed(1))
    t_N = torch.full((2,), 0.8)
    with torch.no_grad():
        plain_NCHW = stage_c(add_noise(shown.latent_NCHW, noise_NCHW, t_N), t_N, *text)
    torch.testing.assert_close(base_NK, (noise_NCHW - plain_NCHW).flatten(1))
    assert (own_NK - base_NK)[0].norm() > 0.01  # somebody
    assert not (own_NK - base_NK)[1].any()  # nobody
