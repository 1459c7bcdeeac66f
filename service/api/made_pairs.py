"""Answers between two pictures that the service made: which they are, and what made them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.actions.conditioning import taste_told, tastes_named
from service.api.image_lookup import in_format, seen_image, stored_bytes
from service.api.schemas import PreferencesIn
from service.api.services import Services
from service.api.uploads import refuse_too_many
from service.core.auth import Caller, person_of, taste_of
from service.core.equal_requests import differ_in_taste_alone
from service.core.errors import FieldError, ServiceError
from service.infra.pictures.keys import format_of
from service.infra.sql.store import Store
from service.infra.sql.tables import BlindChoice, Choice, Image, Job

LONGEST_CAPTION = 300


@dataclass(frozen=True)
class Proof:
    """Which of two pictures is in this person's taste, where the other is the same in nobody's.

    What made it, and what its job was pinned to; None is the adapter that was shipped.
    """

    personal: int
    adapter_version: str
    pinned_version: str | None


@dataclass(frozen=True)
class MadePair:
    """Two pictures of one prompt, as PNGs, and what is remembered of how they were made.

    `made`: `image_ids`; `personal` and `adapter_version` of the proof, else null; `blind`.
    """

    caption: str
    pictures: list[bytes]
    made: dict[str, Any]
    proof: Proof | None

    def blind_choice(self, choice: Choice, person_pk: str) -> BlindChoice | None:
        """What this answer says of an adapter; None where it was not given blind, or says nothing.

        `choice` is the row of the two pictures, which it may have in the other order. Whoever first
        answered it knowing which is which is not asked blind again.
        """
        assert choice.made is not None
        if self.proof is None or not (self.made["blind"] and choice.made["blind"]):
            return None
        won = None
        if choice.preferred is not None:
            preferred = choice.made["image_ids"][choice.preferred]
            won = preferred == self.made["image_ids"][self.proof.personal]
        return BlindChoice(
            user_pk=person_pk,
            choice_pk=choice.pk,
            adapter_version=self.proof.adapter_version,
            pinned_version=self.proof.pinned_version,
            won=won,
        )


async def made_pairs(
    services: Services, caller: Caller, name: str, body: PreferencesIn
) -> list[MadePair | None]:
    """For each answer the pictures that it is between, where the service made them.

    `name`: of the taste that is to learn from it.

    The files are copied, with what they say of their making: the answer outlives the jobs. Raises
    404 for a picture that is another person's, or in another's taste too and goes when they do, 422
    (`not_one_prompt`) where two are no pair, 503 where one cannot be read.
    """
    found: list[MadePair | None] = []
    asked = sum(choice.image_ids is not None for choice in body.choices)
    if not asked:
        return [None] * len(body.choices)
    await refuse_too_many(services, caller, person_of(name), 2 * asked)
    for i, choice in enumerate(body.choices):
        if choice.image_ids is None:
            found.append(None)
            continue
        async with services.database.read() as store:
            user = await store.users.find(caller.tenant, person_of(name))
            user_pk = None if user is None else user.pk
            images = [await seen_image(store, caller, image_id) for image_id in choice.image_ids]
            if any(image.user_pk not in (user_pk, None) for image in images):
                raise ServiceError(404, "image_not_found")
            jobs = [await _job(store, image) for image in images]
        if any(_uses_others(job, person_of(name)) for job in jobs if job is not None):
            raise ServiceError(404, "image_not_found")
        if None in jobs or len({job.request.get("prompt") for job in jobs if job}) != 1:
            fault = FieldError(f"/choices/{i}/image_ids", "are not two pictures of one prompt")
            raise ServiceError(422, "not_one_prompt", errors=(fault,))
        pictures = [await _as_png(services, image) for image in images]
        made_by = [job for job in jobs if job is not None]
        proof = _proof(made_by, images, user_pk, name)
        made: dict[str, Any] = {
            "image_ids": list(choice.image_ids),
            "personal": None if proof is None else proof.personal,
            "adapter_version": None if proof is None else proof.adapter_version,
            "blind": choice.blind,
        }
        prompt = made_by[0].request["prompt"]
        found.append(MadePair(prompt[:LONGEST_CAPTION], pictures, made, proof))
    return found


async def _job(store: Store, image: Image) -> Job | None:
    """The job that made a picture and has told so."""
    job = await store.jobs.get(image.job_id) if image.job_id is not None else None
    return job if job is not None and job.result is not None else None


def _uses_others(job: Job, user_id: str) -> bool:
    """Whether it is a blend with another person's taste, but for one that came by a code."""
    return any(taste.get("user_id", user_id) != user_id for taste in tastes_named(job.request))


def _proof(
    jobs: Sequence[Job], images: Sequence[Image], user_pk: str | None, name: str
) -> Proof | None:
    results: list[dict[str, Any]] = [job.result or {} for job in jobs]
    applied = [bool(result.get("personalization_applied")) for result in results]
    if sum(applied) != 1 or results[0].get("model") != results[1].get("model"):
        return None
    personal = applied.index(True)
    version = results[personal].get("adapter_version")
    if version is None or not _in_taste_of(jobs[personal], user_pk, name):
        return None
    (one, other), (image, another) = [job.request for job in jobs], images
    if not differ_in_taste_alone(one, image.position, other, another.position):
        return None
    return Proof(personal, version, jobs[personal].adapter_version)


def _in_taste_of(job: Job, user_pk: str | None, name: str) -> bool:
    """Whether it is in this very taste of the person, and in no other's."""
    own = [{"user_id": person_of(name), **taste_told(taste_of(name))}]
    return user_pk is not None and job.user_pk == user_pk and tastes_named(job.request) == own


async def _as_png(services: Services, image: Image) -> bytes:
    data = await stored_bytes(services, image)
    if format_of(image.key) == "png":
        return data
    return await asyncio.to_thread(in_format, services, data, "png")
