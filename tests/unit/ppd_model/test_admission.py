"""The step-time curve and what a row is worth, by numbers that can be checked by hand."""

from __future__ import annotations

import pytest

from ppd_model.engine.admission import Admission, StepCurve, worth


def test_between_points_time_runs_straight_and_beyond_them_on() -> None:
    curve = StepCurve({1: 10.0, 2: 12.0, 4: 20.0})
    # 3 is half way from 12 to 20; beyond 4 each row costs (20 - 12) / 2 = 4.
    assert [curve.at(n) for n in (1, 2, 3, 4, 6)] == [10, 12, 16, 20, 28]
    assert StepCurve({2: 5.0, 4: 6.0}).at(1) == 5  # fewer rows than measured: no less
    assert StepCurve({2: 5.0}).at(4) == 10  # one point: time grows as rows do
    assert StepCurve({2: 5.0, 4: 3.0}).at(8) == 3  # a falling end is noise, not a gift


def test_a_slower_machine_moves_the_whole_curve() -> None:
    curve = StepCurve({2: 10.0, 8: 20.0, 16: 40.0})
    for _ in range(200):
        curve.observe(8, 60.0)
    assert curve.at(8) == pytest.approx(60, rel=0.01)
    assert curve.at(16) > 80, "what was not run is slower too"
    for _ in range(200):
        curve.observe(8, 20.0)
    assert curve.at(8) == pytest.approx(20, rel=0.01)
    assert curve.at(16) / curve.at(8) == pytest.approx(2, rel=0.15), "and as fast again"


def test_a_size_that_was_measured_wrong_finds_its_place() -> None:
    curve = StepCurve({8: 20.0, 16: 80.0})
    for _ in range(300):  # both run, in turn
        curve.observe(8, 20.0)
        curve.observe(16, 40.0)
    assert curve.at(16) / curve.at(8) == pytest.approx(2, rel=0.02)


def test_a_single_slow_step_hardly_changes_what_pays() -> None:
    curve = StepCurve({8: 20.0, 16: 40.0})
    for _ in range(100):
        curve.observe(8, 20.0)
    curve.observe(8, 2000.0)
    assert curve.at(8) < 22.5
    assert curve.at(16) / curve.at(8) == pytest.approx(2, rel=0.02)


def test_a_size_never_seen_becomes_a_point_and_nonsense_none() -> None:
    curve = StepCurve({1: 10.0, 4: 20.0})
    curve.observe(2, 10.0)
    assert curve.at(2) == pytest.approx(10)  # its first step says all
    assert list(curve.points_s) == [1, 2, 4]
    assert (curve.at(1), curve.at(4)) == (10, 20)
    for nonsense in (0.0, -1.0, float("nan"), float("inf")):
        curve.observe(4, nonsense)
    assert curve.at(4) == 20


def test_what_is_refused_is_tried_again_and_ever_more_rarely() -> None:
    admission = Admission()
    admitted = [i for i in range(1000) if admission.admits(1.0, 2.0, 2, 2)]
    assert admitted == [99, 299, 699]
    assert admission.admits(1.0, 1.0, 2, 2)  # it pays now
    again = [i for i in range(150) if admission.admits(1.0, 2.0, 2, 2)]
    assert again == [99], "the patience is as at first"


def test_a_curve_of_nothing_is_refused() -> None:
    for points in ({}, {0: 1.0}, {1: 0.0}):
        with pytest.raises(ValueError, match="positive"):
            StepCurve(points)


@pytest.mark.parametrize(
    ("now_s", "then_s", "expected"),
    [
        (1.0, 1.0, 1.0),  # twice the rows in the same time: free
        (1.0, 2.0, 0.0),  # in twice the time: the device was full
        (1.0, 2**0.5, 0.5),  # throughput grows by sqrt 2, the rows by 2
        (1.0, 4.0, -1.0),  # throughput halves
    ],
)
def test_the_worth_of_doubling(now_s: float, then_s: float, expected: float) -> None:
    assert worth(now_s, then_s, 2, 2) == pytest.approx(expected, abs=1e-12)


def test_a_full_device_makes_one_picture_at_a_time() -> None:
    curve = StepCurve({1: 1.0, 2: 2.0, 4: 4.0})
    admission = Admission()
    assert admission.admits(curve.at(1), curve.at(2), 0, 2)  # into an empty batch, always
    assert not admission.admits(curve.at(2), curve.at(4), 2, 2)


def test_rows_join_as_long_as_a_step_has_something_to_share() -> None:
    curve = StepCurve({1: 11.0, 101: 111.0})  # t(n) = 10 + n
    admission = Admission()
    rows = 1
    while admission.admits(curve.at(rows), curve.at(rows + 1), rows, 1):
        rows += 1
    # The worth is about 10 / (10 + n): it falls below 0.05 near n = 190.
    assert 180 < rows < 200


def test_beginning_again_asks_for_more_than_going_on() -> None:
    # Worth of going from 10 to 11 rows in 1 s -> x s: ln(1.1 / x) / ln 1.1.
    well, so_so, badly = 1.1**0.8, 1.1**0.93, 1.1**0.97  # worth 0.2, 0.07, 0.03
    admission = Admission()
    asked = [well, so_so, badly, so_so, well, so_so]
    assert [admission.admits(1.0, then_s, 10, 1) for then_s in asked] == [
        True,
        True,
        False,
        False,
        True,
        True,
    ]


def test_a_shape_that_was_not_measured_is_a_multiple() -> None:
    curve = StepCurve({1: 1.0, 2: 1.5}).scaled(4.0)
    assert [curve.at(1), curve.at(2)] == [4, 6]
