"""An operator's decision on a picture that was reported: it goes, or it stays."""

from service.actions.leftovers import delete_soon
from service.core.errors import ServiceError
from service.infra.parts import Parts
from service.infra.sql.store import Store
from service.infra.sql.tables import Image, Report


async def take_down_reported(store: Store, report_id: str, who: str) -> list[str]:
    """Take the reported picture away; the key of its bytes, for `settle`.

    Raises 404 for no such report, or where the picture is gone by itself, 409 for one that was
    taken down before.
    """
    report = await _decidable(store, report_id, ("open", "dismissed"))
    keys = await take_down(store, report.image_id, who)
    if not keys:
        raise ServiceError(404, "image_not_found", "The picture is gone: erased, or its time over.")
    return keys


async def take_down(store: Store, image_id: str, who: str) -> list[str]:
    """Take any picture away, reported or not; the key of its bytes, none where there is none.

    Its row goes, its bytes are noted to go, and no equal request is given it any more.
    """
    image = await store.images.get(image_id)
    if image is None:
        return []
    await store.reports.taken_down(image, who)
    await store.audit.note(who, "picture.taken_down", f"picture:{image.id}", image.tenant)
    await store.deletions.note(Image.id == image.id)
    await store.session.delete(image)
    await store.session.flush()
    return [image.key]


async def dismiss(store: Store, report_id: str, who: str) -> Report:
    """The picture stays. Raises 404 for no such report, 409 for one that was decided on."""
    report = await _decidable(store, report_id, ("open",))
    await store.reports.dismiss(report)
    await store.audit.note(who, "report.dismissed", f"report:{report.id}", report.tenant)
    return report


async def settle(parts: Parts, keys: list[str]) -> None:
    """After the commit: delete the bytes; what cannot be deleted now goes later."""
    if keys:
        await delete_soon(parts, keys)
        await parts.database.scrub()


async def _decidable(store: Store, report_id: str, states: tuple[str, ...]) -> Report:
    report = await store.reports.get(report_id, lock=True)
    if report is None:
        raise ServiceError(404, "report_not_found")
    if report.status not in states:
        raise ServiceError(409, "report_decided", f"The report is {report.status} already.")
    return report
