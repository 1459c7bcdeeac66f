"""Which adapters are in service, and whom each of them serves."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Serving:
    """`first` serves everybody, but for a share of people, in (0, 1), whom `trial` serves.

    None is the adapter that was shipped; without a trial the share is 0.
    """

    first: str | None
    trial: str | None = None
    share: float = 0.0

    def trial_of(self, user_pk: str | None) -> str | None:
        """The trial, for a person who falls in its share; nobody in particular falls in none."""
        if self.trial is None or user_pk is None:
            return None
        return self.trial if drawn(self.trial, user_pk) < self.share else None

    def adapter_of(self, user_pk: str | None) -> str | None:
        """What this person's pictures are made with from now on."""
        return self.trial_of(user_pk) or self.first

    @property
    def versions(self) -> list[str]:
        """Those that are in service, but for the shipped one."""
        return [one for one in (self.first, self.trial) if one is not None]

    @property
    def told(self) -> dict[str, Any]:
        """The trial and its share, for a record; nothing without one."""
        return {} if self.trial is None else {"trial": self.trial, "share": self.share}

    def share_of(self, version: str | None) -> float:
        """The part of people whom this adapter serves."""
        if version == self.first:
            return 1.0 - self.share
        return self.share if version == self.trial else 0.0


@dataclass(frozen=True)
class Share:
    """The newest time that two adapters served side by side; `until` is None while they do.

    `steps`: what was in service from when on, oldest first; they differ in the share alone.
    """

    steps: tuple[tuple[datetime, Serving], ...]
    until: datetime | None

    @property
    def since(self) -> datetime:
        """When it began."""
        return self.steps[0][0]

    @property
    def serving(self) -> Serving:
        """With the share that it has now, or had last."""
        return self.steps[-1][1]

    def at(self, time: datetime) -> Serving | None:
        """What was in service then; None before and after."""
        if self.until is not None and time >= self.until:
            return None
        begun = [serving for since, serving in self.steps if since <= time]
        return begun[-1] if begun else None


def drawn(trial: str, user_pk: str) -> float:
    """A person's own number in [0, 1), uniform over people: the same in every process, for ever.

    A share of the people are those whose number is below it, so whoever is in a share stays in it
    as it grows. Each trial draws anew, independently. Nobody chooses their number: `user_pk` is
    random and told to nobody.
    """
    digest = hashlib.sha256(f"share {trial} {user_pk}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
