"""Blind choices between a person's own pictures and the base."""

from collections.abc import AsyncIterator, Sequence

from sqlalchemy import select

from service.core.proof.wins import Outcome, Said, Tallies, outcome
from service.infra.sql.repositories.adapters import Adapters
from service.infra.sql.repositories.base import Repository, table
from service.infra.sql.tables import BlindChoice

_AT_ONCE = 1000
_CHOICES = table(BlindChoice).c
_ALL = (
    select(
        _CHOICES.user_pk,
        _CHOICES.choice_pk,
        _CHOICES.adapter_version,
        _CHOICES.pinned_version,
        _CHOICES.won,
        _CHOICES.created_at,
    )
    .order_by(_CHOICES.user_pk, _CHOICES.pk)
    .execution_options(yield_per=_AT_ONCE)
)


class BlindChoices(Repository):
    """Blind choices between a person's own pictures and the base."""

    async def add(self, choice: BlindChoice) -> Outcome:
        """Keep a choice; gives what the two pictures come to with it. Needs the user alone."""
        earlier = select(BlindChoice.won).where(BlindChoice.choice_pk == choice.choice_pk)
        answers = [*await self._all(earlier), choice.won]
        self._session.add(choice)
        await self._session.flush()
        return outcome(answers)

    async def of_user(self, user_pk: str) -> Sequence[BlindChoice]:
        """A person's, oldest first."""
        theirs = select(BlindChoice).where(BlindChoice.user_pk == user_pk)
        return await self._all(theirs.order_by(BlindChoice.pk))

    async def tallied(self, each: int) -> Tallies:
        """Everybody's, counted, with `each` decided choices for an observation of a person."""
        tallies = Tallies(each, await Adapters(self._session).last_share())
        async for user_pk, said in self._by_person():
            tallies.add(user_pk, said)
        return tallies

    async def _by_person(self) -> AsyncIterator[tuple[str, list[Said]]]:
        """All choices of one person after the other, as many in memory as one has."""
        person = ""
        said: list[Said] = []
        async for user_pk, *facts in await self._session.stream(_ALL):
            if said and user_pk != person:
                yield person, said
                said = []
            person = user_pk
            said.append(Said(*facts))
        if said:
            yield person, said
