"""Pictures: the same request gives the same bytes, and what shaped them is said with them."""

import asyncio
import hashlib
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.core.errors import JobFailure
from service.infra.sql.jobs.claims import Claims
from tests.fake_runtime import FakeRuntime
from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = pytest.mark.anyio


async def pngs(client: httpx.AsyncClient, job: dict[str, object]) -> list[bytes]:
    result = job["result"]
    assert isinstance(result, dict)
    return [(await client.get(image["url"])).content for image in result["images"]]


@pytest.mark.both_databases
async def test_a_picture_is_made_and_echoes_all_it_depends_on(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    answer = await client.post(
        "/generate",
        json={"prompt": "a fox", "user_id": "ann", "seed": 5},
        headers={"Prefer": "wait=60"},
    )
    assert answer.status_code == 200
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    job = answer.json()
    assert job["status"] == "succeeded"
    result = job["result"]
    assert result["images"][0]["seed"] == 5
    assert result["model"] == "fake-model-1"
    assert result["adapter_version"] == "fake-adapter-1"
    assert result["encoder_version"] == "fake-encoder-1"
    assert result["profile_version"] == 1
    assert result["strength"] == 1.0
    assert result["personalization_applied"] is True
    assert "reason" not in result
    assert set(result["timings"]) == {"queue_s", "denoise_s", "decode_s"}
    assert result["timings"]["denoise_s"] == pytest.approx(0.2)
    (png,) = await pngs(client, job)
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.size) == ("PNG", (128, 128))
    assert service.runtime.generated[-1].steps == 20


async def test_without_waiting_the_answer_is_202_and_a_location(service: Service) -> None:
    client = service.client()
    answer = await client.post("/generate", json={"prompt": "a fox"})
    assert answer.status_code == 202
    assert answer.json()["status"] in ("queued", "running", "succeeded")
    job = await client.get(answer.headers["location"])
    assert job.json()["id"] == answer.json()["id"]


async def test_the_same_request_gives_the_same_bytes(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    first = await pngs(client, await service.generate(client, user_id="ann"))
    again = await pngs(client, await service.generate(client, user_id="ann"))
    other = await pngs(client, await service.generate(client, user_id="ann", seed=8))
    assert first == again
    assert first != other


async def test_strength_zero_is_the_picture_of_nobody(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    base = await service.generate(client)
    zero = await service.generate(client, user_id="ann", strength=0)
    full = await service.generate(client, user_id="ann")
    assert await pngs(client, base) == await pngs(client, zero)
    assert await pngs(client, base) != await pngs(client, full)
    assert zero["result"]["personalization_applied"] is False
    assert zero["result"]["reason"] == "strength_zero"
    assert base["result"]["personalization_applied"] is False
    assert base["result"]["profile_version"] is None


async def test_a_prompt_that_is_not_read_to_its_end_says_so(service: Service) -> None:
    client = service.client()
    assert "warnings" not in (await service.generate(client, prompt="a" * 100))["result"]
    (warning,) = (await service.generate(client, prompt="a" * 101))["result"]["warnings"]
    assert warning["code"] == "prompt_truncated"
    assert "first 100 characters" in warning["detail"]


async def test_a_full_disk_fails_the_job_and_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.client()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("service.infra.whole_files.os.fsync", full)
        job = await service.generate(client, n=2)
    assert (job["status"], job["error"]["code"]) == ("failed", "storage_full")
    assert files_of(service) == []
    assert (await service.generate(client))["status"] == "succeeded"


async def test_the_worker_goes_on_after_its_database_failed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, faults = Claims.claim, [RuntimeError("locked"), RuntimeError("locked")]

    async def flaky(self: Claims, *about: Any) -> Any:
        if faults:
            raise faults.pop()
        return await claim(self, *about)

    monkeypatch.setattr(Claims, "claim", flaky)
    job = await service.generate(service.client())
    assert (job["status"], faults) == ("succeeded", [])


def files_of(service: Service) -> list[Path]:
    return list((service.settings.data_dir / "images").rglob("*.*"))


async def test_several_pictures_have_seeds_in_a_row(service: Service) -> None:
    client = service.client()
    job = await service.generate(client, n=3, seed=10)
    assert [image["seed"] for image in job["result"]["images"]] == [10, 11, 12]
    alone = await service.generate(client, seed=11)
    assert (await pngs(client, job))[1] == (await pngs(client, alone))[0]


async def test_no_profile_yet_is_said_and_not_hidden(service: Service) -> None:
    client = service.client()
    job = await service.generate(client, user_id="nobody-yet")
    assert job["result"]["personalization_applied"] is False
    assert job["result"]["reason"] == "no_profile"


async def test_while_encoding_only_who_waits_gets_the_new_taste(service: Service) -> None:
    client = service.client()
    pairs = (await client.get("/users/ann/quiz")).json()["pairs"]
    choices = [{"pair_id": pair["pair_id"], "preferred": 0} for pair in pairs]
    service.runtime.gate.clear()
    await client.post("/users/ann/preferences", json={"choices": choices})
    body = {"prompt": "a fox", "user_id": "ann", "steps": 2}
    hasty = (await client.post("/generate", json=body)).json()
    patient = asyncio.create_task(
        client.post("/generate", json=body, headers={"Prefer": "wait=60"})
    )
    await asyncio.sleep(0.1)
    service.runtime.gate.set()
    waited = (await patient).json()["result"]
    assert (waited["personalization_applied"], waited["profile_version"]) == (True, 1)
    first = (await client.get(f"/jobs/{hasty['id']}")).json()["result"]
    assert (first["personalization_applied"], first["reason"]) == (False, "encoding")


async def test_a_job_keeps_the_profile_version_that_it_was_asked_with(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    service.runtime.gate.clear()
    job = (await client.post("/generate", json={"prompt": "a fox", "user_id": "ann"})).json()
    await client.put("/users/ann/profile", json={"text": "I like fog."})
    service.runtime.gate.set()
    done = await service.until(client, job["id"], "succeeded")
    assert done["result"]["profile_version"] == 1


@pytest.mark.both_databases
async def test_a_blend_is_the_weighted_mean_of_its_people(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann", (0, 0, 0, 0))
    await service.answer(client, "bob", (1, 1, 1, 1))
    ann = await service.generate(client, user_id="ann")
    bob = await service.generate(client, user_id="bob")
    blend = [{"user_id": "ann", "weight": 3}, {"user_id": "bob", "weight": 1.0}]
    mixed = await service.generate(client, blend=blend)
    assert ann["result"]["personalization_applied"]
    assert bob["result"]["personalization_applied"]
    a_D, b_D, mixed_D = (spec.user_emb_D for spec in service.runtime.generated[-3:])
    assert a_D is not None
    assert b_D is not None
    np.testing.assert_allclose(mixed_D, 0.75 * a_D + 0.25 * b_D, rtol=1e-6)
    assert mixed["result"]["blend"] == [
        {"user_id": "ann", "profile_version": 1},
        {"user_id": "bob", "profile_version": 1},
    ]


async def test_a_blend_with_somebody_without_a_profile_is_not_applied(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    blend = [{"user_id": "ann", "weight": 1.0}, {"user_id": "new", "weight": 1.0}]
    job = await service.generate(client, blend=blend)
    assert job["result"]["personalization_applied"] is False
    assert job["result"]["reason"] == "no_profile"


@pytest.mark.both_databases
async def test_two_peoples_pictures_never_cross(service: Service) -> None:
    client = service.client()
    for name, side in (("ann", 0), ("bob", 1)):
        await service.answer(client, name, (side,) * 4)
    jobs = await asyncio.gather(
        *(service.generate(client, user_id=name) for name in ("ann", "bob") * 3)
    )
    seen = [hashlib.sha256((await pngs(client, job))[0]).hexdigest() for job in jobs]
    assert len(set(seen[0::2])) == 1
    assert len(set(seen[1::2])) == 1
    assert seen[0] != seen[1]


async def test_a_failure_of_the_model_is_stored_with_its_code(service: Service) -> None:
    client = service.client()
    service.runtime.fail_with = JobFailure("numerical_error")
    job = await service.generate(client)
    assert (job["status"], job["error"]["code"]) == ("failed", "numerical_error")
    service.runtime.fail_with = RuntimeError("secret prompt text")
    job = await service.generate(client)
    assert (job["status"], job["error"]["code"]) == ("failed", "model_error")
    assert "secret" not in str(job)
    service.runtime.fail_with = None
    assert (await service.generate(client))["status"] == "succeeded"


@pytest.mark.both_databases
async def test_a_full_queue_says_when_to_come_back(start: Start) -> None:
    runtime = FakeRuntime()
    runtime.load_gate.clear()
    service: Service = await start(
        runtime, ready=False, max_queued_jobs=4, max_queued_jobs_per_caller=2
    )
    client = service.client()
    other = service.client(await service.new_key("other"))
    third = service.client(await service.new_key("third"))
    answers = [
        await c.post("/generate", json={"prompt": "a fox"})
        for c in (client, client, client, other, other, third, third)
    ]
    assert [answer.status_code for answer in answers] == [202, 202, 429, 202, 429, 202, 503]
    refused = {answer.json()["code"]: answer for answer in answers if answer.status_code > 400}
    assert set(refused) == {"too_many_jobs", "queue_full"}
    assert all(int(answer.headers["retry-after"]) > 0 for answer in refused.values())
    runtime.load_gate.set()


@pytest.mark.both_databases
async def test_the_gallery_shows_a_persons_pictures_newest_first(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    for seed in (1, 2, 3):
        await service.generate(client, user_id="ann", seed=seed)
    page = (await client.get("/users/ann/images", params={"limit": 2})).json()
    rest = (await client.get("/users/ann/images", params={"cursor": page["next"]})).json()
    assert [image["seed"] for image in page["results"] + rest["results"]] == [3, 2, 1]
    assert rest["next"] is None
    assert page["results"][0]["prompt"] == "a fox"
    assert page["results"][0]["personalization_applied"] is True


async def test_a_picture_is_private_cacheable_and_checked_on_reading(service: Service) -> None:
    client = service.client()
    job = await service.generate(client)
    url = job["result"]["images"][0]["url"]
    first = await client.get(url)
    assert first.headers["cache-control"].startswith("private")
    again = await client.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    (file,) = files_of(service)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    damaged = await client.get(url)
    assert (damaged.status_code, damaged.json()["code"]) == (503, "storage")
