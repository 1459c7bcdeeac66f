"""What exports of contributed answers name, by random numbers, and what of it is gone since."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, exists, func, or_, select, update
from sqlalchemy.orm import aliased

from service.infra.sql.clock import present
from service.infra.sql.repositories.base import Repository
from service.infra.sql.tables import (
    Choice,
    Export,
    ExportedAnswer,
    ExportedPerson,
    Image,
    User,
    new_id,
)

_BATCH = 500
_CONTRIBUTES = User.contributes_since.is_not(None)
_IS_A_PAIR = or_(Choice.pair_id.is_not(None), Choice.image_1_id.is_not(None))
"""Not a picture that is liked alone: nobody compared it with another."""


@dataclass(frozen=True)
class Contributed:
    """An answer under its random numbers. `images`: an own or a made pair's; None of the pool's."""

    answer: int
    person: int
    choice: Choice
    images: tuple[Image, Image] | None


@dataclass(frozen=True)
class Gone:
    """Somebody, or one answer of somebody who is there, whom `export` was the first to miss."""

    export: int
    person: int
    answer: int | None


class Exports(Repository):
    """Folders that were exported to. All of it needs a write transaction but what reads by name."""

    async def begin(self) -> Export:
        """A new folder's."""
        export = Export(mark=new_id(), number=0)
        self._session.add(export)
        await self._session.flush()
        return export

    async def of(self, mark: str) -> Export | None:
        return await self._session.scalar(select(Export).where(Export.mark == mark))

    async def take_in(self, export: Export, after_pk: int, file_rows: int) -> int | None:
        """Number the next contributed answers that have none; gives the last one's pk, or None.

        Files are filled one after the other, to `file_rows` answers each; an answer stays in its
        file.
        """
        known = exists().where(
            ExportedAnswer.export_pk == export.pk, ExportedAnswer.choice_pk == Choice.pk
        )
        found = (
            await self._session.execute(
                select(Choice.pk, Choice.user_pk)
                .join(User, User.pk == Choice.user_pk)
                .where(Choice.pk > after_pk, _CONTRIBUTES, ~known, _IS_A_PAIR)
                .order_by(Choice.pk)
                .limit(_BATCH)
                # Those that are being erased are passed by: nothing is waited for.
                .with_for_update(read=True, key_share=True, skip_locked=True)
            )
        ).all()
        if not found:
            return None
        person_of = await self._numbered(export, {row.user_pk for row in found})
        file, room = await self._last_file(export, file_rows)
        for row in found:
            if not room:
                file, room = file + 1, file_rows
            room -= 1
            self._session.add(
                ExportedAnswer(
                    export_pk=export.pk,
                    answer=_random(),
                    person=person_of[row.user_pk],
                    file=file,
                    choice_pk=row.pk,
                )
            )
        await self._session.flush()
        return int(found[-1].pk)

    async def note_gone(self, export: Export) -> None:
        """Note what was erased or withdrawn, and forget what its numbers stood for."""
        number = export.number + 1
        withdrawn = select(User.pk).where(~_CONTRIBUTES)
        answers = select(Choice.pk).where(Choice.user_pk.in_(withdrawn))
        for table, refers, theirs in (
            (ExportedAnswer, ExportedAnswer.choice_pk, answers),
            (ExportedPerson, ExportedPerson.user_pk, withdrawn),
        ):
            await self._session.execute(
                update(table)
                .where(table.export_pk == export.pk, table.gone_in.is_(None))
                .where(or_(refers.is_(None), refers.in_(theirs)))
                .values({table.gone_in: number, refers: None})
                .execution_options(synchronize_session=False)
            )

    async def files(self, export: Export) -> int:
        """How many files there are, numbered from 1; some may have lost all their answers."""
        last = select(func.max(ExportedAnswer.file)).where(ExportedAnswer.export_pk == export.pk)
        return await self._session.scalar(last) or 0

    async def people(self, export: Export) -> int:
        """How many have an answer in it."""
        theirs = ExportedAnswer.export_pk == export.pk, ExportedAnswer.gone_in.is_(None)
        people = select(func.count(ExportedAnswer.person.distinct())).where(*theirs)
        return await self._session.scalar(people) or 0

    async def answers(self, export: Export, file: int) -> list[Contributed]:
        """Those of one file that are still contributed, in the order of their random numbers."""
        first, second = aliased(Image), aliased(Image)
        rows = await self._session.execute(
            select(ExportedAnswer, Choice, first, second)
            .join(Choice, Choice.pk == ExportedAnswer.choice_pk)
            .join(User, User.pk == Choice.user_pk)
            .outerjoin(first, first.id == Choice.image_0_id)
            .outerjoin(second, second.id == Choice.image_1_id)
            .where(ExportedAnswer.export_pk == export.pk, ExportedAnswer.file == file)
            .where(ExportedAnswer.gone_in.is_(None), _CONTRIBUTES)
            .order_by(ExportedAnswer.answer)
        )
        return [
            Contributed(
                exported.answer,
                exported.person,
                choice,
                None if one is None or other is None else (one, other),
            )
            for exported, choice, one, other in rows
        ]

    async def gone(self, export: Export) -> AsyncIterator[Gone]:
        """All that is gone, people first; of a person who is gone the answers are not named."""
        people = select(ExportedPerson).where(
            ExportedPerson.export_pk == export.pk, ExportedPerson.gone_in.is_not(None)
        )
        of_gone = exists().where(
            and_(
                ExportedPerson.export_pk == export.pk,
                ExportedPerson.person == ExportedAnswer.person,
                ExportedPerson.gone_in.is_not(None),
            )
        )
        answers = select(ExportedAnswer).where(
            ExportedAnswer.export_pk == export.pk, ExportedAnswer.gone_in.is_not(None), ~of_gone
        )
        after = -1
        while page := await self._all(
            people.where(ExportedPerson.person > after)
            .order_by(ExportedPerson.person)
            .limit(_BATCH)
        ):
            for person in page:
                assert person.gone_in is not None
                yield Gone(person.gone_in, person.person, None)
            after = page[-1].person
        after = -1
        while found := await self._all(
            answers.where(ExportedAnswer.answer > after)
            .order_by(ExportedAnswer.answer)
            .limit(_BATCH)
        ):
            for answer in found:
                assert answer.gone_in is not None
                yield Gone(answer.gone_in, answer.person, answer.answer)
            after = found[-1].answer

    async def finish(self, export: Export) -> datetime:
        """The export is complete: it counts, and gives the time."""
        finished = update(Export).where(Export.pk == export.pk)
        finished = finished.values(number=export.number + 1, finished_at=present())
        at: datetime | None = await self._session.scalar(finished.returning(Export.finished_at))
        assert at is not None
        return at

    async def _numbered(self, export: Export, user_pks: set[str]) -> dict[str, int]:
        known = await self._session.execute(
            select(ExportedPerson.user_pk, ExportedPerson.person).where(
                ExportedPerson.export_pk == export.pk, ExportedPerson.user_pk.in_(user_pks)
            )
        )
        person_of = {row.user_pk: row.person for row in known}
        for user_pk in sorted(user_pks - set(person_of)):
            person_of[user_pk] = _random()
            self._session.add(
                ExportedPerson(export_pk=export.pk, person=person_of[user_pk], user_pk=user_pk)
            )
        return person_of

    async def _last_file(self, export: Export, file_rows: int) -> tuple[int, int]:
        """Its number, and how many answers it may still be given."""
        file = await self.files(export)
        given = select(func.count()).where(
            ExportedAnswer.export_pk == export.pk, ExportedAnswer.file == file
        )
        return file, max(0, file_rows - (await self._session.scalar(given) or 0)) if file else 0


def _random() -> int:
    """63 bits that follow from nothing."""
    return secrets.randbits(63)
