"""What people's blind choices say: of an adapter against its base, and of two against each other.

A person is one observation of an adapter: the part of their first `each` decided blind choices in
which they preferred the picture in their taste. It is made by the choice that completes it and
never changes: not by later choices, nor when the same two pictures are asked about again. People
who were served at random are then draws from one population, bounded in [0, 1], as
`service.core.proof.confidence` needs them. docs/decisions/0015 says what that rests on.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import numpy as np
from pydantic import BaseModel

from service.core.proof.confidence import (
    ALPHA,
    FloatArray,
    Interval,
    interval_of,
    interval_of_difference,
    mean_of,
)
from service.core.proof.serving import Share

Outcome = Literal["won", "lost", "tied", "inconsistent"]
"""Of two pictures: the one in the person's taste was preferred, the base was, neither; or each was
once, asked again."""

MOST_EACH = 16
Arm = Literal["first", "trial"]
ARMS: tuple[Arm, Arm] = ("first", "trial")


@dataclass(frozen=True)
class Said:
    """A blind choice of a person. `choice_pk` is of two pictures; `won` is null for a tie."""

    choice_pk: int
    adapter_version: str
    pinned_version: str | None
    won: bool | None
    at: datetime


@dataclass
class _Tally:
    """People and their choices, of one adapter or one arm."""

    each: int
    people: int = 0
    choices: Counter[Outcome] = field(default_factory=Counter)
    observed: Counter[int] = field(default_factory=Counter)
    """How many people had so many wins in their first `each` decided choices."""

    @property
    def counts_J(self) -> FloatArray:  # noqa: N802 - the axis
        return np.array([self.observed[wins] for wins in range(self.each + 1)], dtype=np.float64)


class BlindCounts(BaseModel):
    """Pairs of pictures that were asked about blind, each in one of these."""

    won: int
    lost: int
    tied: int
    inconsistent: int


class Wins(BaseModel):
    """The mean over the observed people of the part of their choices that was won, and where the
    true mean lies; null before anybody is observed. `people` have chosen at all."""

    people: int
    observed: int
    wins: float | None
    interval: Interval | None


class AdapterWins(Wins):
    """The same of one adapter, and all choices between its pictures and the base."""

    adapter_version: str
    choices: BlindCounts


class ShareWins(BaseModel):
    """Two adapters that were served side by side: choices between `since` and `until`.

    `difference` is the trial's wins less the first's; `better` is told where its interval is beyond
    0. `first` is null where that is the shipped adapter.
    """

    first: str | None
    trial: str
    share: float
    since: datetime
    until: datetime | None
    of_first: Wins
    of_trial: Wins
    difference: float | None
    interval: Interval | None
    better: Arm | None


class WinsReport(BaseModel):
    """Wins over the base in blind choices, by adapter version; and the newest share of people.

    `each`: so many decided choices of a person make one observation. `confidence`: of each
    interval, at all looks together.
    """

    each: int
    confidence: float
    results: list[AdapterWins]
    share: ShareWins | None


class Tallies:
    """Counts people one after the other; `report` says what they come to."""

    def __init__(self, each: int, share: Share | None) -> None:
        self._each = each
        self._share = share
        self._adapters: dict[str, _Tally] = {}
        self._arms = {arm: _Tally(each) for arm in ARMS}

    def add(self, user_pk: str, said: Sequence[Said]) -> None:
        """All blind choices of one person, oldest first."""
        by_adapter: dict[str, list[Said]] = {}
        for one in said:
            by_adapter.setdefault(one.adapter_version, []).append(one)
        for version, theirs in by_adapter.items():
            tally = self._adapters.setdefault(version, _Tally(self._each))
            tally.people += 1
            tally.choices.update(outcomes(theirs))
            wins = observation(theirs, self._each)
            if wins is not None:
                tally.observed[wins] += 1
        if self._share is not None:
            self._add_to_arm(user_pk, said, self._share)

    def _add_to_arm(self, user_pk: str, said: Sequence[Said], share: Share) -> None:
        """A person whom both served, as a share grew, is observed where it was complete first."""
        arms: dict[Arm, list[Said]] = {arm: [] for arm in ARMS}
        for one in said:
            arm = arm_of(one, user_pk, share)
            if arm is None:
                continue
            arms[arm].append(one)
            wins = observation(arms[arm], self._each)
            if wins is not None:
                self._arms[arm].observed[wins] += 1
                self._arms[arm].people += 1
                return
        for arm in ARMS:
            self._arms[arm].people += bool(arms[arm])

    def report(self) -> WinsReport:
        """Takes a moment of computing for each adapter."""
        results = [
            AdapterWins(
                adapter_version=version,
                choices=_choices(tally.choices),
                **_estimate(tally).model_dump(),
            )
            for version, tally in sorted(self._adapters.items())
        ]
        share = None if self._share is None else _compared(self._share, self._arms)
        return WinsReport(each=self._each, confidence=1 - ALPHA, results=results, share=share)


def outcomes(said: Sequence[Said]) -> list[Outcome]:
    """What each two pictures came to that a person was asked about, once or again."""
    answers: dict[int, list[bool | None]] = {}
    for one in said:
        answers.setdefault(one.choice_pk, []).append(one.won)
    return [outcome(given) for given in answers.values()]


def outcome(answers: Sequence[bool | None]) -> Outcome:
    """What all answers about the same two pictures come to; a tie agrees with either."""
    decided = {won for won in answers if won is not None}
    if len(decided) == 2:
        return "inconsistent"
    if not decided:
        return "tied"
    return "won" if True in decided else "lost"


def observation(said: Sequence[Said], each: int) -> int | None:
    """How many of a person's first `each` decided choices were won; None before there are as many.

    Of two pictures that were asked about again, the first decided answer counts.
    """
    decided: dict[int, bool] = {}
    for one in said:
        if one.won is not None:
            decided.setdefault(one.choice_pk, one.won)
    return sum(list(decided.values())[:each]) if len(decided) >= each else None


def arm_of(said: Said, user_pk: str, share: Share) -> Arm | None:
    """For which of two adapters a choice counts: the one that served this person when it was made.

    None at another time, and for pictures of another adapter: those painted before this one served
    the person, or where a worker was started with its own. Else whoever had painted already would
    be missing among those whom the trial serves, and be observed of the first, not by chance. The
    version of the shipped adapter is known to nobody but the worker.
    """
    serving = share.at(said.at)
    if serving is None:
        return None
    served = serving.adapter_of(user_pk)
    if said.pinned_version != served or (served is not None and said.adapter_version != served):
        return None
    return "trial" if served == serving.trial else "first"


def _compared(share: Share, arms: Mapping[Arm, _Tally]) -> ShareWins:
    first, trial = _estimate(arms["first"]), _estimate(arms["trial"])
    difference = interval = None
    better: Arm | None = None
    if first.wins is not None and trial.wins is not None:
        difference = trial.wins - first.wins
        interval = interval_of_difference(arms["first"].counts_J, arms["trial"].counts_J)
        better = "trial" if interval[0] > 0 else "first" if interval[1] < 0 else None
    assert share.serving.trial is not None
    return ShareWins(
        first=share.serving.first,
        trial=share.serving.trial,
        share=share.serving.share,
        since=share.since,
        until=share.until,
        of_first=first,
        of_trial=trial,
        difference=difference,
        interval=interval,
        better=better,
    )


def _estimate(tally: _Tally) -> Wins:
    counts_J = tally.counts_J
    observed = int(counts_J.sum())
    return Wins(
        people=tally.people,
        observed=observed,
        wins=mean_of(counts_J) if observed else None,
        interval=interval_of(counts_J) if observed else None,
    )


def _choices(counts: Counter[Outcome]) -> BlindCounts:
    return BlindCounts(
        won=counts["won"],
        lost=counts["lost"],
        tied=counts["tied"],
        inconsistent=counts["inconsistent"],
    )
