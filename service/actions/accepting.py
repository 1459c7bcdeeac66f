"""Requests for pictures become jobs: those that wait at the same moment in one transaction."""

import asyncio
import logging
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from typing import Any

from service.actions import equal_requests
from service.actions.equal_requests import Wanted
from service.actions.limits import (
    Limits,
    check_gpu_quota,
    check_queue,
    check_storage,
    too_many_jobs,
)
from service.core.auth import Caller, person_of
from service.core.equal_requests import request_sha256
from service.core.errors import DatabaseAway, ServiceError
from service.core.fairness import Crowd, Spender, spenders
from service.core.generation import pin
from service.core.groups import InGroups
from service.core.ports import Versions
from service.core.proof.serving import Serving
from service.infra import logs
from service.infra.parts import Parts
from service.infra.sql.jobs.crowd import Held, Person
from service.infra.sql.jobs.generations import NewGeneration, Subject
from service.infra.sql.jobs.seen import JobSeen
from service.infra.sql.store import Store

log = logging.getLogger("ppd.accepting")

GENERATE_PRIORITY = 10
_AT_ONCE = 32
_FOLLOWERS = 32
"""Of one request that is being made, so many may wait beside the limits of the queue."""


@dataclass(frozen=True)
class Wish:
    """A taste to be used, with its weight: a person's by its name, or one that is shared."""

    taste: Person
    weight: float = 1.0

    @property
    def is_shared(self) -> bool:
        """Whether it came by a code, the hash of which stands beside no tenant in `taste`."""
        return not self.taste[0]


@dataclass(frozen=True)
class Asked:
    """A request for pictures: in which tastes, for whom, and whether the client waits."""

    caller: Caller
    wishes: tuple[Wish, ...]
    request: dict[str, Any]
    waits: bool
    names_seed: bool
    """Whether the client chose the seed: only then was it ever asked before."""
    fresh: bool
    """Whether the pictures are to be computed, whatever was made before."""
    user_id: str | None = None
    """For whom they are, where that is not said by whose tastes they use."""

    @cached_property
    def people(self) -> list[Person]:
        """All whom it is about, and their tastes, in the order in which people are held."""
        tastes = {wish.taste for wish in self.wishes if not wish.is_shared}
        people = {(self.caller.tenant, user_id) for user_id in self._user_ids}
        return sorted(tastes | people)

    @cached_property
    def _user_ids(self) -> set[str]:
        named = {person_of(wish.taste[1]) for wish in self.wishes if not wish.is_shared}
        said = (self.user_id, self.caller.own_user_id)
        return named | {one for one in said if one is not None}

    @property
    def codes(self) -> list[str]:
        """Hashes of the codes that it uses."""
        return [wish.taste[1] for wish in self.wishes if wish.is_shared]

    @property
    def owner(self) -> Person | None:
        """Whose job it is: nobody's where it is about several."""
        if len(self._user_ids) != 1:
            return None
        (user_id,) = self._user_ids
        return self.caller.tenant, user_id


Tastes = Mapping[Person, Held]
"""As wishes name them."""


@dataclass(frozen=True)
class Again:
    """A request whose pictures were made before, and the result that names them."""

    new: NewGeneration
    result: dict[str, Any]
    held: Tastes


@dataclass(frozen=True)
class _Decided:
    """What a request comes to: whose profile versions, and if of nobody, why."""

    owner_pk: str | None
    subjects: tuple[Subject, ...]
    reason: str | None
    sha256: str | None

    @property
    def served_pk(self) -> str | None:
        """Whose share of an adapter decides; None where no one person's taste is asked for."""
        return self.owner_pk if self.subjects else None


class Accepting:
    """Queues what is asked for, in groups; what needs a wait of its own goes alone.

    A group is one transaction, decided request by request as if each came after the other, so its
    limits hold within it. Alone goes a request about somebody who is new, or is being erased now:
    nobody else waits for them. So does one with a code, which is looked up where it is held, and
    every request of a group that failed, but not where the database went away: then it is not known
    whether they are stored.
    """

    def __init__(
        self,
        parts: Parts,
        limits: Limits,
        versions: Callable[[], Awaitable[Versions | None]],
    ) -> None:
        """`versions`: what pictures are made with now; None while that is not known."""
        self._parts = parts
        self._limits = limits
        self._versions = versions
        self._groups = InGroups(self._together, _AT_ONCE)

    async def accept(self, asked: Asked) -> JobSeen:
        """The job, queued or answered; raises what it is refused for."""
        again = await self.made_before(asked)
        if again is not None:
            async with self._parts.database.write() as store:
                job = await self.give(store, asked, again)
            if job is not None:
                return job
        job = await self._groups.ask(asked)
        if job is not None:
            return job
        async with self._parts.database.write() as store:
            return await self.alone(store, asked)

    async def made_before(self, asked: Asked) -> Again | None:
        """What can be answered without the model; None where that is not known, or nothing is.

        It takes no place in the queue, and no limit of the models' time is held against it.
        """
        versions = await self._versions() if asked.names_seed and not asked.fresh else None
        if versions is None:
            return None
        async with self._parts.database.read() as store:
            held: dict[Person, Held] = {}
            for person in asked.people:
                user = await store.users.find(*person)
                if user is None:
                    return None
                held[person] = Held(user.pk, await store.profiles.newest_pks(user.pk))
            for code_sha256 in asked.codes:
                taste_pk = await store.taste_shares.taste_pk(code_sha256)
                if taste_pk is None:
                    return None
                held["", code_sha256] = Held(taste_pk, await store.profiles.newest_pks(taste_pk))
            serving = await store.adapters.serving()
        decided = _decide(asked, held)
        adapter = serving.adapter_of(decided.served_pk)
        new = replace(_new(asked, decided), adapter_version=adapter)
        wanted = Wanted(new.tenant, new.user_pk, new.request, new.subjects, adapter)
        result = await equal_requests.earlier_result(self._parts, versions, wanted)
        return None if result is None else Again(new, result, held)

    async def give(self, store: Store, asked: Asked, again: Again) -> JobSeen | None:
        """The job, ended as it begins; None where somebody whom it is about was erased since."""
        for person in asked.people:
            if (await store.users.in_use(*person, lane=asked.caller.lane)).pk != again.held[
                person
            ].pk:
                return None
        for code_sha256 in asked.codes:
            taste_pk = await store.taste_shares.taste_pk(code_sha256, hold=True)
            if taste_pk != again.held["", code_sha256].pk:
                return None
        self._parts.metrics.answered_again(again.result)
        self._parts.metrics.job_ended("generate", "succeeded", 0.0)
        return await store.jobs.add_answered(again.new, again.result, priority=GENERATE_PRIORITY)

    async def alone(self, store: Store, asked: Asked) -> JobSeen:
        """The same in a transaction of the caller's, with people made on first use."""
        held: dict[Person, Held] = {}
        for person in asked.people:
            user_pk = (await store.users.in_use(*person, lane=asked.caller.lane)).pk
            held[person] = Held(user_pk, await store.profiles.newest_pks(user_pk))
        for code_sha256 in asked.codes:
            taste_pk = await store.taste_shares.taste_pk(code_sha256, hold=True)
            if taste_pk is None:
                raise ServiceError(404, "share_not_found")
            held["", code_sha256] = Held(taste_pk, await store.profiles.newest_pks(taste_pk))
        crowd = await store.jobs.crowd("generate", _owners([asked]))
        (outcome,) = await self._queue(store, [asked], held, crowd)
        if isinstance(outcome, ServiceError):
            raise outcome
        return outcome

    async def _together(self, group: Sequence[Asked]) -> list[JobSeen | ServiceError | None]:
        """An outcome for each; None for those who are to go alone."""
        with logs.about(requests=len(group)):
            try:
                return await self._in_one_transaction(group)
            except DatabaseAway:
                raise
            except Exception as error:  # without its message, which may quote several requests
                where = "".join(traceback.format_tb(error.__traceback__))
                log.error(
                    "a group failed, its requests go one by one: %s\n%s",
                    type(error).__name__,
                    where,
                )
                return [None] * len(group)

    async def _in_one_transaction(
        self, group: Sequence[Asked]
    ) -> list[JobSeen | ServiceError | None]:
        async with self._parts.database.write() as store:
            people = {person for asked in group for person in asked.people}
            held, crowd = await store.meet(people, _owners(group), "generate")
            known = [not asked.codes and held.keys() >= set(asked.people) for asked in group]
            outcomes = iter(await self._queue(store, list(compress(group, known)), held, crowd))
        return [next(outcomes) if is_known else None for is_known in known]

    async def _queue(
        self, store: Store, group: Sequence[Asked], held: Tastes, crowd: Crowd
    ) -> list[JobSeen | ServiceError]:
        if not group:
            return []
        decided = [_decide(asked, held) for asked in group]
        accounts = [_spenders(asked, one) for asked, one in zip(group, decided, strict=True)]
        refusals = await self._refusals({who for some in accounts for who in some})
        named = [one.sha256 for ask, one in zip(group, decided, strict=True) if ask.names_seed]
        equal = Counter(await store.jobs.unended_equal({sha256 for sha256 in named if sha256}))
        is_anybodys = any(one.served_pk is not None for one in decided)
        serving = await store.adapters.serving() if is_anybodys else Serving(None)
        outcomes: list[NewGeneration | ServiceError] = []
        for asked, one in zip(group, decided, strict=True):
            try:
                before = equal[one.sha256 or ""]
                job = self._admit(asked, one, crowd, refusals, before)
                outcomes.append(replace(job, trial_version=serving.trial_of(one.served_pk)))
            except ServiceError as error:
                outcomes.append(error)
                continue
            if one.sha256 is not None:
                equal[one.sha256] += 1
        new = [job for job in outcomes if isinstance(job, NewGeneration)]
        made = iter(
            await store.jobs.add_generations(
                new, priority=GENERATE_PRIORITY, expiry_s=self._limits.job_expiry_s
            )
        )
        return [one if isinstance(one, ServiceError) else next(made) for one in outcomes]

    async def _refusals(self, accounts: set[Spender]) -> dict[Spender | None, ServiceError]:
        """On whose account no pictures are made now, and under None why on nobody's."""
        parts = self._parts
        asked = [None, *accounts]
        answers = await asyncio.gather(
            check_storage(parts.images),
            *(check_gpu_quota(parts.rates, [who]) for who in accounts),
            return_exceptions=True,
        )
        refusals: dict[Spender | None, ServiceError] = {}
        for who, answer in zip(asked, answers, strict=True):
            if isinstance(answer, ServiceError):
                refusals[who] = answer
            elif answer is not None:
                raise answer
        return refusals

    def _admit(
        self,
        asked: Asked,
        decided: _Decided,
        crowd: Crowd,
        refusals: Mapping[Spender | None, ServiceError],
        before: int,
    ) -> NewGeneration:
        """The job; raises what it is refused for.

        `before`: how many equal ones wait or run. Then it waits for their pictures, and takes no
        place in the queue.
        """
        for who in (*_spenders(asked, decided), None):
            if who in refusals:
                raise refusals[who]
        owner = (asked.caller.tenant, asked.caller.lane, decided.owner_pk)
        if before > _FOLLOWERS:
            raise too_many_jobs()
        if not before:
            check_queue(crowd.queue(owner), self._limits, "generate", asked.caller)
            crowd.join(owner)
        return _new(asked, decided)


def _spenders(asked: Asked, decided: _Decided) -> list[Spender]:
    return spenders(asked.caller.tenant, asked.caller.lane, decided.owner_pk)


def _new(asked: Asked, decided: _Decided) -> NewGeneration:
    return NewGeneration(
        tenant=asked.caller.tenant,
        user_pk=decided.owner_pk,
        user_id=asked.owner[1] if asked.owner is not None else None,
        lane=asked.caller.lane,
        request={**asked.request, "reason": decided.reason},
        subjects=decided.subjects,
        request_sha256=decided.sha256,
    )


def _decide(asked: Asked, held: Tastes) -> _Decided:
    caller, owner = asked.caller, asked.owner
    subjects: list[Subject] = []
    reasons: list[str] = []
    for wish in asked.wishes:
        taste = held[wish.taste]
        pinned = pin(taste.found, waits=asked.waits)
        subjects.append(Subject(taste.pk, pinned.profile_pk, wish.weight, wish.is_shared))
        if pinned.reason is not None:
            reasons.append(pinned.reason)
    owner_pk = held[owner].pk if owner is not None else None
    sha256 = None
    if not asked.fresh:
        tastes = equal_requests.tastes(subjects, owner_pk)
        browser_pk = owner_pk if caller.is_session else None
        sha256 = request_sha256(caller.tenant, browser_pk, asked.request, tastes)
    return _Decided(owner_pk, tuple(subjects), reasons[0] if reasons else None, sha256)


def _owners(group: Sequence[Asked]) -> set[Person]:
    return {asked.owner for asked in group if asked.owner is not None}
