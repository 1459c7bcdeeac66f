"""What a job does, between the database and the model. Running one twice is harmless."""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ppd_model.pictures.origin import Origin
from ppd_model.pictures.reading import KEPT, read_picture
from ppd_model.pictures.writing import DEFAULT_QUALITY, KINDS, Format, encoded
from ppd_model.types import Embedding, EncodedUser, Generated, ImageRequest, LabelledPair
from service.actions.conditioning import Tastes, echo, tastes_named, tastes_of
from service.actions.equal_requests import earlier_result, waited, wanted_by
from service.actions.leftovers import delete_leftovers
from service.actions.moderating import refuse_made
from service.actions.words import not_read
from service.core import embeddings
from service.core.choices import is_liked, reading_seed, reading_sha256, sets_of
from service.core.errors import JobCanceled, JobFailure, StorageFull
from service.core.fairness import spenders
from service.core.foretold import expected_reading
from service.core.generation import blend
from service.core.likes import Features, by_caption, by_picture, picture_against, pictures_of
from service.core.messages import JobEvent, preview_event, step_event
from service.core.ports import AdapterFile, EmbeddingKey, ModelRuntime, Preview, Usage, Versions
from service.core.turns import path_of
from service.infra.adapters import AdapterCopies
from service.infra.parts import Parts
from service.infra.pictures.keys import generated_key
from service.infra.pictures.verified import read_verified
from service.infra.sql.jobs.generations import Subject
from service.infra.sql.store import Store
from service.infra.sql.tables import Adapter, Image, Job, JobSubject, Profile, new_id, now
from service.worker.presence import MeasuredPace
from service.worker.previews import Previews

log = logging.getLogger("ppd.worker")

UNREADABLE = {"encoder_invalid", "nothing_read"}
"""Failures that are of one set of answers, not of a text or of the machine."""


@dataclass(frozen=True, kw_only=True)
class Tools(Parts):
    """What the handlers work with."""

    runtime: ModelRuntime
    adapters: AdapterCopies
    pace: MeasuredPace
    in_model_thread: Callable[..., Awaitable[Any]]
    """Runs a function in the one thread that may touch the model."""
    in_picture_thread: Callable[..., Awaitable[Any]]
    """Runs a function in one of those that may make pictures."""
    _pool_features: list[Features] = field(default_factory=list)
    """Once they were asked for."""

    async def pool_features(self) -> Features:
        """What the encoder sees of the pool's pictures, computed when it is first needed."""
        if not self._pool_features:
            paths = [self.pool.image_path(image) for _, image in pictures_of(self.pool)]
            files = await asyncio.to_thread(lambda: [path.read_bytes() for path in paths])
            pictures = [read_picture(file, KEPT) for file in files]
            seen = [await self.in_model_thread(self.runtime.features, [one]) for one in pictures]
            self._pool_features.append(np.concatenate(seen))
        return self._pool_features[0]


async def encode(tools: Tools, versions: Versions, job: Job, cancelled: Callable[[], bool]) -> bool:
    """Read answers, a text, or both into a profile version. False when the job is not ours.

    The reading of a set cannot be stopped once it has begun.
    """
    assert job.profile_pk is not None
    async with tools.database.read() as store:
        profile = await store.profiles.get(job.profile_pk)
        if profile is None:
            return False
    worked_s, read_now = 0.0, 0

    def in_thread(pairs: list[LabelledPair], seed: int) -> EncodedUser:
        nonlocal worked_s, read_now
        began = time.monotonic()
        try:
            return tools.runtime.encode(pairs, seed, profile.given_text)
        finally:
            worked_s += time.monotonic() - began
            read_now += 1

    try:
        made = await _readings(
            tools, versions.encoder_version, job.tenant, profile, in_thread, cancelled
        )
    finally:
        if worked_s:
            accounts = spenders(job.tenant, job.lane, job.user_pk)
            await tools.rates.charge_gpu_seconds(accounts, worked_s)
    expected = None
    if profile.given_text is None:  # a person's own words are what the readings say of them
        expected = expected_reading(tools.pool, profile.choices, versions.encoder_version)
    tastes, weights = [one.taste for one in made], [one.weight for one in made]
    taste = await tools.in_model_thread(partial(tools.runtime.joined, tastes, weights, expected))
    if len(made) > 1:  # one alone is there as it was read
        await tools.cache.put(_key(job.tenant, profile, versions.encoder_version), taste)
    values = {
        "text": taste.profile,
        "likes": taste.likes,
        "dislikes": taste.dislikes,
        "unread": taste.unread,
        "confidence": min(1.0, max(0.0, float(taste.confidence))),
        "embedding": embeddings.to_bytes(taste.user_emb_D),
        "encoder_version": versions.encoder_version,
        "answers_used": _answers_of(made),
        "ready_at": now(),
    }
    async with tools.database.write() as store:
        result = {"profile_version": profile.version, "encoder_version": versions.encoder_version}
        if not await store.users.hold_pk(profile.user_pk):  # the person first, as everywhere
            return False
        if not await store.claims.finish(job.id, job.attempt, "succeeded", result=result):
            return False
        if await store.profiles.finish(profile.pk, "ready", **values):
            kept = {one.sha256: one.taste for one in made}
            await store.readings.keep(profile.user_pk, versions.encoder_version, kept)
    if worked_s:
        tools.pace.read(read_now, worked_s)
    assert job.started_at is not None
    queue_s = (job.started_at - job.created_at).total_seconds()
    tools.metrics.encoded(versions.encoder_version, queue_s, worked_s)
    return True


@dataclass(frozen=True)
class _Made:
    """What one set of answers was read as."""

    choices: Sequence[dict[str, Any]]
    sha256: str
    weight: float
    taste: EncodedUser


def _answers_of(made: Sequence[_Made]) -> int:
    """How many answers were read; some are in two sets."""
    return len({id(choice) for one in made for choice in one.choices})


async def _readings(
    tools: Tools,
    encoder_version: str,
    tenant: str,
    profile: Profile,
    in_thread: Callable[[list[LabelledPair], int], EncodedUser],
    cancelled: Callable[[], bool],
) -> list[_Made]:
    """Every set of the version's answers, read now unless it was read before.

    A set that the encoder can make nothing of is left out as long as there are others. Raises
    JobFailure where it can of none, JobCanceled between two sets.
    """
    weight_of = {
        reading_sha256(choices, profile.given_text): (choices, weight)
        for choices, weight in sets_of(profile.choices)
    }
    async with tools.database.read() as store:
        known = await store.readings.of(profile.user_pk, encoder_version, list(weight_of))
        uploads = await _uploads(store, profile)
        liked = {choice["image_ids"][0] for choice in profile.choices if is_liked(choice)}
        against = await store.choices.against(liked)
    made: list[_Made] = []
    failed: JobFailure | None = None
    for sha256, (choices, weight) in weight_of.items():
        if cancelled():
            raise JobCanceled
        was_kept = True

        async def read(of: Sequence[dict[str, Any]] = choices) -> EncodedUser:
            nonlocal was_kept
            was_kept = False
            await _set_against(tools, uploads, [one for one in of if is_liked(one)], against)
            pairs = [await _labelled_pair(tools, uploads, choice, against) for choice in of]
            seed = reading_seed(of, profile.given_text)
            taste: EncodedUser = await tools.in_model_thread(partial(in_thread, pairs, seed))
            _check(taste, profile.given_text)
            return taste

        key = EmbeddingKey(tenant, profile.user_pk, encoder_version, sha256)
        try:
            taste = known.get(sha256) or await tools.cache.once(key, read)
            made.append(_Made(choices, sha256, weight, taste))
        except JobFailure as failure:
            if failure.code not in UNREADABLE:
                raise
            failed = failure
            log.warning("a set of answers of profile %s was not read: %s", profile.pk, failure.code)
        finally:
            tools.metrics.cache_lookup(found=was_kept)
    if not made:
        assert failed is not None
        raise failed
    return made


async def generate(
    tools: Tools, versions: Versions, job: Job, cancelled: Callable[[], bool]
) -> bool:
    """Make the pictures of a job. False when the job is not ours any more.

    `cancelled` is also called from the model's threads.
    """
    assert job.started_at is not None
    request = job.request
    async with tools.database.read() as store:
        wanted = await wanted_by(store, job)
        if _taste_is_gone(request, wanted.subjects):
            raise JobFailure("taste_gone")
        tastes = await tastes_of(store, versions, request, wanted.subjects)
    if job.request_sha256 is not None:
        again = await earlier_result(tools, versions, wanted)
        if again is not None:
            return await _give_again(tools, job, waited(again, job))
    user_emb_D = await _blended(tools, job.tenant, tastes, wanted.subjects)
    pinned = None if versions.adapter_overrides else await _pinned_adapter(tools, job)
    loop = asyncio.get_running_loop()

    def tell(event: JobEvent) -> None:
        if not cancelled():  # its memory may have been erased
            tools.events.publish(job.id, event)

    def on_step(done: int, total: int) -> None:
        loop.call_soon_threadsafe(tell, step_event(job.attempt, done, total))

    def show(preview: Preview, image: str) -> None:
        if tools.moderation.look_at("picture"):  # nobody has judged this one
            return
        tell(preview_event(job.attempt, preview.index, preview.done, preview.total, image))

    one_each = [_image_request(request, user_emb_D, i) for i in range(request["n"])]

    async def make(adapter: AdapterFile | None) -> list[Generated]:
        owner = "/".join(path_of(job.tenant, job.lane, job.user_pk))
        generate = partial(tools.runtime.generate, adapter=adapter, owner=owner)
        async with Previews(show) as previews:
            made: list[Generated] = await tools.in_picture_thread(
                generate, one_each, on_step, cancelled, previews.offer
            )
        return made

    pictures = await _with_adapter(tools, pinned, make)
    adapter_version = versions.adapter_version if pinned is None else pinned.version
    assert versions.model is not None, "who makes pictures has a model"
    origin = _origin(request, versions.model, adapter_version, tastes)
    images, data = await asyncio.to_thread(_encode_all, tools, job, pictures, origin)
    await refuse_made(tools, job, data, KINDS[request.get("format", "png")].media_type)
    result = {
        "images": [
            {"url": f"/images/{image.id}", "seed": picture.seed}
            for image, picture in zip(images, pictures, strict=True)
        ],
        "model": versions.model,
        "adapter_version": adapter_version,
        "encoder_version": versions.encoder_version,
        **echo(request, tastes),
        **await _warnings(tools, request),
        "usage": await _usage(tools, one_each),
        "cached": False,
        "timings": {
            "queue_s": round(
                (job.started_at - job.created_at).total_seconds()
                + max(p.queue_s for p in pictures),
                4,
            ),
            "denoise_s": round(sum(p.denoise_s for p in pictures), 4),
            "decode_s": round(sum(p.decode_s for p in pictures), 4),
        },
    }
    keys = [image.key for image in images]
    try:
        await _store(tools, images, data)
        async with tools.database.write() as store:
            # The person first, as everywhere: the pictures' rows refer to them, and an erasure that
            # has them already waits for the job's row.
            held = job.user_pk is None or await store.users.hold_pk(job.user_pk)
            published = held and await store.claims.finish(
                job.id, job.attempt, "succeeded", result=result
            )
            if published:
                await store.images.add(images)
    except Exception:  # no cancellation: it may come after the commit, and has no time to look
        await delete_leftovers(tools, keys)
        raise
    if not published:
        await delete_leftovers(tools, keys)
        return False
    tools.metrics.generated(result)
    worked_s = sum((p.denoise_s + p.decode_s) / (1 + p.shared_with) for p in pictures)
    tools.pace.made(request["n"] * request["steps"], worked_s)
    await tools.rates.charge_gpu_seconds(spenders(job.tenant, job.lane, job.user_pk), worked_s)
    return True


def _taste_is_gone(request: Mapping[str, Any], subjects: Sequence[Subject | JobSubject]) -> bool:
    """Whether one was deleted since: another's with its subject, one's own with the version.

    Where none was pinned from the beginning the request says the reason.
    """
    if len(subjects) < len(tastes_named(request)):
        return True
    return request["reason"] is None and any(one.profile_pk is None for one in subjects)


async def _give_again(tools: Tools, job: Job, result: dict[str, Any]) -> bool:
    """End a job with pictures that were made for an equal one."""
    async with tools.database.write() as store:
        ours = await store.claims.finish(job.id, job.attempt, "succeeded", result=result)
    if ours:
        tools.metrics.answered_again(result)
    return ours


async def _store(tools: Tools, images: list[Image], data: list[bytes]) -> None:
    try:
        for image, file in zip(images, data, strict=True):
            await tools.images.put(image.key, file)
    except StorageFull as error:
        raise JobFailure("storage_full") from error
    except OSError as error:
        log.exception("a picture could not be stored")
        raise JobFailure("storage", "A picture could not be stored.") from error


def _origin(
    request: dict[str, Any], model: str, adapter_version: str | None, tastes: Tastes
) -> Origin:
    """What the files of a request's pictures say of themselves, but for each one's seed."""
    return Origin(
        seed=request["seed"],
        model=model,
        adapter_version=adapter_version if tastes.applied else None,
        profile_versions=tuple(profile.version for profile, _ in tastes.used),
        prompt=request["prompt"] if request.get("embed_prompt") else None,
    )


def _encode_all(
    tools: Tools, job: Job, pictures: list[Generated], origin: Origin
) -> tuple[list[Image], list[bytes]]:
    """Rows and files. A job that was queued before formats could be named has PNGs."""
    format: Format = job.request.get("format", "png")
    quality: int = job.request.get("quality", DEFAULT_QUALITY)
    images, data = [], []
    for position, picture in enumerate(pictures):
        file = _file(tools, picture, format, quality, replace(origin, seed=picture.seed))
        height_px, width_px = picture.image_HWC.shape[:2]
        sha256 = hashlib.sha256(file).hexdigest()
        data.append(file)
        images.append(
            Image(
                id=new_id(),
                tenant=job.tenant,
                user_pk=job.user_pk,
                job_id=job.id,
                kind="generated",
                position=position,
                key=generated_key(job.id, job.attempt, position, sha256, format),
                sha256=sha256,
                size_bytes=len(file),
                width_px=width_px,
                height_px=height_px,
            )
        )
    return images, data


def _file(tools: Tools, picture: Generated, format: Format, quality: int, origin: Origin) -> bytes:
    """A picture's file, which says its origin, signed where pictures are."""
    file = encoded(picture.image, format, quality, origin)
    if tools.signer is None:
        return file
    try:
        return tools.signer.signed(file, format, origin)
    except OSError as error:
        log.error("%s", error)
        raise JobFailure("signing") from error


async def _usage(tools: Tools, requests: list[ImageRequest]) -> dict[str, int]:
    """What the model read of the prompt, and how much of a picture it made in all."""
    each: Usage = await tools.in_picture_thread(tools.runtime.usage, requests[0])
    made = each.latent_tokens * len(requests)
    return {"text_tokens": each.text_tokens, "latent_tokens": made}


async def _warnings(tools: Tools, request: Mapping[str, Any]) -> dict[str, Any]:
    """What the client should know about its words; mostly nothing."""
    runtime = tools.runtime

    def in_thread() -> list[dict[str, Any]]:
        fields = ("prompt", "negative_prompt") if request["guidance_scale"] > 1 else ("prompt",)
        return [
            warning
            for field in fields
            for text in [request[field]]
            for warning in not_read(field, text, runtime.unread(text), runtime.unknown_words(text))
        ]

    warnings = await tools.in_picture_thread(in_thread)
    return {"warnings": warnings} if warnings else {}


async def _pinned_adapter(tools: Tools, job: Job) -> Adapter | None:
    """The adapter that was in service when the job came; None is the one shipped."""
    if job.adapter_version is None:
        return None
    async with tools.database.read() as store:
        adapter = await store.adapters.get(job.adapter_version)
    if adapter is None:
        detail = f"Adapter {job.adapter_version} is kept no more."
        raise JobFailure("adapter_unavailable", detail)
    return adapter


async def _with_adapter(
    tools: Tools,
    adapter: Adapter | None,
    make: Callable[[AdapterFile | None], Awaitable[list[Generated]]],
) -> list[Generated]:
    """Pictures made with this adapter; if its copy here was damaged, with another copy."""
    if adapter is None:
        return await make(None)
    with _bytes_of(adapter):
        file = await tools.adapters.fetch(adapter)
    try:
        return await make(file)
    except JobFailure as failure:
        if failure.code != "adapter_unavailable":
            raise
        with _bytes_of(adapter):
            was_damaged = await tools.adapters.repair(adapter)
        if not was_damaged:
            raise
    log.warning("the copy of adapter %s here was damaged; it is replaced", adapter.version)
    return await make(file)


@contextlib.contextmanager
def _bytes_of(adapter: Adapter) -> Iterator[None]:
    """Raises JobFailure for whatever keeps the adapter's bytes from being had."""
    try:
        yield
    except (OSError, ValueError) as error:
        log.exception("the bytes of adapter %s cannot be had", adapter.version)
        detail = f"The bytes of adapter {adapter.version} cannot be had."
        raise JobFailure("adapter_unavailable", detail) from error


def _image_request(
    request: dict[str, Any], user_emb_D: Embedding | None, index: int
) -> ImageRequest:
    return ImageRequest(
        prompt=request["prompt"],
        seed=request["seed"] + index,
        user_emb_D=user_emb_D,
        strength=request["strength"],
        negative_prompt=request["negative_prompt"],
        steps=request["steps"],
        guidance_scale=request["guidance_scale"],
        width_px=request["width"],
        height_px=request["height"],
        # A job of an earlier version names neither; its steps were those of the preset of then.
        solver=request.get("solver", "ddpm"),
        guidance_interval=tuple(request.get("guidance_interval", (0.0, 1.0))),
    )


async def _blended(
    tools: Tools, tenant: str, tastes: Tastes, subjects: Sequence[Subject | JobSubject]
) -> Embedding | None:
    """The embedding that these tastes come to together; None where there are none.

    One that is shared is not cached: erased, its person is forgotten under their own tenant alone.
    """
    if not tastes.applied:
        return None
    parts = []
    for (used, weight), subject in zip(tastes.used, subjects, strict=True):
        assert used.embedding is not None
        if subject.shared:
            parts.append((embeddings.from_bytes(used.embedding), weight))
        else:
            parts.append((await _embedding(tools, tenant, used), weight))
    return blend(parts)


async def _embedding(tools: Tools, tenant: str, profile: Profile) -> Embedding:
    """From the cache, else from the database."""
    assert profile.encoder_version is not None
    assert profile.embedding is not None
    assert profile.text is not None
    assert profile.confidence is not None
    key = _key(tenant, profile, profile.encoder_version)
    cached = await tools.cache.get(key)
    tools.metrics.cache_lookup(found=cached is not None)
    if cached is not None:
        return cached.user_emb_D
    user_emb_D = embeddings.from_bytes(profile.embedding)
    likes, dislikes = profile.likes or [], profile.dislikes or []
    taste = EncodedUser(
        profile.text, "", user_emb_D, profile.confidence, likes, dislikes, profile.unread or []
    )
    await tools.cache.put(key, taste)
    return user_emb_D


def _key(tenant: str, profile: Profile, encoder_version: str) -> EmbeddingKey:
    read = reading_sha256(profile.choices, profile.given_text)
    return EmbeddingKey(tenant, profile.user_pk, encoder_version, read)


def _check(taste: EncodedUser, given: str | None) -> None:
    """Refuse what would poison every later picture."""
    emb_D = taste.user_emb_D
    if emb_D.ndim != 1 or not np.isfinite(emb_D).all() or not np.linalg.norm(emb_D) > 0:
        raise JobFailure("encoder_invalid")
    if given is None and not any(character.isalpha() for character in taste.profile):
        raise JobFailure("nothing_read")
    written = [taste.profile, *taste.likes, *taste.dislikes, *taste.unread]
    if "\0" in "".join(written):  # no database keeps it
        raise JobFailure("encoder_invalid", "The encoder gave a profile with a NUL in it.")


async def _uploads(store: Store, profile: Profile) -> dict[str, Image]:
    ids = [i for choice in profile.choices for i in choice["image_ids"] if i is not None]
    return await store.images.by_id(ids)


async def _set_against(
    tools: Tools,
    uploads: dict[str, Image],
    liked: Sequence[dict[str, Any]],
    against: dict[str, dict[str, Any]],
) -> None:
    """Find for each liked picture one of the pool's, unless there is one; it stays that one."""
    found: dict[str, dict[str, Any]] = {}
    for choice in liked:
        image_id = choice["image_ids"][0]
        if image_id in against or image_id not in uploads:
            continue
        one = by_caption(tools.pool, choice["caption"], image_id)
        if one is None:
            picture = read_picture(await _stored(tools, uploads[image_id]), KEPT)
            seen_1F = await tools.in_model_thread(partial(tools.runtime.features, [picture]))
            pool_NF = await tools.pool_features()
            one = by_picture(tools.pool, pool_NF, seen_1F[0], image_id)
        found[image_id] = one.row
    if found:
        async with tools.database.write() as store:
            await store.choices.set_against(found)
        against.update(found)


async def _stored(tools: Tools, image: Image) -> bytes:
    try:
        return await read_verified(tools.images, image)
    except OSError as error:
        log.exception("a picture of a choice could not be read")
        raise JobFailure("storage") from error


async def _labelled_pair(
    tools: Tools,
    uploads: dict[str, Image],
    choice: dict[str, Any],
    against: Mapping[str, dict[str, Any]],
) -> LabelledPair:
    if is_liked(choice):
        return await _liked_pair(tools, uploads, choice, against)
    try:
        data = await _pictures(tools, uploads, choice)
    except OSError as error:
        log.exception("a picture of a choice could not be read")
        raise JobFailure("storage") from error
    first, second = (read_picture(one, KEPT) for one in data)
    return LabelledPair(choice["caption"], first, second, choice["preferred"])


async def _liked_pair(
    tools: Tools,
    uploads: dict[str, Image],
    choice: dict[str, Any],
    against: Mapping[str, dict[str, Any]],
) -> LabelledPair:
    """What is liked, and the picture of the pool that it is set against, under its caption."""
    image_id = choice["image_ids"][0]
    if image_id not in uploads:
        raise JobFailure("storage", "A picture of a choice was removed.")
    found = picture_against(tools.pool, against[image_id])
    if found is None:
        raise JobFailure("pair_not_found")
    caption, other = found
    own = read_picture(await _stored(tools, uploads[image_id]), KEPT)
    data = await asyncio.to_thread(tools.pool.image_path(other).read_bytes)
    return LabelledPair(caption, own, read_picture(data, KEPT), choice["preferred"])


async def _pictures(tools: Tools, uploads: dict[str, Image], choice: dict[str, Any]) -> list[bytes]:
    """Both pictures' bytes, from the pool or from the image store."""
    if choice["pair_id"] is None:
        if not uploads.keys() >= set(choice["image_ids"]):
            raise JobFailure("storage", "A picture of a choice was removed.")
        return [await read_verified(tools.images, uploads[i]) for i in choice["image_ids"]]
    pair = tools.pool.get(choice["pair_id"])
    if pair is None:
        raise JobFailure("pair_not_found")
    paths = [tools.pool.image_path(image) for image in pair.images]
    return [await asyncio.to_thread(path.read_bytes) for path in paths]
