"""What an adapter adds for a taste, on additions made by hand and on the real network."""

from __future__ import annotations

import pytest
import torch

from ppd_model.presets import get_preset
from ppd_model.stage_c import build_stage_c
from training.adapter_directions import added_by, compare


def test_what_is_added_along_a_look_is_told_from_what_moves_none() -> None:
    generator = torch.Generator().manual_seed(0)
    taste_NL = torch.randn((4000, 2), generator=generator)
    look_LK = torch.tensor([[2.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    added_NK = 0.01 * torch.randn((4000, 4), generator=generator) + 7  # for all alike: no taste's
    added_NK[:, 0] += 3 * taste_NL[:, 0]
    added_NK[:, 2] += 4 * taste_NL[:, 0]
    added_NK[:, :2] += 0.5 * taste_NL[:, 1:]
    first, second = compare(added_NK, taste_NL, look_LK).values()
    assert first == pytest.approx({"norm": 5, "cosine": 0.6, "in_span": 0.36}, rel=0.01)
    assert second == pytest.approx({"norm": 0.5**0.5, "cosine": 1, "in_span": 1}, rel=0.01)


def test_what_an_adapter_adds_points_to_the_picture_and_is_nothing_for_nobody() -> None:
    preset = get_preset("mini")
    torch.manual_seed(0)
    stage_c = build_stage_c(preset).eval()
    for weight in stage_c.adapter.to_v.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    seen = (
        torch.randn(2, 16, 8, 8),
        torch.full((2,), 0.8),
        torch.randn(2, 5, 128),
        torch.randn(2, 1, 128),
    )
    emb_BD = torch.stack([torch.randn(preset.user_emb_dim), torch.zeros(preset.user_emb_dim)])
    added_BK = added_by(stage_c, seen, emb_BD)
    with torch.no_grad():
        expected_BK = (stage_c(*seen) - stage_c(*seen, user_emb_BD=emb_BD)).flatten(1)
    torch.testing.assert_close(added_BK, expected_BK)
    assert added_BK[0].norm() > 0.01
    assert not added_BK[1].any()
