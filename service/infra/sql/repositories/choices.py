"""Answers to pairs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import String, cast, func, select, update

from service.infra.sql.clock import present
from service.infra.sql.repositories.base import Repository
from service.infra.sql.tables import Choice, User


class Choices(Repository):
    """Answers to pairs."""

    async def of(self, user_pk: str) -> Sequence[Choice]:
        return await self._all(select(Choice).where(Choice.user_pk == user_pk).order_by(Choice.pk))

    async def read_from(self, user: User) -> list[Choice]:
        """The answers that the user's profile is made of: not ties, nor too old; oldest first."""
        theirs = select(Choice).where(Choice.user_pk == user.pk, Choice.preferred.is_not(None))
        if user.answers_since is not None:
            theirs = theirs.where(Choice.created_at >= user.answers_since)
        return list(await self._all(theirs.order_by(Choice.pk)))

    async def count(self, user_pk: str) -> int:
        """How many answers there are, ties too."""
        theirs = select(func.count()).select_from(Choice).where(Choice.user_pk == user_pk)
        return await self._session.scalar(theirs) or 0

    async def put(self, choice: Choice) -> None:
        """Store an answer; an earlier one to the same pool pair becomes it.

        Needs the user alone.
        """
        earlier = None
        if choice.pair_id is not None:
            earlier = await self._session.scalar(
                select(Choice).where(
                    Choice.user_pk == choice.user_pk, Choice.pair_id == choice.pair_id
                )
            )
        if earlier is None:
            self._session.add(choice)
            await self._session.flush()
        else:
            await self.answer_again(earlier, choice.preferred)

    async def answer_again(self, choice: Choice, preferred: int | None) -> None:
        """Needs the user alone."""
        choice.preferred = preferred
        choice.created_at = present()
        await self._session.flush()

    async def answer_made_again(
        self, user_pk: str, image_ids: Sequence[str], preferred: int | None
    ) -> Choice | None:
        """Change the answer to two made pictures, whichever way round; None where there is none.

        Needs the user alone.
        """
        theirs = select(Choice).where(Choice.user_pk == user_pk)
        for choice in await self._all(
            theirs.where(cast(Choice.made, String).contains(image_ids[0]))
        ):
            asked = (choice.made or {}).get("image_ids", [])
            if set(asked) == set(image_ids):
                if preferred is not None and list(asked) != list(image_ids):
                    preferred = 1 - preferred
                await self.answer_again(choice, preferred)
                return choice
        return None

    async def of_made(self, image_id: str) -> Sequence[Choice]:
        """Everybody's answers that copied this picture."""
        return await self._all(select(Choice).where(cast(Choice.made, String).contains(image_id)))

    async def against(self, image_ids: Collection[str]) -> dict[str, dict[str, Any]]:
        """What liked pictures, by their ids, were set against; none of those that were not yet."""
        rows = await self._session.execute(
            select(Choice.image_0_id, Choice.against).where(Choice.image_0_id.in_(image_ids))
        )
        return {image_id: found for image_id, found in rows if image_id and found}

    async def set_against(self, found: Mapping[str, dict[str, Any]]) -> None:
        """Keep what liked pictures were set against. An answer that was taken back is none."""
        for image_id, row in found.items():
            of_image = update(Choice).where(Choice.image_0_id == image_id)
            await self._session.execute(of_image.values(against=row))

    async def get(self, user_pk: str, pk: int) -> Choice | None:
        """This user's answer of that number. Needs the user alone where it is to be changed."""
        return await self._session.scalar(
            select(Choice).where(Choice.user_pk == user_pk, Choice.pk == pk)
        )

    async def remove(self, choice: Choice) -> None:
        await self._session.delete(choice)
        await self._session.flush()
