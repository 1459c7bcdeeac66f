"""Whose profile a generation uses, and how tastes are mixed."""

import numpy as np
import pytest

from service.core.generation import Found, Pin, blend, pin


@pytest.mark.parametrize(
    ("found", "waits", "expected"),
    [
        (Found("v1", None), False, Pin("v1", None)),
        (Found("v1", "v2"), True, Pin("v1", None)),
        (Found(None, "v1"), False, Pin(None, "encoding")),
        (Found(None, "v1"), True, Pin("v1", None)),
        (Found(None, None), True, Pin(None, "no_profile")),
    ],
)
def test_a_ready_profile_wins_and_only_who_waits_gets_one_in_the_making(
    found: Found, waits: bool, expected: Pin
) -> None:
    assert pin(found, waits=waits) == expected


def test_a_blend_of_one_is_that_one_bit_for_bit() -> None:
    emb_D = np.random.default_rng(0).normal(size=128).astype(np.float32)
    assert blend([(emb_D, 0.3)]).tobytes() == emb_D.tobytes()


def test_a_blend_is_the_weighted_mean() -> None:
    mixed_D = blend([(np.array([1, 0], np.float32), 1.0), (np.array([0, 2], np.float32), 3.0)])
    assert mixed_D.tolist() == [0.25, 1.5]
    assert mixed_D.dtype == np.float32
