"""Answers between two pictures that the service made: which they are, and what made them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ppd_model.pictures.reading import PictureError
from service.actions.gate import place_of
from service.api.image_lookup import seen_image, stored_bytes
from service.api.schemas import PreferencesIn
from service.api.services import Services
from service.api.uploads import read_in_turn, refuse_too_many
from service.core.auth import Caller
from service.core.errors import FieldError, ServiceError
from service.infra.sql.store import Store
from service.infra.sql.tables import Image, Job

LONGEST_CAPTION = 300


@dataclass(frozen=True)
class MadePair:
    """Two pictures of one prompt, as plain PNGs, and what is remembered of how they were made.

    `made`: `image_ids`; `personal`, the index of the picture in this person's taste where the
    other is in nobody's, else null; the `adapter_version` of that one; `blind`.
    """

    caption: str
    pictures: list[bytes]
    made: dict[str, Any]


async def made_pairs(
    services: Services, caller: Caller, user_id: str, body: PreferencesIn
) -> list[MadePair | None]:
    """For each answer the pictures that it is between, where the service made them.

    The bytes are copied: the answer outlives the jobs. Raises 404 for a picture that the caller
    may not see, 422 (`not_one_prompt`) where two are no pair, 503 where one cannot be read.
    """
    found: list[MadePair | None] = []
    asked = sum(choice.image_ids is not None for choice in body.choices)
    if not asked:
        return [None] * len(body.choices)
    await refuse_too_many(services, caller, user_id, 2 * asked)
    path = place_of(caller, user_id)
    for i, choice in enumerate(body.choices):
        if choice.image_ids is None:
            found.append(None)
            continue
        async with services.database.read() as store:
            images = [await seen_image(store, caller, image_id) for image_id in choice.image_ids]
            jobs = [await _job(store, image) for image in images]
        if None in jobs or len({job.request.get("prompt") for job in jobs if job}) != 1:
            fault = FieldError(f"/choices/{i}/image_ids", "are not two pictures of one prompt")
            raise ServiceError(422, "not_one_prompt", errors=(fault,))
        files = [await stored_bytes(services, image) for image in images]
        with services.gate.request_with_pictures(path):
            pictures = _readable(await read_in_turn(services, path, files))
        made_by = [job for job in jobs if job is not None]
        found.append(
            MadePair(
                made_by[0].request["prompt"][:LONGEST_CAPTION],
                pictures,
                {
                    "image_ids": list(choice.image_ids),
                    **_proof(made_by),
                    "blind": choice.blind,
                },
            )
        )
    return found


async def _job(store: Store, image: Image) -> Job | None:
    """The job that made a picture and has told so."""
    job = await store.jobs.get(image.job_id) if image.job_id is not None else None
    return job if job is not None and job.result is not None else None


def _proof(jobs: Sequence[Job]) -> dict[str, Any]:
    results: list[dict[str, Any]] = [job.result or {} for job in jobs]
    applied = [bool(result.get("personalization_applied")) for result in results]
    personal = applied.index(True) if sum(applied) == 1 else None
    version = None if personal is None else results[personal].get("adapter_version")
    return {"personal": personal, "adapter_version": version}


def _readable(outcomes: Sequence[bytes | PictureError]) -> list[bytes]:
    """All of them: they are pictures of our own."""
    plain = [outcome for outcome in outcomes if not isinstance(outcome, PictureError)]
    if len(plain) != len(outcomes):
        raise ServiceError(503, "storage", "A picture could not be read.")
    return plain
