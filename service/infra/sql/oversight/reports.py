"""Reports of pictures."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import case, exists, select, update

from service.infra.sql.clock import present
from service.infra.sql.repositories.base import FRESH, ID, Repository
from service.infra.sql.tables import Image, Report


class Reports(Repository):
    """Reports of pictures."""

    async def open(self, image: Image, reason: str, reported_by: str) -> Report:
        """A new report; the same caller's open one of the same picture stands in its place."""
        earlier = await self._session.scalar(
            select(Report).where(
                Report.image_id == image.id,
                Report.reported_by == reported_by,
                Report.status == "open",
            )
        )
        if earlier is not None:
            return earlier
        return await self._add(image, reason, reported_by, "open")

    async def get(self, report_id: str, *, lock: bool = False) -> Report | None:
        """A report; with `lock` nobody else decides on it until the end."""
        if not ID.fullmatch(report_id):  # PostgreSQL takes not every text
            return None
        found = select(Report).where(Report.id == report_id)
        if lock:
            found = found.with_for_update().execution_options(**FRESH)
        return await self._session.scalar(found)

    async def page(
        self, status: str | None, before: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Report]:
        """Reports of every tenant (in this state), newest first."""
        newest = select(Report).order_by(Report.created_at.desc(), Report.id.desc()).limit(limit)
        if status is not None:
            newest = newest.where(Report.status == status)
        if before is not None:
            at, report_id = before
            newest = newest.where(
                case((Report.created_at == at, Report.id < report_id), else_=Report.created_at < at)
            )
        return await self._all(newest)

    async def dismiss(self, report: Report) -> None:
        """The picture stays."""
        report.status, report.decided_at = "dismissed", present()
        await self._session.flush()
        await self._session.refresh(report)

    async def taken_down(self, image: Image, by: str) -> None:
        """Its reports are decided; without one, there is one of whoever took it down."""
        of_image = (Report.image_id == image.id,)
        decided = {"status": "taken_down", "decided_at": present()}
        if not await self._changed(update(Report).where(*of_image).values(decided)):
            made = await self._add(image, "", by, "taken_down")
            made.decided_at = made.created_at
            await self._session.flush()

    async def was_taken_down(self, tenant: str, image_id: str, user_pk: str | None) -> bool:
        """Whether the tenant (this person of it) had such a picture, and an operator took it."""
        if not ID.fullmatch(image_id):
            return False
        its = exists().where(Report.image_id == image_id, Report.tenant == tenant)
        its = its.where(Report.status == "taken_down")
        if user_pk is not None:
            its = its.where(Report.user_pk == user_pk)
        return bool(await self._session.scalar(select(its)))

    async def of_user(self, user_pk: str) -> Sequence[Report]:
        """Reports of a person's pictures, oldest first."""
        its = select(Report).where(Report.user_pk == user_pk)
        return await self._all(its.order_by(Report.created_at, Report.id))

    async def _add(self, image: Image, reason: str, by: str, status: str) -> Report:
        report = Report(
            tenant=image.tenant,
            image_id=image.id,
            job_id=image.job_id,
            user_pk=image.user_pk,
            reason=reason,
            reported_by=by,
            status=status,
        )
        self._session.add(report)
        await self._session.flush()
        await self._session.refresh(report)
        return report
