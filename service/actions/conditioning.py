"""Whose taste a job for pictures uses, as its pins come to now, and what is said about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from service.core.generation import Reason
from service.core.ports import Versions
from service.infra.sql.jobs.generations import Subject
from service.infra.sql.store import Store
from service.infra.sql.tables import JobSubject, Profile

Why = Reason | Literal["reencoded"]


@dataclass(frozen=True)
class Tastes:
    """Profile versions with their weights; none where no taste is applied."""

    used: tuple[tuple[Profile, float], ...]
    reason: Why | None
    profile_versions: tuple[int | None, ...]
    """Of each person whom the request names, in its order."""

    @property
    def applied(self) -> bool:
        """Whether the pictures are in anybody's taste."""
        return bool(self.used)


NOBODYS = Tastes((), None, ())


async def tastes_of(
    store: Store,
    versions: Versions,
    request: Mapping[str, Any],
    subjects: Sequence[Subject | JobSubject],
) -> Tastes:
    """What the pins of a request come to now: all of its people's tastes, or none."""
    found = []
    for subject in subjects:
        pinned = None
        if subject.profile_pk is not None:
            pinned = await store.profiles.get(subject.profile_pk)
        current = await store.profiles.newest(subject.user_pk, "ready", versions.encoder_version)
        found.append((pinned, current, subject.weight))
    if not found:
        return NOBODYS
    reason: Why | None = request["reason"]
    used: list[tuple[Profile, float]] = []
    numbers: list[int | None] = []
    for pinned, current, weight in found:
        profile, why = _usable(pinned, current, versions)
        if profile is None:
            reason = reason or why
            numbers.append(None)
            continue
        if why == "reencoded" and reason is None:
            reason = why
        used.append((profile, weight))
        numbers.append(profile.version)
    if len(used) < len(found):
        return Tastes((), reason, (None,) * len(found))
    if request["strength"] == 0:
        return Tastes((), "strength_zero", tuple(numbers))
    return Tastes(tuple(used), reason, tuple(numbers))


def _usable(
    pinned: Profile | None, current: Profile | None, versions: Versions
) -> tuple[Profile | None, Why | None]:
    """The pinned version; where it was superseded or is of another encoder, a newer one."""
    if pinned is None:
        return None, None
    if pinned.status == "ready" and pinned.encoder_version == versions.encoder_version:
        return pinned, None
    if current is not None and current.version > pinned.version:
        return current, "reencoded" if pinned.status == "ready" else None
    if pinned.status == "ready":
        return None, "encoder_changed"
    return None, "encoding" if pinned.status in ("encoding", "superseded") else "encoding_failed"


def tastes_named(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a request says of whose tastes it uses: `user_id`, `taste` if it is a named one.

    Of one that another shared it says `shared_taste` and not whose.
    """
    plain = [{"user_id": user_id} for user_id in request.get("user_ids", ())]
    return list(request.get("tastes", plain))


def taste_told(taste: str | None) -> dict[str, str]:
    """How a taste is said: nothing of a person's first."""
    return {} if taste is None else {"taste": taste}


def echo(request: Mapping[str, Any], tastes: Tastes) -> dict[str, Any]:
    """What a result says of the tastes that its pictures were made in."""
    numbers, named = tastes.profile_versions, tastes_named(request)
    said: dict[str, Any] = {
        "profile_version": numbers[0] if numbers and not request["blended"] else None,
        "strength": request["strength"],
        "personalization_applied": tastes.applied,
    }
    if request["blended"]:
        said["blend"] = [
            {**taste, "profile_version": version}
            for taste, version in zip(named, numbers, strict=True)
        ]
    elif named:
        said |= {name: told for name, told in named[0].items() if name != "user_id"}
    if tastes.reason is not None:
        said["reason"] = tastes.reason
    return said
