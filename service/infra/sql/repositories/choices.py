"""Answers to pairs."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select

from service.infra.sql.repositories.base import Repository
from service.infra.sql.tables import Choice


class Choices(Repository):
    """Answers to pairs."""

    async def of(self, user_pk: str) -> Sequence[Choice]:
        return await self._all(select(Choice).where(Choice.user_pk == user_pk).order_by(Choice.pk))

    async def latest_decided(self, user_pk: str, count: int) -> list[Choice]:
        """The newest answers that are not ties, oldest of them first."""
        rows = await self._session.scalars(
            select(Choice)
            .where(Choice.user_pk == user_pk, Choice.preferred.is_not(None))
            .order_by(Choice.pk.desc())
            .limit(count)
        )
        return list(rows)[::-1]

    async def counts(self, user_pk: str) -> tuple[int, int]:
        """How many answers there are, and how many of them are not ties."""
        row = (
            await self._session.execute(
                select(func.count(), func.count(Choice.preferred)).where(Choice.user_pk == user_pk)
            )
        ).one()
        return int(row[0]), int(row[1])

    async def put(self, choice: Choice) -> None:
        """Store an answer; one to the same pool pair takes the place of the earlier one.

        Needs the user alone.
        """
        if choice.pair_id is not None:
            await self._session.execute(
                delete(Choice).where(
                    Choice.user_pk == choice.user_pk, Choice.pair_id == choice.pair_id
                )
            )
        self._session.add(choice)
        await self._session.flush()
