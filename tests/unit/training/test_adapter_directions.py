"""What an adapter adds for a taste, on additions made by hand."""

from __future__ import annotations

import pytest
import torch

from training.adapter_directions import compare


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
