"""Who did what to which object, and when."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, func, select

from service.infra.sql.repositories.base import Repository
from service.infra.sql.tables import AuditEntry

SERVICE = "service"
"""Who does what happens by itself: retention, the judging of pictures."""

What = Literal[
    "key.made",
    "key.revoked",
    "adapter.kept",
    "adapter.activated",
    "adapter.shared",
    "adapter.withdrawn",
    "adapter.rolled_back",
    "adapter.deactivated",
    "adapter.removed",
    "person.erased",
    "person.contributes",
    "person.withdrew",
    "choices.exported",
    "taste.erased",
    "jobs.erased",
    "content.refused",
    "report.dismissed",
    "picture.taken_down",
]


class Audit(Repository):
    """The audit record: written in the transaction of what it tells of, and never changed."""

    async def note(
        self, who: str, what: What, of: str, tenant: str | None = None, **detail: Any
    ) -> None:
        """`of` is a kind and an id of ours: key:..., job:..., picture:..."""
        entry = AuditEntry(who=who, what=what, object=of, tenant=tenant, detail=detail)
        self._session.add(entry)
        await self._session.flush()

    async def since(self, at: datetime | None, after_pk: int, count: int) -> Sequence[AuditEntry]:
        """The next entries behind this one, oldest first (and no older than `at`)."""
        entries = select(AuditEntry).where(AuditEntry.pk > after_pk)
        if at is not None:
            entries = entries.where(AuditEntry.at >= at)
        return await self._all(entries.order_by(AuditEntry.pk).limit(count))

    async def prune(self, before: datetime | None, newest: int) -> int:
        """Forget what is older than this, and all but so many of the newest."""
        last = await self._session.scalar(select(func.max(AuditEntry.pk))) or 0
        pruned = await self._changed(delete(AuditEntry).where(AuditEntry.pk <= last - newest))
        if before is not None:
            pruned += await self._changed(delete(AuditEntry).where(AuditEntry.at < before))
        return pruned
