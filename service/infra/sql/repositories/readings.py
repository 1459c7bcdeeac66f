"""Readings of sets of answers, kept for as long as a profile may be made of them."""

from collections.abc import Collection

from sqlalchemy import delete, select

from ppd_model.types import EncodedUser
from service.core import embeddings
from service.infra.sql.repositories.base import Repository
from service.infra.sql.tables import Reading


class Readings(Repository):
    """What an encoder made of sets of four answers."""

    async def of(
        self, user_pk: str, encoder_version: str, sha256s: Collection[str]
    ) -> dict[str, EncodedUser]:
        """Those of these readings that this encoder has made, by their hash."""
        rows = await self._all(
            select(Reading).where(
                Reading.user_pk == user_pk,
                Reading.encoder_version == encoder_version,
                Reading.reading_sha256.in_(sha256s),
            )
        )
        return {row.reading_sha256: _as_read(row) for row in rows}

    async def keep(
        self, user_pk: str, encoder_version: str, readings: dict[str, EncodedUser]
    ) -> None:
        """Keep these of the user's readings, by their hash, and no others."""
        await self._session.execute(
            delete(Reading).where(
                Reading.user_pk == user_pk,
                (Reading.encoder_version != encoder_version)
                | Reading.reading_sha256.not_in(readings),
            )
        )
        rows = [
            {
                "user_pk": user_pk,
                "encoder_version": encoder_version,
                "reading_sha256": sha256,
                "text": read.profile,
                "likes": read.likes,
                "dislikes": read.dislikes,
                "unread": read.unread,
                "confidence": float(read.confidence),
                "embedding": embeddings.to_bytes(read.user_emb_D),
            }
            for sha256, read in readings.items()
        ]
        kept = self._insert(Reading).values(rows).on_conflict_do_nothing()
        await self._session.execute(kept)

    async def forget(self, user_pk: str) -> None:
        await self._session.execute(delete(Reading).where(Reading.user_pk == user_pk))


def _as_read(row: Reading) -> EncodedUser:
    user_emb_D = embeddings.from_bytes(row.embedding)
    return EncodedUser(
        row.text, "", user_emb_D, row.confidence, row.likes, row.dislikes, row.unread
    )
