"""Everything held about a person, as JSON text, in pieces: it may be more than memory holds."""

import base64
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from typing import Any

from service.actions.conditioning import taste_told
from service.core.errors import CODES
from service.core.pool import Pool
from service.infra.parts import Parts
from service.infra.sql.store import Store
from service.infra.sql.tables import Choice, Image, Job, Profile, User

_BATCH = 500


async def export_person(parts: Parts, user: User) -> AsyncIterator[str]:
    """One JSON object. Pictures are named by URL, with their SHA-256.

    Answers and versions of named tastes stand under `tastes`. Blends that used the person's taste
    are in it; the others who were in them are not named. Each piece is read on its own, so that a
    slow reader holds up nobody: of a person who is erased meanwhile the rest is missing.
    """
    yield f'{{"user_id": {_json(user.user_id)}, "created_at": {_json(user.created_at)}'
    yield f', "contributes_since": {_json(user.contributes_since)}'
    async with parts.database.read() as store:
        tastes = [
            await _taste(store, parts.pool, one) for one in await store.users.tastes_of(user.pk)
        ]
        shares = await store.taste_shares.of(user.pk)
        blind = await store.blind_choices.of_user(user.pk)
        requests = await store.idempotency.of_user(user.pk)
        reports = await store.reports.of_user(user.pk)
        job_ids = await store.jobs.ids_of_user(user.pk)
        image_ids = await store.images.ids_of_user(user.pk)
    for name in ("choices", "profiles"):  # of the first taste, as if there were no other
        yield _section(name, tastes[0][name] if tastes else [])
    yield _section("tastes", tastes[1:])
    yield _section(
        "blind_choices", [one.columns("adapter_version", "won", "created_at") for one in blind]
    )
    yield _section(
        "shares", [{"taste": of, **one.columns("id", "created_at")} for one, of in shares]
    )
    yield _section(
        "idempotency_keys", [one.columns("key", "job_id", "created_at") for one in requests]
    )
    yield _section(
        "reports",
        [one.columns("id", "image_id", "reason", "status", "created_at") for one in reports],
    )
    yield ', "jobs": ['
    async for piece in _listed(parts, user, job_ids, _jobs):
        yield piece
    yield '], "images": ['
    async for piece in _listed(parts, user, image_ids, _images):
        yield piece
    yield "]}"


async def _listed(parts: Parts, user: User, ids: Sequence[str], read: Any) -> AsyncIterator[str]:
    """The entries of a list, a few hundred per piece."""
    separator = ""
    for batch in _batches(ids):
        async with parts.database.read() as store:
            entries = await read(store, user, batch)
        if entries:
            yield separator + ", ".join(map(_json, entries))
            separator = ", "


async def _jobs(store: Store, user: User, ids: Sequence[str]) -> list[dict[str, Any]]:
    jobs = await store.jobs.by_id(ids)
    uses: dict[str, list[dict[str, Any]]] = {}
    for job_id, weight, version, taste in await store.jobs.uses_of(user.pk, ids):
        use = {"weight": weight, "pinned_profile_version": version, **taste_told(taste)}
        uses.setdefault(job_id, []).append(use)
    return [
        _job(jobs[job_id], user.user_id, uses.get(job_id, [])) for job_id in ids if job_id in jobs
    ]


async def _images(store: Store, _: User, ids: Sequence[str]) -> list[dict[str, Any]]:
    images = await store.images.by_id(ids)
    return [_image(images[image_id]) for image_id in ids if image_id in images]


async def _taste(store: Store, pool: Pool, taste: User) -> dict[str, Any]:
    answers = await store.choices.of(taste.pk)
    profiles = await store.profiles.of(taste.pk)
    return {
        **taste.columns("taste", "created_at", "answers_since"),
        "choices": [_choice(pool, answer) for answer in answers],
        "profiles": [_profile(profile) for profile in profiles],
    }


def _choice(pool: Pool, choice: Choice) -> dict[str, Any]:
    return {
        **choice.columns("pair_id", "caption", "preferred", "created_at"),
        "images": pool.picture_urls(choice.pair_id, (choice.image_0_id, choice.image_1_id)),
        "shown_swapped": choice.swapped,
        "made": choice.made,
        "against": choice.against,
    }


def _profile(profile: Profile) -> dict[str, Any]:
    embedding = profile.embedding
    return {
        **profile.columns("version", "source", "status", "text", "confidence", "seed"),
        **profile.columns("encoder_version", "created_at"),
        "likes": profile.likes or [],
        "dislikes": profile.dislikes or [],
        "read_from": profile.choices,
        "embedding_float32_le_base64": embedding and base64.b64encode(embedding).decode(),
    }


def _job(job: Job, user_id: str, uses: list[dict[str, Any]]) -> dict[str, Any]:
    entry = {
        **job.columns("id", "kind", "status", "seq", "created_at", "started_at", "finished_at"),
        "request": _without_others(job.request, user_id),
        "uses": uses,
    }
    if job.result is not None:
        entry["result"] = _without_others(job.result, user_id)
    if job.error_code is not None:
        detail = job.error_detail or CODES.get(job.error_code, "")
        entry["error"] = {"code": job.error_code, "detail": detail}
    return entry


def _image(image: Image) -> dict[str, Any]:
    return {
        **image.columns("id", "kind", "sha256", "width_px", "height_px", "job_id", "created_at"),
        "url": f"/images/{image.id}",
    }


def _without_others(value: Any, user_id: str) -> Any:
    """The same, with null in the place of every other person's id and profile version."""
    if isinstance(value, list):
        return [_without_others(item, user_id) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("user_id", user_id) != user_id:
        return {"user_id": None, "profile_version": None}
    return {
        name: [one if one == user_id else None for one in item]
        if name == "user_ids"
        else _without_others(item, user_id)
        for name, item in value.items()
    }


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]


def _section(name: str, entries: list[dict[str, Any]]) -> str:
    return f', "{name}": {_json(entries)}'


def _json(value: Any) -> str:
    return json.dumps(value, default=_time, allow_nan=False)


def _time(value: Any) -> str:
    assert isinstance(value, datetime), value
    return value.isoformat()
