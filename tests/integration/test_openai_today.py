"""The newest `openai` client, unchanged: streams, formats, sizes, usage, its own retries."""

import asyncio
import base64
import io
from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest
from limits import parse
from openai.types import ImageGenCompletedEvent, ImageGenPartialImageEvent
from PIL import Image
from sqlalchemy import func, select

from service.api.services import Services
from service.core.errors import JobFailure
from service.core.ports import Capabilities
from service.infra.memory import rate_limits
from service.infra.sql.repositories import idempotency
from service.infra.sql.tables import IdempotencyKey
from tests.fake_runtime import FakeRuntime
from tests.integration.conftest import Start
from tests.integration.test_openai import OUR_OWN, client_of
from tests.running_service import Service

pytestmark = pytest.mark.anyio


def picture_of(b64_json: str | None) -> Image.Image:
    """The picture, read whole."""
    image = Image.open(io.BytesIO(base64.b64decode(b64_json or "", validate=True)))
    image.load()
    return image


async def test_left_to_itself_a_call_gives_base64_and_says_what_it_took(service: Service) -> None:
    async with client_of(service) as client:
        made = await client.images.generate(prompt="a red fox", n=2, extra_body=OUR_OWN)
    assert [one.url for one in made.data or []] == [None, None]
    assert [picture_of(one.b64_json).format for one in made.data or []] == ["PNG", "PNG"]
    assert (made.size, made.output_format, made.background) == ("128x128", "png", "opaque")
    assert made.usage is not None
    assert made.usage.input_tokens == made.usage.input_tokens_details.text_tokens == 3
    assert made.usage.output_tokens == 128
    assert made.usage.total_tokens == 131
    assert made.usage.output_tokens_details is not None
    assert made.usage.output_tokens_details.image_tokens == 128
    async with client_of(service) as client:
        again = await client.images.generate(prompt="a red fox", n=2, extra_body=OUR_OWN)
    assert again.model_extra["ppd"]["cached"] is True
    assert (
        made.model_extra["ppd"]["ai_generated"] is again.model_extra["ppd"]["ai_generated"] is True
    )
    assert again.usage == made.usage


@pytest.mark.parametrize("partial_images", [None, 0, 1, 2, 3])
async def test_a_stream_shows_previews_and_then_the_picture(
    service: Service, partial_images: int | None
) -> None:
    service.runtime.preview_every, service.runtime.step_s = 1, 0.25
    async with client_of(service) as client:
        stream = await client.images.generate(
            prompt="a fox",
            size="1024x1024",
            stream=True,
            extra_body={"steps": 8, "seed": 7},
            **({} if partial_images is None else {"partial_images": partial_images}),
        )
        events = [event async for event in stream]
        whole = await client.images.generate(prompt="a fox", extra_body={"steps": 8, "seed": 7})
    *partial, completed = events
    assert len(partial) == (partial_images or 0)
    for index, event in enumerate(partial):
        assert isinstance(event, ImageGenPartialImageEvent)
        assert event.type == "image_generation.partial_image"
        assert event.partial_image_index == index
        assert (event.size, event.output_format, event.background) == ("128x128", "png", "opaque")
        assert event.created_at > 1_700_000_000
        shown = picture_of(event.b64_json)
        assert (shown.format, shown.size) == ("PNG", (128, 128))
        assert set(event.model_dump()) == set(ImageGenPartialImageEvent.model_fields)
    assert isinstance(completed, ImageGenCompletedEvent)
    assert completed.type == "image_generation.completed"
    assert completed.b64_json == (whole.data or [])[0].b64_json
    assert completed.usage.output_tokens == 64
    assert completed.quality == "auto"
    assert completed.model_extra["ppd"]["images"] == whole.model_extra["ppd"]["images"]


async def test_a_stream_of_several_pictures_says_which_is_which(service: Service) -> None:
    service.runtime.preview_every, service.runtime.step_s = 2, 0.3
    async with client_of(service) as client:
        events = [
            event
            async for event in await client.images.generate(
                prompt="a fox",
                n=2,
                stream=True,
                partial_images=1,
                output_format="webp",
                extra_body={"steps": 4, "seed": 7},
            )
        ]
    partial = [event for event in events if isinstance(event, ImageGenPartialImageEvent)]
    completed = [event for event in events if isinstance(event, ImageGenCompletedEvent)]
    assert sorted(one.model_extra["image_index"] for one in partial) == [0, 1]
    assert [one.model_extra["image_index"] for one in completed] == [0, 1]
    assert {picture_of(one.b64_json).format for one in events} == {"WEBP"}
    assert sum(one.usage.total_tokens for one in completed) == 2 + 128
    assert [one.usage.input_tokens for one in completed] == [2, 0]


async def test_what_becomes_of_a_stream_that_gets_no_picture_is_an_error(
    service: Service,
) -> None:
    service.runtime.fail_with = JobFailure("numerical_error")
    async with client_of(service, max_retries=2) as client:
        stream = await client.images.generate(prompt="a", stream=True)
        with pytest.raises(openai.APIError) as failed:
            [event async for event in stream]
    assert failed.value.code == "numerical_error"
    assert len(await jobs_of(service)) == 1


async def test_a_stream_ends_when_a_call_may_wait_no_longer(start: Start) -> None:
    service: Service = await start(openai_wait_s=0.3)
    service.runtime.gate.clear()
    async with client_of(service) as client:
        stream = await client.images.generate(prompt="a", stream=True)
        with pytest.raises(openai.APIError) as late:
            [event async for event in stream]
    assert late.value.code == "still_running"
    (job,) = await jobs_of(service)
    assert job["status"] in ("queued", "running"), "it goes on"
    service.runtime.gate.set()


async def test_streams_have_places_and_give_them_back(start: Start) -> None:
    service: Service = await start(max_event_streams_per_caller=1)
    service.runtime.gate.clear()
    async with client_of(service) as client:
        first = await client.images.generate(prompt="a", stream=True, extra_body=OUR_OWN)
        with pytest.raises(openai.RateLimitError) as refused:
            await client.images.generate(prompt="b", stream=True, extra_body=OUR_OWN)
        assert refused.value.code == "rate_limit_exceeded"
        service.runtime.gate.set()
        assert len([event async for event in first]) == 1
        left = await client.images.generate(prompt="c", stream=True, extra_body=OUR_OWN)
        await left.close()
        async with asyncio.timeout(30):
            while service.parts.app.app.state.services.streams.count():  # type: ignore[attr-defined] # noqa: ASYNC110
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(("output_format", "name"), [("jpeg", "JPEG"), ("webp", "WEBP")])
async def test_formats_are_made_in_the_quality_that_is_asked_for(
    service: Service, output_format: Any, name: str
) -> None:
    sizes = []
    async with client_of(service) as client:
        for compression in (100, 40, 0):
            made = await client.images.generate(
                prompt="a fox",
                output_format=output_format,
                output_compression=compression,
                extra_body=OUR_OWN,
            )
            data = (made.data or [])[0].b64_json
            assert picture_of(data).format == name
            assert made.output_format == output_format
            sizes.append(len(data or ""))
        url = await client.images.generate(
            prompt="a fox", output_format=output_format, response_format="url", extra_body=OUR_OWN
        )
    assert sizes[0] > sizes[1] > sizes[2]
    anybody = await service.bare().get((url.data or [])[0].url or "")
    assert anybody.headers["content-type"] == f"image/{output_format}"


class TwoSizes(FakeRuntime):
    """Makes sides of two lengths."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("mini", 128, (128, 256))


async def test_a_size_that_is_not_made_becomes_the_nearest_that_is(start: Start) -> None:
    service: Service = await start(TwoSizes())
    nearest = {
        "512x512": "256x256",
        "1024x1024": "256x256",
        "1024x1536": "256x256",
        "64x64": "128x128",
        "100x300": "128x256",
        "256x128": "256x128",
        "auto": "128x128",
    }
    async with client_of(service) as client:
        for size, made_size in nearest.items():
            made = await client.images.generate(prompt="a", size=size, extra_body=OUR_OWN)
            assert made.size == made_size, size
            width, height = picture_of((made.data or [])[0].b64_json).size
            assert f"{width}x{height}" == made_size
            codes = [one["code"] for one in made.model_extra["ppd"].get("warnings", [])]
            assert codes == ([] if size in (made_size, "auto") else ["size_changed"])


async def test_a_setting_makes_such_a_size_an_error(start: Start) -> None:
    service: Service = await start(openai_sizes="exact")
    async with client_of(service) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.images.generate(prompt="a", size="1024x1024")
        assert (refused.value.param, refused.value.code) == ("size", "invalid_request")
        assert "128" in refused.value.message
        await client.images.generate(prompt="a", size="128x128", extra_body=OUR_OWN)


async def test_ten_pictures_and_long_prompts_are_made_and_the_cut_is_told(
    service: Service,
) -> None:
    async with client_of(service) as client:
        made = await client.images.generate(prompt="fox " * 8000, n=10, extra_body={"seed": 1})
    assert len(made.data or []) == 10
    assert [one["seed"] for one in made.model_extra["ppd"]["images"]] == [*range(1, 11)]
    (warning,) = made.model_extra["ppd"]["warnings"]
    assert warning["code"] == "prompt_truncated"
    assert "the first 100 characters" in warning["detail"]


async def jobs_of(service: Service) -> list[dict[str, Any]]:
    listed = (await service.client().get("/jobs?limit=100")).json()
    return list(listed["results"])


@pytest.mark.both_databases
async def test_the_clients_own_retry_after_a_lost_answer_finds_the_first_job(
    service: Service,
) -> None:
    service.runtime.gate.clear()
    async with client_of(service, max_retries=2, timeout=1.0) as client:
        with pytest.raises(openai.APITimeoutError):
            await client.images.generate(prompt="a fox", user="ann")
        (job,) = await jobs_of(service)
        service.runtime.gate.set()
        await service.until(service.client(), job["id"], "succeeded")
        # A new call of the same, which no retry is, makes a job of its own.
        again = await client.with_options(timeout=60).images.generate(prompt="a fox", user="ann")
    assert again.model_extra["ppd"]["job_id"] != job["id"]
    assert len(await jobs_of(service)) == 2


def tried(service: Service, tries: int | None, key: str | None = None) -> Any:
    """A call as OpenAI's client sends it when it has tried so often before; None: unsaid."""
    said = {} if tries is None else {"x-stainless-retry-count": str(tries)}
    client = service.client(key, headers=said)

    async def call(**body: Any) -> httpx.Response:
        return await client.post("/v1/images/generations", json={"prompt": "a", "steps": 2, **body})

    return call


@pytest.mark.both_databases
async def test_each_further_try_takes_up_one_earlier_call(service: Service) -> None:
    first = [(await tried(service, 0)()).json()["ppd"]["job_id"] for _ in range(2)]
    assert len(set(first)) == 2, "two calls are two jobs, however equal"
    taken = []
    for _ in range(2):
        again = await tried(service, 1)()
        assert again.headers["idempotent-replayed"] == "true"
        taken.append(again.json()["ppd"]["job_id"])
    assert sorted(taken) == sorted(first)
    third = (await tried(service, 1)()).json()["ppd"]["job_id"]
    assert third not in first, "nothing is left that it could be a try of"
    assert (await tried(service, 2)()).json()["ppd"]["job_id"] in {*first, third}
    assert len(await jobs_of(service)) == 3


async def test_another_body_key_or_time_is_no_further_try(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = (await tried(service, 0)()).json()["ppd"]["job_id"]
    other_key = await service.new_key("default")
    for call, body in (
        (tried(service, 1), {"prompt": "b"}),
        (tried(service, 1, other_key), {}),
        (tried(service, 0), {}),
    ):
        answer = await call(**body)
        assert answer.json()["ppd"]["job_id"] != first
        assert "idempotent-replayed" not in answer.headers
    monkeypatch.setattr("service.api.retries.TRIED_AGAIN_WITHIN_S", 0.0)
    assert "idempotent-replayed" not in (await tried(service, 1)()).headers


@pytest.mark.both_databases
async def test_a_try_after_a_refusal_makes_what_was_refused(start: Start) -> None:
    service: Service = await start(max_queued_jobs_per_caller=1)
    service.runtime.gate.clear()
    running = await service.client().post("/generate", json={"prompt": "x"})
    await service.until(service.client(), running.json()["id"], "running")
    waiting = asyncio.create_task(tried(service, 0)())
    async with asyncio.timeout(30):
        while len(await jobs_of(service)) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    refused = [await tried(service, tries)() for tries in (0, 1)]
    assert [answer.status_code for answer in refused] == [429, 429]
    service.runtime.gate.set()
    first = (await waiting).json()["ppd"]["job_id"]
    made = await tried(service, 2)()
    assert made.json()["ppd"]["job_id"] != first, "an equal call's picture is not this one's"
    lost = await tried(service, 1)()
    assert lost.json()["ppd"]["job_id"] == first
    assert len(await jobs_of(service)) == 3


async def test_a_call_that_does_not_say_its_number_is_a_first_try(service: Service) -> None:
    first = (await tried(service, None)()).json()["ppd"]["job_id"]
    again = await tried(service, 1)()
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["ppd"]["job_id"] == first
    assert len(await jobs_of(service)) == 1


async def test_a_try_after_too_many_requests_makes_what_was_refused(start: Start) -> None:
    service: Service = await start(rate_limit_key="1/hour")
    first = (await tried(service, 0)()).json()["ppd"]["job_id"]
    refused = await tried(service, 0)()
    assert refused.status_code == 429
    services_behind(service).rates._key = parse("1000/hour")
    assert (await tried(service, 1)()).json()["ppd"]["job_id"] != first


async def test_a_try_after_a_full_house_of_streams_makes_what_was_refused(start: Start) -> None:
    service: Service = await start(max_event_streams=1)
    streams = service.parts.app.app.state.services.streams  # type: ignore[attr-defined]
    first = (await tried(service, 0)(stream=True)).headers["location"]
    async with asyncio.timeout(10):
        while streams.count():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    with streams.hold("another"):
        assert (await tried(service, 0)(stream=True)).status_code == 503
    again = await tried(service, 1)(stream=True)
    assert again.status_code == 200
    assert again.headers["location"] != first


def services_behind(service: Service) -> Services:
    found = service.parts.app.app.state.services  # type: ignore[attr-defined]
    assert isinstance(found, Services)
    return found


async def notes(service: Service) -> int:
    async with services_behind(service).database.read() as store:
        counted = select(func.count()).select_from(IdempotencyKey)
        return int(await store.session.scalar(counted.where(IdempotencyKey.job_id.is_(None))) or 0)


async def test_so_many_refused_tries_are_remembered_and_those_beyond_are_told_not_to_come_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limits, "_REFUSED_TRIES", parse("3/15 minutes"))
    service: Service = await start(rate_limit_key="1/hour")
    other_key = await service.new_key("default")
    answers = [await tried(service, 0)(prompt=f"a fox {n}") for n in range(6)]
    assert [answer.status_code for answer in answers] == [200, *[429] * 5]
    said = [answer.headers.get("x-should-retry") for answer in answers]
    assert said == [*[None] * 4, "false", "false"]
    assert await notes(service) == 3
    await tried(service, 0, other_key)(prompt="a fox")
    refused = await tried(service, 0, other_key)(prompt="a fox")
    assert (refused.status_code, refused.headers.get("x-should-retry")) == (429, None)
    assert await notes(service) == 4, "each key has room of its own"


async def test_what_is_remembered_of_refused_tries_is_dropped_when_they_come_no_more(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service: Service = await start(rate_limit_key="1/hour")
    await tried(service, 0)()
    await tried(service, 0)()
    assert await notes(service) == 1

    async def sweep() -> int:
        async with services_behind(service).database.write() as store:
            return await store.idempotency.prune(timedelta(days=2))

    assert await sweep() == 0
    monkeypatch.setattr(idempotency, "TRIED_AGAIN_WITHIN_S", 0.0)
    await asyncio.sleep(0.01)
    assert await sweep() == 1, "the call that has a job is kept"


async def test_what_is_remembered_of_tries_goes_with_the_person(service: Service) -> None:
    first = (await tried(service, 0)(user="ann")).json()["ppd"]["job_id"]
    assert (await service.client().delete("/users/ann")).status_code == 200
    again = await tried(service, 1)(user="ann")
    assert again.status_code == 200
    assert again.json()["ppd"]["job_id"] != first


async def test_open_webuis_requests_are_answered_with_what_it_reads(service: Service) -> None:
    """Its images router: `requests`-like JSON, user headers, an api-version in the address."""
    client = service.client(
        headers={"X-OpenWebUI-User-Name": "Ann", "X-OpenWebUI-User-Id": "4f1c", "Accept": "*/*"}
    )
    data: dict[str, Any] = {"model": "mini", "prompt": "a fox", "n": 1}
    for own in (
        {"size": "512x512", "response_format": "b64_json"},
        {"size": "auto", "response_format": "b64_json"},
        {"size": "1024x1024"},
        {"size": "1024x1024", "quality": "high", "output_format": "png", "background": "auto"},
    ):
        answer = await client.post(
            "/v1/images/generations?api-version=2025-04-01-preview", json={**data, **own}
        )
        assert answer.status_code == 200, answer.text
        for image in answer.json()["data"]:
            assert not image.get("url")
            assert picture_of(image["b64_json"]).size == (128, 128)
    listed = await client.get("/v1/models")
    assert [model["id"] for model in listed.json()["data"]] == ["mini"]


async def test_litellms_requests_are_answered_with_what_it_reads(service: Service) -> None:
    """It calls this very client with all that it knows, dumps the answer and reads it again."""
    asked: dict[str, Any] = {
        "model": "mini",
        "prompt": "a fox",
        "background": "opaque",
        "moderation": "auto",
        "n": 1,
        "output_compression": 80,
        "output_format": "jpeg",
        "quality": "medium",
        "size": "1024x1024",
        "user": "ann",
        "timeout": 60.0,
        "extra_body": {},
    }
    async with client_of(service, max_retries=2) as client:
        answer = (await client.images.generate(**asked)).model_dump()
        legacy = await client.images.generate(
            model="mini",
            prompt="a",
            response_format="url",
            style="vivid",
            quality="standard",
            n=None,
        )
        nothing = await client.images.generate(
            prompt="a", size=None, quality=None, background=None, output_format=None, stream=None
        )
    assert picture_of(answer["data"][0]["b64_json"]).format == "JPEG"
    assert answer["usage"]["total_tokens"] > 0
    assert (answer["size"], answer["output_format"]) == ("128x128", "jpeg")
    assert (legacy.data or [])[0].url
    assert (nothing.data or [])[0].b64_json


async def test_librechats_requests_are_answered_with_what_it_reads(service: Service) -> None:
    """It asks for a format and for compression at once, also of a png; for no response format."""
    async with client_of(service) as client:
        for output_format, compression, name in (("png", 100, "PNG"), ("webp", 60, "WEBP")):
            made = await client.images.generate(
                model="mini",
                prompt="a fox",
                n=1,
                background="auto",
                output_compression=compression,
                output_format=output_format,  # type: ignore[arg-type]
                quality="auto",
                size="auto",
                user="664f1c2ab0e4d1a5c3f7e890",
            )
            assert picture_of((made.data or [])[0].b64_json).format == name
