"""The published `openai` client against the running service."""

import asyncio
import base64
import io
from typing import Any

import httpx
import openai
import pytest
from PIL import Image

from service.core.errors import JobFailure
from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = pytest.mark.anyio

OUR_OWN = {"steps": 2, "seed": 7}


def client_of(service: Service, key: str | None = None, **options: Any) -> openai.AsyncOpenAI:
    options.setdefault("max_retries", 0)
    return openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key=key or service.key, **options)


async def test_pictures_come_as_base64_in_the_taste_of_the_user(service: Service) -> None:
    await service.answer(service.client(), "ann")
    async with client_of(service) as client:
        asked = {"model": "mini", "prompt": "a fox"}
        own = await client.images.generate(**asked, n=2, user="ann", extra_body=OUR_OWN)
        base = await client.images.generate(**asked, extra_body=OUR_OWN)
        off = await client.images.generate(
            **asked, user="ann", extra_body={**OUR_OWN, "strength": 0.0}
        )
    assert own.data is not None
    assert base.data is not None
    assert off.data is not None
    pictures = [base64.b64decode(one.b64_json or "") for one in own.data]
    assert [Image.open(io.BytesIO(data)).size for data in pictures] == [(128, 128)] * 2
    assert own.size == "128x128"
    assert own.created > 1_700_000_000
    assert pictures[0] != base64.b64decode(base.data[0].b64_json or "")
    assert off.data[0].b64_json == base.data[0].b64_json
    echo = own.model_extra["ppd"]
    assert echo["personalization_applied"] is True
    assert echo["profile_version"] == 1
    assert [one["seed"] for one in echo["images"]] == [7, 8]
    assert base.model_extra["ppd"]["personalization_applied"] is False


async def test_pictures_come_as_addresses_that_open_without_a_key(service: Service) -> None:
    async with client_of(service) as client:
        made = await client.images.generate(
            prompt="a fox", size="128x128", response_format="url", extra_body=OUR_OWN
        )
    (one,) = made.data or []
    assert one.url is not None
    assert one.url.startswith(f"{service.url}/images/signed/")
    assert one.b64_json is None
    async with httpx.AsyncClient(trust_env=False) as anybody:
        picture = await anybody.get(one.url)
        assert picture.headers["content-type"] == "image/png"
        assert Image.open(io.BytesIO(picture.content)).size == (128, 128)
        assert 3590 <= int(picture.headers["cache-control"].rpartition("=")[2]) <= 3600
        token = one.url.rsplit("/", 1)[1]
        # Not the last character: of its six bits the signature fills four only.
        forged = token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]
        for wrong in (forged, "x", "a.b.c", "é"):
            other = await anybody.get(f"{service.url}/images/signed/{wrong}")
            assert (other.status_code, other.json()["code"]) == (404, "image_not_found")
    same = await service.client().get("/images/" + made.model_extra["ppd"]["images"][0]["url"][8:])
    assert same.content == picture.content


async def test_an_address_expires_after_an_hour_and_goes_with_the_person(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client_of(service) as client:
        asked = {"prompt": "a", "user": "ann", "response_format": "url"}
        made = await client.images.generate(**asked, extra_body=OUR_OWN)
        again = await client.images.generate(**asked, extra_body=OUR_OWN)
    url, other = made.data[0].url, again.data[0].url  # type: ignore[index]
    assert (await service.bare().get(url)).status_code == 200
    with monkeypatch.context() as patched:
        patched.setattr("service.api.routes.signed_pictures.MAX_AGE_S", -1)
        late = await service.bare().get(url)
    assert (late.status_code, "expired" in late.json()["detail"]) == (404, True)
    await service.client().delete("/users/ann")
    assert (await service.bare().get(other)).status_code == 404


async def test_the_client_without_await_works_too(service: Service) -> None:
    def call() -> tuple[list[str], int]:
        with openai.OpenAI(base_url=f"{service.url}/v1", api_key=service.key) as client:
            models = [model.id for model in client.models.list()]
            made = client.images.generate(prompt="a fox", extra_body=OUR_OWN)
            return models, len(made.data or [])

    assert await asyncio.to_thread(call) == (["mini"], 1)


async def test_models_are_listed_and_found(service: Service) -> None:
    async with client_of(service) as client:
        listed = [model async for model in client.models.list()]
        assert [(model.id, model.object) for model in listed] == [("mini", "model")]
        assert (await client.models.retrieve("mini")).owned_by == "ppd"
        with pytest.raises(openai.NotFoundError) as missing:
            await client.models.retrieve("dall-e-3")
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError) as unserved:
            await client.images.generate(prompt="a", model="dall-e-3")
        assert (unserved.value.code, unserved.value.param) == ("model_not_found", "model")


BAD: list[tuple[dict[str, Any], str | None]] = [
    ({"prompt": " "}, "prompt"),
    ({"prompt": "a" * 32_001}, "prompt"),
    ({"n": 11}, "n"),
    ({"n": 0}, "n"),
    ({"size": "big"}, "size"),
    ({"size": "0x128"}, "size"),
    ({"user": "ann@example.org"}, "user"),
    ({"response_format": "svg"}, "response_format"),
    ({"output_format": "gif"}, "output_format"),
    ({"output_format": "svg"}, "output_format"),
    ({"output_compression": 101}, "output_compression"),
    ({"background": "transparent"}, "background"),
    ({"frame_count": 3}, "frame_count"),
    ({"extra_body": {"stpes": 3}}, "stpes"),
    ({"extra_body": {"steps": True}}, "steps"),
    ({"stream": True, "partial_images": 4}, "partial_images"),
    ({"stream": True, "response_format": "url"}, "response_format"),
    ({"n": 5, "extra_body": {"steps": 50}}, None),
    ({"n": 2, "extra_body": {"seed": 2**32 - 1}}, None),
]


async def test_bad_requests_are_named_by_their_parameter(service: Service) -> None:
    async with client_of(service) as client:
        for wrong, param in BAD:
            with pytest.raises(openai.BadRequestError) as refused:
                await client.images.generate(**{"prompt": "a", **wrong})
            assert refused.value.param == param, wrong
            assert refused.value.code == "invalid_request"
            assert refused.value.type == "invalid_request_error"
            assert refused.value.request_id
    assert service.runtime.generated == []


async def test_its_own_fields_that_change_nothing_are_taken(service: Service) -> None:
    async with client_of(service) as client:
        made = await client.images.generate(
            prompt="a",
            model="mini",
            size="auto",
            quality="hd",
            style="vivid",
            moderation="low",
            background="auto",
            output_format="png",
            output_compression=100,
            safety_identifier="abc",
            extra_body=OUR_OWN,
        )
    assert made.output_format == "png"


async def test_keys_that_do_not_open_are_authentication_errors(service: Service) -> None:
    async with client_of(service, "ppd_wrong") as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            await client.images.generate(prompt="a")
        assert refused.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_every_error_under_v1_has_openais_shape(start: Start) -> None:
    service: Service = await start(max_body_bytes=100_000)
    client = service.client()
    json_type = {"Content-Type": "application/json"}
    post = "/v1/images/generations"
    answers = {
        404: await client.get("/v1/nowhere"),
        405: await client.get(post),
        413: await client.post(post, content=b" " * 200_000, headers=json_type),
        415: await client.post(post, content=b"{}"),
        400: await client.post(post, content=b"{", headers=json_type),
        401: await service.bare().get("/v1/models"),
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/json"
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}, status
        assert answer.headers["x-request-id"]


async def test_a_full_share_is_a_rate_limit_that_says_when_to_come_again(start: Start) -> None:
    service: Service = await start(max_queued_jobs_per_caller=1)
    service.runtime.gate.clear()
    running = (await service.client().post("/generate", json={"prompt": "a"})).json()
    await service.until(service.client(), running["id"], "running")
    waiting = await service.client().post("/generate", json={"prompt": "a"})
    assert waiting.status_code == 202
    async with client_of(service) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            await client.images.generate(prompt="a")
    assert refused.value.code == "rate_limit_exceeded"
    assert int(refused.value.response.headers["retry-after"]) == 5


async def test_a_client_that_retries_comes_again_when_it_was_told_to(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service: Service = await start(max_queued_jobs_per_caller=1)
    monkeypatch.setattr("service.actions.limits._RETRY_AFTER", {"Retry-After": "1"})
    service.runtime.gate.clear()
    statuses: list[int] = []
    running = (await service.client().post("/generate", json={"prompt": "a"})).json()
    await service.until(service.client(), running["id"], "running")
    await service.client().post("/generate", json={"prompt": "a"})

    async def seen(response: Any) -> None:
        statuses.append(response.status_code)
        service.runtime.gate.set()

    http = openai.DefaultAsyncHttpxClient(event_hooks={"response": [seen]})
    async with client_of(service, max_retries=2, http_client=http) as client:
        made = await client.images.generate(prompt="a fox", extra_body=OUR_OWN)
    assert statuses == [429, 200]
    assert made.data


async def test_a_job_that_takes_too_long_goes_on_and_is_named(start: Start) -> None:
    service: Service = await start(openai_wait_s=0.2)
    service.runtime.gate.clear()
    async with client_of(service, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError) as late:
            await client.images.generate(prompt="a", extra_headers={"Idempotency-Key": "k-1"})
        assert (late.value.status_code, late.value.code) == (504, "still_running")
        job_id = late.value.response.headers["location"].rsplit("/", 1)[1]
        assert job_id in late.value.message
        service.runtime.gate.set()
        await service.until(service.client(), job_id, "succeeded")
        made = await client.images.generate(prompt="a", extra_headers={"Idempotency-Key": "k-1"})
        assert made.model_extra["ppd"]["job_id"] == job_id
        with pytest.raises(openai.BadRequestError) as other:
            await client.images.generate(prompt="b", extra_headers={"Idempotency-Key": "k-1"})
        assert other.value.code == "idempotency_key_reused"
    assert len(service.runtime.generated) == 1


async def test_a_job_goes_on_when_its_client_has_left(service: Service) -> None:
    service.runtime.gate.clear()
    async with client_of(service) as client:
        asked = client.images.generate(prompt="a", user="ann", extra_body=OUR_OWN)
        waiting = asyncio.create_task(asked)
        assert await asyncio.to_thread(service.runtime.entered.wait, 60)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    (job,) = (await service.client().get("/users/ann/export")).json()["jobs"]
    service.runtime.gate.set()
    await service.until(service.client(), job["id"], "succeeded")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("numerical_error", 500),
        ("out_of_memory", 503),
        ("storage_full", 503),
        ("deadline_exceeded", 504),
    ],
)
async def test_a_job_that_failed_says_why_and_is_not_asked_for_again(
    service: Service, code: str, status: int
) -> None:
    service.runtime.fail_with = JobFailure(code)
    async with client_of(service, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError) as failed:
            await client.images.generate(prompt="a", user="ann")
    assert (failed.value.status_code, failed.value.code) == (status, code)
    assert ("retry-after" in failed.value.response.headers) == (status == 503)
    assert len((await service.client().get("/users/ann/export")).json()["jobs"]) == 1


async def test_a_browser_session_names_its_own_user_only(service: Service) -> None:
    browser, user_id = await service.session()
    own = {"prompt": "a", "user": user_id, "steps": 2}
    assert (await browser.post("/v1/images/generations", json=own)).status_code == 200
    other = await browser.post("/v1/images/generations", json={**own, "user": "ann"})
    assert (other.status_code, other.json()["error"]["code"]) == (404, "user_not_found")
