"""Encodings, as routers put them into the queue."""

from dataclasses import dataclass
from typing import Any

from service.actions.limits import Limits, check_gpu_quota, check_queue
from service.core.auth import Caller, person_of
from service.core.choices import (
    KnownReading,
    already_read,
    newest_read,
    reading_seed,
    reading_sha256,
    sets_of,
)
from service.core.fairness import spenders
from service.core.messages import TERMINAL
from service.core.quiz import CHOICES_PER_EMBEDDING
from service.infra.parts import Parts
from service.infra.sql.store import Store
from service.infra.sql.tables import Choice, Job, Profile, User

ENCODE_PRIORITY = 0


@dataclass(frozen=True)
class Encoding:
    """The version that answers come to, and its job; None where it is ready already.

    No version either where they are too few to come to any.

    `overtaken`: encodings that no worker had begun and that nobody needs any more.
    """

    profile: Profile | None
    job: Job | None
    overtaken: list[Job]

    @property
    def ids(self) -> dict[str, Any]:
        """The two, as an idempotency record keeps them."""
        return {
            "profile_pk": self.profile.pk if self.profile else None,
            "job_id": self.job.id if self.job else None,
        }


async def queue_encoding(
    store: Store,
    parts: Parts,
    limits: Limits,
    caller: Caller,
    user: User,
    *,
    encoder_version: str | None,
    choices: list[Choice],
    text: str | None = None,
    limited: bool = True,
) -> Encoding:
    """Begin a new profile version and queue its job, unless the newest one is of the same reading.

    Needs the user alone. `choices`: all that count, oldest first; under four, the text alone is
    read. `encoder_version` is the one that reads now, if that is known. A version
    of the same reading stands, be it ready or on its way: a new one would be equal to it.
    Encodings of this taste that no worker has begun are overtaken: they come back too. What follows
    a removal is not `limited`: whoever takes something back is refused by no quota.
    """
    snapshot = [snapshot_of(choice) for choice in newest_read(choices)]
    source = "generated" if text is None else "edited" if snapshot else "written"
    standing = await _standing(store, encoder_version, user.pk, reading_sha256(snapshot, text))
    if standing is not None:
        return standing
    overtaken = await _overtake(store, user.pk)
    person_pk = user.person_pk
    crowd = await store.jobs.crowd("encode", [(user.tenant, person_of(user.user_id))])
    if limited:
        check_queue(crowd.queue((caller.tenant, caller.lane, person_pk)), limits, "encode", caller)
        await check_gpu_quota(parts.rates, spenders(caller.tenant, caller.lane, person_pk))
    seed = reading_seed(snapshot, text)
    profile = await store.profiles.add(user.pk, source, snapshot, seed, text)
    unread = await _unread_sets(store, encoder_version, profile)
    job = await store.jobs.add(encode_job(user, profile, caller.lane, unread))
    return Encoding(profile, job, overtaken)


async def follow_answers(
    store: Store,
    parts: Parts,
    limits: Limits,
    caller: Caller,
    user: User,
    *,
    encoder_version: str | None,
    limited: bool,
) -> Encoding:
    """The profile after answers were changed, removed or left out; a text that was given stays.

    Where there is nothing to make one of, what was read before is superseded. Needs the user alone.
    """
    newest = await store.profiles.standing(user.pk)
    text = newest.text if newest is not None and newest.source in ("edited", "written") else None
    answers = await store.choices.read_from(user)
    if len(answers) < CHOICES_PER_EMBEDDING and text is None:
        overtaken = await _overtake(store, user.pk)
        await store.profiles.supersede(user.pk)
        await store.readings.forget(user.pk)
        return Encoding(None, None, overtaken)
    return await queue_encoding(
        store,
        parts,
        limits,
        caller,
        user,
        encoder_version=encoder_version,
        choices=answers,
        text=text,
        limited=limited,
    )


async def _overtake(store: Store, user_pk: str) -> list[Job]:
    """Cancel the encodings of a user that no worker has begun; gives them."""
    overtaken: list[Job] = []
    for waiting in await store.jobs.waiting_encode(user_pk):
        await store.jobs.cancel(waiting)
        assert waiting.profile_pk is not None
        await store.profiles.finish(waiting.profile_pk, "superseded")
        await store.session.refresh(waiting)
        overtaken.append(waiting)
    return overtaken


async def _standing(
    store: Store, encoder_version: str | None, user_pk: str, sha256: str
) -> Encoding | None:
    """The newest version where it is of this reading, with its job while that is on its way."""
    newest = await store.profiles.standing(user_pk)
    if newest is None:
        return None
    known = KnownReading(
        reading_sha256(newest.choices, newest.given_text),
        newest.status,  # type: ignore[arg-type]
        newest.encoder_version,
    )
    if not already_read(sha256, known, encoder_version):
        return None
    job = None
    if newest.status == "encoding":
        job = await store.jobs.of_profile(newest.pk)
        if job is None or job.status in TERMINAL:
            return None
    return Encoding(newest, job, [])


async def _unread_sets(store: Store, encoder_version: str | None, profile: Profile) -> int:
    """How many sets of the version's answers are yet to be read, as far as is known."""
    text = profile.given_text
    sha256s = [reading_sha256(choices, text) for choices, _ in sets_of(profile.choices)]
    if encoder_version is None:
        return len(sha256s)
    return len(sha256s) - len(await store.readings.of(profile.user_pk, encoder_version, sha256s))


def encode_job(user: User, profile: Profile, lane: str | None, readings: int) -> Job:
    """The job that encodes a profile version, with how many readings that takes.

    `lane`: in which the tenant's people go round.
    """
    return Job(
        kind="encode",
        priority=ENCODE_PRIORITY,
        tenant=user.tenant,
        lane=lane,
        user_pk=user.person_pk,
        profile_pk=profile.pk,
        request={"profile_version": profile.version, "readings": readings},
    )


def snapshot_of(choice: Choice) -> dict[str, Any]:
    """A decided answer, as a profile version remembers it."""
    return {
        "pair_id": choice.pair_id,
        "image_ids": [choice.image_0_id, choice.image_1_id],
        "caption": choice.caption,
        "preferred": choice.preferred,
    }
