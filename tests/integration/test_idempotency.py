"""The same POST twice leads to one thing."""

import asyncio

import pytest
from sqlalchemy import select

from service.infra.sql.tables import Image, Job
from tests.running_service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

BODY = {"prompt": "a fox", "steps": 2}


async def test_twenty_at_once_make_one_job(service: Service) -> None:
    client = service.client(headers={"Idempotency-Key": "k-1"})
    answers = await asyncio.gather(*(client.post("/generate", json=BODY) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    accepted = [answer for answer in answers if answer.status_code == 202]
    assert len({answer.json()["id"] for answer in accepted}) == 1
    replayed = [answer.headers.get("idempotent-replayed") for answer in accepted]
    assert replayed.count(None) == 1
    async with service.database.read() as store:
        assert len((await store.session.scalars(select(Job.id))).all()) == 1
        assert len((await store.session.scalars(select(Image.id))).all()) <= 1


@pytest.mark.sqlite_only
async def test_a_repetition_is_refused_while_the_first_runs_and_answered_after(
    service: Service,
) -> None:
    client = service.client(headers={"Idempotency-Key": "k-1"})
    services = service.parts.app.app.state.services  # type: ignore[attr-defined]
    async with services.database.write():  # the first has to wait for its turn to write
        first = asyncio.create_task(client.post("/generate", json=BODY))
        while not services.in_flight._fingerprints:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        again = await client.post("/generate", json=BODY)
        other = await client.post("/generate", json={**BODY, "steps": 3})
    assert (again.status_code, again.json()["code"]) == (409, "idempotency_key_in_flight")
    assert int(again.headers["retry-after"]) > 0
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    made = await first
    assert made.status_code == 202
    replay = await client.post("/generate", json=BODY)
    assert replay.json()["id"] == made.json()["id"]
    assert replay.headers["idempotent-replayed"] == "true"


async def test_a_request_that_failed_in_flight_leaves_its_key_free(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.client(headers={"Idempotency-Key": "k-1"})
    with monkeypatch.context() as patched:
        patched.setattr("service.actions.accepting.NewGeneration", 1)
        assert (await client.post("/generate", json=BODY)).status_code == 500
    assert (await client.post("/generate", json=BODY)).status_code == 202


async def test_a_repeated_request_that_waits_gets_the_finished_job(service: Service) -> None:
    client = service.client(headers={"Idempotency-Key": "k-1"})
    first = await client.post("/generate", json=BODY)
    again = await client.post("/generate", json=BODY, headers={"Prefer": "wait=60"})
    assert again.status_code == 200
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["status"] == "succeeded"


async def test_another_request_with_the_same_key_is_refused(service: Service) -> None:
    client = service.client(headers={"Idempotency-Key": "k-1"})
    await client.post("/generate", json=BODY)
    other = await client.post("/generate", json={**BODY, "steps": 3})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    pairs = (await client.get("/pairs")).json()["results"]
    choice = {"choices": [{"pair_id": pairs[0]["pair_id"], "preferred": 0}]}
    elsewhere = await client.post("/users/ann/preferences", json=choice)
    assert elsewhere.status_code == 422


async def test_keys_belong_to_their_caller(service: Service) -> None:
    mine = service.client(headers={"Idempotency-Key": "k-1"})
    other = service.client(await service.new_key("other"), headers={"Idempotency-Key": "k-1"})
    browser, _ = await service.session()
    answers = [
        await mine.post("/generate", json=BODY),
        await other.post("/generate", json=BODY),
        await browser.post("/generate", json=BODY, headers={"Idempotency-Key": "k-1"}),
    ]
    assert len({answer.json()["id"] for answer in answers}) == 3


async def test_answers_posted_again_are_not_counted_again(service: Service) -> None:
    client = service.client()
    pairs = (await client.get("/pairs")).json()["results"][:4]
    body = {"choices": [{"pair_id": pair["pair_id"], "preferred": 1} for pair in pairs]}
    headers = {"Idempotency-Key": "k-1", "Prefer": "wait=60"}
    first = await client.post("/users/ann/preferences", json=body, headers=headers)
    again = await client.post("/users/ann/preferences", json=body, headers=headers)
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    assert first.json()["profile_version"] == 1
    assert len(service.runtime.encoded) == 1


async def test_a_refused_request_leaves_its_key_free(service: Service) -> None:
    client = service.client(headers={"Idempotency-Key": "k-1"})
    assert (await client.post("/generate", json={**BODY, "steps": 0})).status_code == 422
    assert (await client.post("/generate", json=BODY)).status_code == 202


async def test_a_key_is_short_printable_text(service: Service) -> None:
    client = service.client()
    for key in ("", "é", "k" * 256, "a\tb", "a\u00a0b"):
        headers = [(b"Idempotency-Key", key.encode()), (b"Content-Type", b"application/json")]
        answer = await client.post("/generate", content=b'{"prompt":"a"}', headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_idempotency_key")


async def test_other_preferences_are_ignored_and_long_waits_are_shortened(
    service: Service,
) -> None:
    client = service.client()
    for prefer in ("respond-async", "wait=soon", "wait=-1", "wait=0", "wait=1e9", ""):
        answer = await client.post("/generate", json=BODY, headers={"Prefer": prefer})
        assert answer.status_code == 202, prefer
    answer = await client.post(
        "/generate", json=BODY, headers={"Prefer": "respond-async, wait=9999"}
    )
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=60"
