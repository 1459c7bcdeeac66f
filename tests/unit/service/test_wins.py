"""What a person's blind choices come to: outcomes of pairs, one observation, one arm."""

from datetime import UTC, datetime, timedelta
from itertools import count

from service.core.proof.serving import Serving, Share, drawn
from service.core.proof.wins import Said, Tallies, arm_of, observation, outcome, outcomes

START = datetime(2026, 1, 1, tzinfo=UTC)
FIRST, TRIAL = "f" * 12, "a" * 12


def said(
    pair: int, won: bool | None, version: str = FIRST, pinned: str | None = FIRST, hour: float = 1
) -> Said:
    return Said(pair, version, pinned, won, START + timedelta(hours=hour))


def a_person(low: float, high: float, name: object = 0) -> str:
    """One whose own number for the trial lies between these."""
    names = (f"{name}-{i}" for i in count())
    return next(user_pk for user_pk in names if low <= drawn(TRIAL, user_pk) < high)


def test_ties_and_contradictions_are_told_apart() -> None:
    assert outcome([True]) == outcome([True, True, None]) == "won"
    assert outcome([None, False]) == "lost"
    assert outcome([None, None]) == "tied"
    assert outcome([False, None, True]) == "inconsistent"
    asked = [said(1, True), said(2, None), said(1, False), said(3, False), said(2, True)]
    assert outcomes(asked) == ["inconsistent", "won", "lost"]


def test_a_person_is_one_observation_that_never_changes() -> None:
    asked = [said(1, None), said(2, False), said(2, True), said(1, True), said(3, True)]
    assert [observation(asked[:n], 1) for n in range(6)] == [None, None, 0, 0, 0, 0]
    assert [observation(asked[:n], 2) for n in range(6)] == [None, None, None, None, 1, 1]
    assert observation(asked, 3) == 2
    assert observation(asked, 4) is None


def test_one_who_chose_much_counts_as_one_who_chose_little() -> None:
    tallies = Tallies(1, None)
    tallies.add("ann", [said(pair, True) for pair in range(100)])
    tallies.add("bob", [said(0, False)])
    (one,) = tallies.report().results
    assert (one.choices.won, one.choices.lost) == (100, 1)
    assert (one.people, one.observed, one.wins) == (2, 2, 0.5)


def test_a_person_is_observed_once_for_each_adapter() -> None:
    tallies = Tallies(1, None)
    tallies.add("ann", [said(1, True), said(2, False, TRIAL, TRIAL), said(3, None, "c" * 12)])
    report = tallies.report()
    assert [(one.adapter_version, one.observed, one.wins) for one in report.results] == [
        (TRIAL, 1, 0.0),
        ("c" * 12, 0, None),
        (FIRST, 1, 1.0),
    ]
    assert report.results[1].interval is None
    assert report.results[1].choices.tied == 1


def shared(first: str | None = FIRST, until: datetime | None = None) -> Share:
    """A trial that a fifth of the people is served, and from the third hour on two fifths."""
    steps = [(0, 0.2), (3, 0.4)]
    begun = ((START + timedelta(hours=hour), Serving(first, TRIAL, share)) for hour, share in steps)
    return Share(tuple(begun), until)


IN_FIRST, IN_TRIAL, MOVED = a_person(0.4, 1), a_person(0, 0.2), a_person(0.2, 0.4)


def test_a_choice_is_of_an_arm_by_its_adapter_and_its_time() -> None:
    assert arm_of(said(1, True), IN_FIRST, shared()) == "first"
    assert arm_of(said(1, True, TRIAL, TRIAL), IN_TRIAL, shared()) == "trial"
    assert arm_of(said(1, True, "c" * 12, "c" * 12), IN_FIRST, shared()) is None
    assert arm_of(said(1, True, hour=-1), IN_FIRST, shared()) is None
    ended = shared(until=START + timedelta(hours=2))
    assert arm_of(said(1, True, hour=2), IN_FIRST, ended) is None
    assert arm_of(said(1, True, "5" * 12, None), IN_FIRST, shared(first=None)) == "first"
    assert arm_of(said(1, True, "5" * 12, None), IN_FIRST, shared()) is None


def test_what_was_painted_before_an_adapter_served_the_person_is_of_no_arm() -> None:
    assert arm_of(said(1, True), IN_TRIAL, shared()) is None
    assert arm_of(said(1, True, TRIAL, TRIAL), IN_FIRST, shared()) is None
    assert arm_of(said(1, True, hour=2), MOVED, shared()) == "first"
    assert arm_of(said(1, True, hour=3), MOVED, shared()) is None
    assert arm_of(said(1, True, TRIAL, TRIAL, hour=3), MOVED, shared()) == "trial"


def test_what_a_worker_made_with_an_adapter_of_its_own_is_of_no_arm() -> None:
    assert arm_of(said(1, True, "c" * 12, FIRST), IN_FIRST, shared()) is None
    assert arm_of(said(1, True, TRIAL, FIRST), IN_FIRST, shared()) is None
    assert arm_of(said(1, True, FIRST, TRIAL), IN_TRIAL, shared()) is None


def test_a_person_whom_both_served_is_observed_where_it_was_complete_first() -> None:
    tallies = Tallies(2, shared())
    trial = [said(pair, True, TRIAL, TRIAL, hour=4) for pair in (2, 4, 5)]
    tallies.add(MOVED, [said(1, True), said(3, False), *trial])
    report = tallies.report()
    assert report.share is not None
    assert (report.share.of_first.observed, report.share.of_trial.observed) == (1, 0)
    assert report.share.of_first.wins == 0.5
    assert (report.share.difference, report.share.interval, report.share.better) == (
        None,
        None,
        None,
    )


def test_the_better_one_is_named_once_the_difference_is_beyond_its_interval() -> None:
    def after(people: int, *, trial_wins: bool) -> str | None:
        tallies = Tallies(1, shared())
        for i in range(people):
            of_first = said(1, not trial_wins if i % 4 else trial_wins)
            tallies.add(a_person(0.4, 1, i), [of_first])
            tallies.add(a_person(0, 0.2, i), [said(1, trial_wins, TRIAL, TRIAL)])
        share = tallies.report().share
        assert share is not None
        return share.better

    assert after(4, trial_wins=True) is None
    assert after(40, trial_wins=True) == "trial"
    assert after(40, trial_wins=False) == "first"
