"""How n choices become one embedding, and the report of the asking."""

from __future__ import annotations

import numpy as np
import pytest

from training.pair_choice.__main__ import format_table, plot
from training.pair_choice.readings import by_strategy, sets_of


def test_fewer_than_four_choices_are_shown_again_in_turn() -> None:
    assert sets_of(1) == [(0, 0, 0, 0)]
    assert sets_of(2) == [(0, 1, 0, 1)]
    assert sets_of(3) == [(0, 1, 2, 0)]
    assert sets_of(4) == [(0, 1, 2, 3)]


@pytest.mark.parametrize("answers", range(4, 17))
def test_more_are_covered_by_the_least_number_of_fours_and_the_last_is_the_latest(
    answers: int,
) -> None:
    sets = sets_of(answers)
    assert len(sets) == -(-answers // 4)
    assert {place for places in sets for place in places} == set(range(answers))
    assert sets[-1] == tuple(range(answers - 4, answers))


def test_differences_are_between_the_same_people() -> None:
    rng = np.random.default_rng(0)
    random_UN = rng.random((50, 2))
    values = {"random": random_UN, "active": random_UN + 0.1}
    report = by_strategy(values, [1, 2], np.random.default_rng(1))
    gain = report["over_random"]["active"]["2"]
    assert gain["mean"] == pytest.approx(0.1)
    assert gain["high"] - gain["low"] < 1e-9
    table = format_table({"best_estimate": report})
    assert f"{values['active'][:, 1].mean():.3f}" in table
    assert plot({"best_estimate": report}).startswith(b"\x89PNG")
