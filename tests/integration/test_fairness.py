"""One person's many jobs neither fill the queue nor starve another's one."""

from dataclasses import replace

import httpx
import pytest
from sqlalchemy import select

from service.core.ports import Versions
from service.infra.sql.tables import Job
from service.worker.reencoding import queue_stale
from tests.fake_runtime import FakeRuntime
from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


async def ask(client: httpx.AsyncClient, seed: int, **body: object) -> httpx.Response:
    return await client.post(
        "/generate", json={"prompt": "a fox", "steps": 1, "seed": seed, **body}
    )


async def test_a_few_sessions_cannot_fill_the_queue(start: Start) -> None:
    runtime = FakeRuntime()
    runtime.load_gate.clear()
    service: Service = await start(
        runtime,
        ready=False,
        max_queued_jobs=16,
        max_queued_jobs_of_sessions=12,
        trusted_proxies="127.0.0.1",
    )
    accepted = []
    for i in range(4):
        browser, _ = await service.session(f"10.0.0.{i}")
        answers = [await ask(browser, seed) for seed in range(8)]
        assert {answer.status_code for answer in answers} == {202, 429}
        assert {a.json()["code"] for a in answers if a.status_code == 429} == {"too_many_jobs"}
        accepted.append(sum(answer.status_code == 202 for answer in answers))
    assert accepted == [4, 4, 2, 1]
    fifth, _ = await service.session("10.0.0.4")
    assert (await ask(fifth, 0)).status_code == 202
    sixth, _ = await service.session("10.0.0.5")
    full = await ask(sixth, 0)
    assert (full.status_code, full.json()["code"]) == (503, "queue_full")
    assert int(full.headers["retry-after"]) > 0
    assert (await ask(service.client(), 0)).status_code == 202, "keys find room beside sessions"


async def test_sessions_of_one_address_leave_places_to_another_and_to_keys(start: Start) -> None:
    runtime = FakeRuntime()
    runtime.load_gate.clear()
    service: Service = await start(
        runtime,
        ready=False,
        max_queued_jobs=16,
        max_queued_jobs_of_sessions=12,
        trusted_proxies="127.0.0.1",
    )
    states = []
    for seed in range(10):
        browser, _ = await service.session("10.0.0.1")
        states.append((await ask(browser, seed)).status_code)
    assert states == [202] * 6 + [429] * 4
    visitor, _ = await service.session("10.0.0.2")
    assert (await ask(visitor, 0)).status_code == 202
    assert (await ask(service.client(), 0)).status_code == 202


async def test_sessions_cannot_fill_the_queue_of_encodings_either(start: Start) -> None:
    runtime = FakeRuntime()
    runtime.load_gate.clear()
    service: Service = await start(
        runtime,
        ready=False,
        max_queued_jobs=4,
        max_queued_jobs_of_sessions=2,
        trusted_proxies="127.0.0.1",
    )
    states = []
    for i in range(3):
        browser, user_id = await service.session(f"10.0.0.{i}")
        pairs = (await browser.get(f"/users/{user_id}/quiz")).json()["pairs"]
        body = {"choices": [{"pair_id": pair["pair_id"], "preferred": 0} for pair in pairs]}
        answer = await browser.post(f"/users/{user_id}/preferences", json=body)
        states.append(answer.status_code)
    assert states == [202, 202, 503]
    client = service.client()
    pairs = (await client.get("/users/ann/quiz")).json()["pairs"]
    body = {"choices": [{"pair_id": pair["pair_id"], "preferred": 0} for pair in pairs]}
    assert (await client.post("/users/ann/preferences", json=body)).status_code == 202


async def test_tenants_take_turns_and_their_people_among_themselves(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    first = (await ask(client, 100, user_id="ann")).json()["id"]
    await service.until(client, first, "running")
    jobs = [await ask(client, seed, user_id="ann") for seed in (101, 102, 103, 104)]
    jobs += [await ask(client, seed, user_id="bob") for seed in (201, 202)]
    browser, _ = await service.session()
    jobs += [await ask(browser, 301), await ask(client, 401)]
    service.runtime.gate.set()
    for job in jobs:
        await service.until(browser if job is jobs[-2] else client, job.json()["id"], "succeeded")
    order = [spec.seed for spec in service.runtime.generated]
    assert order == [100, 301, 201, 401, 101, 202, 102, 103, 104]


async def test_a_key_with_many_ids_holds_another_key_up_no_longer_than_with_one(
    service: Service,
) -> None:
    other = service.client(await service.new_key("other"))
    waits = []
    for ids in (1, 16):
        client = service.client()
        service.runtime.gate.clear()
        many = [await ask(client, 1000 * ids + i, user_id=f"u{i % ids}") for i in range(16)]
        await service.until(client, many[0].json()["id"], "running")
        one = (await ask(other, 7777 + ids)).json()["id"]
        service.runtime.gate.set()
        await service.until(other, one, "succeeded")
        for job in many:
            await service.until(client, job.json()["id"], "succeeded")
        order = [spec.seed for spec in service.runtime.generated]
        waits.append(order.index(7777 + ids) % 17)
    assert waits == [1, 1]


async def test_52_sessions_of_one_address_hold_a_key_up_by_one_job(start: Start) -> None:
    service: Service = await start(max_queued_jobs=64, max_queued_jobs_of_sessions=56)
    service.runtime.gate.clear()
    for seed in range(52):
        browser, _ = await service.session()
        if (await ask(browser, seed)).status_code != 202:
            break
    client = service.client()
    mine = (await ask(client, 7777)).json()["id"]
    service.runtime.gate.set()
    await service.until(client, mine, "succeeded")
    order = [spec.seed for spec in service.runtime.generated]
    assert order.index(7777) <= service.runtime.jobs_at_once


async def test_what_a_new_encoder_reads_anew_holds_nobody_up(start: Start) -> None:
    service: Service = await start()
    client = service.client()
    for person in range(5):
        await service.answer(client, f"u{person}")
    service.runtime.gate.clear()
    first = (await ask(client, 1)).json()["id"]
    await service.until(client, first, "running")
    assert await queue_stale(
        service.database, replace(await versions(service), encoder_version="b")
    )
    mine = (await ask(client, 2, user_id="u3")).json()["id"]
    service.runtime.gate.set()
    await service.until(client, mine, "succeeded")
    async with service.database.read() as store:
        jobs = (await store.session.scalars(select(Job).order_by(Job.started_at))).all()
    after = [job.id for job in jobs][[job.id for job in jobs].index(first) :]
    assert after.index(mine) <= 2


async def versions(service: Service) -> Versions:
    known = await service.parts.worker.versions()
    assert known is not None
    return known


async def test_an_encoding_runs_before_the_pictures_of_its_turn(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    first = (await ask(client, 100, user_id="ann")).json()["id"]
    await service.until(client, first, "running")
    mine = [(await ask(client, seed, user_id="bob")).json()["id"] for seed in (201, 202)]
    pairs = (await client.get("/users/bob/quiz")).json()["pairs"]
    body = {"choices": [{"pair_id": pair["pair_id"], "preferred": 0} for pair in pairs]}
    link = (await client.post("/users/bob/preferences", json=body)).json()["links"]["job"]
    service.runtime.gate.set()
    await service.until(client, mine[-1], "succeeded")
    async with service.database.read() as store:
        jobs = (await store.session.scalars(select(Job).order_by(Job.started_at))).all()
    assert [job.id for job in jobs] == [first, link.split("/")[-1], *mine]


async def test_one_who_encodes_without_end_leaves_every_other_turn(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    service.runtime.gate.clear()
    await client.put("/users/ann/profile", json={"text": "I like fog, once."})
    other = (await ask(client, 1, user_id="bob")).json()["id"]
    await client.put("/users/ann/profile", json={"text": "I like fog, twice."})
    service.runtime.gate.set()
    await service.until(client, other, "succeeded")
    async with service.database.read() as store:
        bobs = await store.jobs.get(other)
        readings = select(Job).where(Job.kind == "encode").order_by(Job.created_at)
        last = (await store.session.scalars(readings)).all()[-1]
    assert bobs is not None
    assert bobs.started_at is not None
    assert last.started_at is None or last.started_at > bobs.started_at


async def test_the_engine_is_told_the_tenant_and_the_address_before_the_person(
    service: Service,
) -> None:
    for user_id in ("ann", "bob"):
        await service.generate(service.client(), user_id=user_id, fresh=True)
    browser, user_id = await service.session()
    await service.generate(browser, user_id=user_id)
    tenant, others, session = (owner.split("/") for owner in service.runtime.owners)
    assert tenant[:2] == others[:2] == ["default", ""]
    assert tenant[2] != others[2]
    assert session[0] == "browser"
    assert session[1]
