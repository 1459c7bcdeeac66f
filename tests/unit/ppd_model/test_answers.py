"""What answers say by themselves: the belief, what more answers would do to it, and its file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ppd_model.answers import AnswerModel, after_more, belief, telling

MODEL = AnswerModel(
    encoder_version="reader",
    adapter_version="adapter",
    pairs_sha256="0",
    most_answers=16,
    reading_KD=[[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]],
    offset_D=[0.5, 0.0, 0.0],
    wins_at_none=0.0,
    wins_by=1.0,
    foretells_more=True,
)


def test_answers_move_the_mean_towards_what_was_preferred_and_narrow_the_rest() -> None:
    delta_PK = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    found = belief(delta_PK, np.array([1, 1, 0.5]))
    assert found.mean_K[0] > 0.5
    assert found.mean_K[1] == pytest.approx(0)
    assert 0 < found.covariance_KK[0, 0] < found.covariance_KK[1, 1] < 1


def test_the_belief_is_close_to_the_exact_one() -> None:
    """One answer, one dimension: mean and variance by summing over a grid."""
    grid = np.linspace(-8, 8, 20001)
    weight = np.exp(-(grid**2) / 2) / (1 + np.exp(-1.5 * grid))
    weight /= weight.sum()
    exact = (weight * grid).sum()
    variance = (weight * (grid - exact) ** 2).sum()
    found = belief(np.array([[1.5]]), np.array([1]))
    assert found.mean_K[0] == pytest.approx(exact, rel=0.1)
    assert found.covariance_KK[0, 0] == pytest.approx(variance, rel=0.1)


def test_no_answers_leave_what_was_believed_before() -> None:
    found = belief(np.zeros((0, 3)), np.zeros(0), np.ones(3), 2 * np.eye(3))
    assert found.mean_K == pytest.approx(np.ones(3))
    assert found.covariance_KK == pytest.approx(2 * np.eye(3))


def test_alternatives_are_believed_as_each_alone() -> None:
    rng = np.random.default_rng(1)
    delta_NK, answer_BN = rng.normal(size=(5, 3)), rng.integers(0, 2, (4, 5))
    together = belief(delta_NK, answer_BN)
    for way, answer_N in enumerate(answer_BN):
        alone = belief(delta_NK, answer_N)
        assert together.mean_K[way] == pytest.approx(alone.mean_K)
        assert together.covariance_KK[way] == pytest.approx(alone.covariance_KK)
        assert together.clearness[way] == pytest.approx(alone.clearness)


def test_clearness_is_the_mean_over_the_deviation_along_it() -> None:
    """Mean (3, 4) has length 5; along (.6, .8) the variance is .36 * 1 + .64 * 4 = 2.92."""
    nothing = np.zeros((0, 2))
    found = belief(nothing, np.zeros(0), np.array([3.0, 4.0]), np.diag([1.0, 4.0]))
    assert found.clearness == pytest.approx(5 / np.sqrt(1 + 2.92))
    assert belief(nothing, np.zeros(0)).clearness == 0


def test_more_answers_are_expected_as_the_belief_expects_them() -> None:
    delta_NK, answer_N = np.array([[3.0, 0.0]] * 3), np.ones(3)
    now = belief(delta_NK, answer_N)
    likely_B, then = after_more(now, delta_NK, answer_N, np.array([[3.0, 0.0], [0.0, 1.0]]))
    assert likely_B.sum() == pytest.approx(1)
    assert likely_B[2:].sum() > 0.8, "the second picture of the first pair, as before"
    assert likely_B[1] / likely_B[0] == pytest.approx(1, abs=0.4), "nothing is known of the other"
    assert then.mean_K.shape == (4, 2)
    as_before = belief(np.vstack([delta_NK, [[3.0, 0.0], [0.0, 1.0]]]), np.array([1, 1, 1, 1, 0]))
    assert then.mean_K[2] == pytest.approx(as_before.mean_K)


def test_more_answers_are_the_same_each_time_they_are_imagined() -> None:
    delta_NK, answer_N = np.eye(2), np.array([0, 1])
    now = belief(delta_NK, answer_N)
    first, again = (after_more(now, delta_NK, answer_N, np.eye(2))[0] for _ in range(2))
    assert first.tolist() == again.tolist()


def test_the_pairs_that_tell_most_are_large_undecided_and_of_several_directions() -> None:
    now = belief(np.array([[4.0, 0.0, 0.0]] * 4), np.ones(4))
    along, small, large = [4.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 2.0, 0.0]
    other = [0.0, 0.0, 1.0]
    found = telling(now, np.array([along, small, large, large, other]), 3)
    assert found.tolist() == [large, large, other] or found.tolist() == [large, other, large]
    assert len(telling(now, np.array([along]), 4)) == 1


def test_more_answers_are_expected_to_please_more() -> None:
    delta_NK, answer_N = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 0])
    now = belief(delta_NK, answer_N)
    later = MODEL.wins_after_more(now, delta_NK, answer_N, 2 * np.vstack([np.eye(2), np.eye(2)]))
    at_present = MODEL.wins(now.clearness)
    assert at_present is not None
    assert later is not None
    assert at_present < later < 1
    silent = replace(MODEL, wins_by=None)
    assert silent.wins_after_more(now, delta_NK, answer_N, np.eye(2)) is None


def test_what_is_read_of_answers_follows_the_mean_taste() -> None:
    assert MODEL.expected_reading(np.array([2.0, 3.0])).tolist() == [2.5, 3.0, 4.0]


def test_a_clearer_taste_pleases_more_often() -> None:
    wins = MODEL.wins(np.array([0.0, 1.0, 2.0]))
    assert wins is not None
    assert wins == pytest.approx(1 / (1 + np.exp(-np.array([0, 1, 2]))))
    assert replace(MODEL, wins_by=None).wins(np.array([1.0])) is None


def test_a_model_is_read_as_it_was_written_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    MODEL.save(path)
    assert AnswerModel.load(path) == MODEL
    path.write_text(path.read_text().replace('"wins_by"', '"loses_by"'))
    with pytest.raises(ValueError, match=r"answers\.json"):
        AnswerModel.load(path)
    replace(MODEL, offset_D=[0.0]).save(path)
    with pytest.raises(ValueError, match="widths"):
        AnswerModel.load(path)
