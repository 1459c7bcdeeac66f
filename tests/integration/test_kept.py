"""What is kept has bounds, and an end: of sessions together, of versions, of jobs of nobody."""

import asyncio
import sqlite3
from datetime import timedelta
from typing import Any

import pytest

from service.actions import housekeeping
from service.infra.sql.repositories import profiles
from service.infra.sql.tables import now
from tests.api_calls import code_of
from tests.integration.test_retention import age, count, files_of, parts_of
from tests.running_service import Service

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "ceiling",
    [
        {"max_people_of_sessions": 1},
        {"max_rows_of_sessions": 1},
        {"max_picture_bytes_of_sessions": 1},
    ],
    ids=lambda ceiling: next(iter(ceiling)),
)
async def test_sessions_together_stop_at_their_ceiling_and_a_key_goes_on(
    start: Any, monkeypatch: pytest.MonkeyPatch, ceiling: dict[str, int]
) -> None:
    monkeypatch.setattr("service.actions.limits._COUNT_EVERY_S", 0.0)
    service = await start(**ceiling)
    browser, user_id = await service.session()
    await service.generate(browser, user_id=user_id)
    other, other_id = await service.session()
    for client, person in ((browser, user_id), (other, other_id)):
        answer = await client.post("/generate", json={"prompt": "a fox", "user_id": person})
        assert (answer.status_code, code_of(answer)) == (503, "sessions_full")
        assert answer.headers["retry-after"]
        answer = await client.put(f"/users/{person}/profile", json={"text": "I like fog."})
        assert code_of(answer) == "sessions_full"
    assert (await service.generate(service.client()))["status"] == "succeeded"
    assert (await browser.delete(f"/users/{user_id}")).status_code == 200
    assert (await service.generate(other, user_id=other_id))["status"] == "succeeded"


async def test_an_address_leaves_room_for_others_below_the_ceilings_of_all_sessions(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.actions.limits._COUNT_EVERY_S", 0.0)
    service = await start(max_people_of_sessions=8, trusted_proxies="127.0.0.1")

    async def begins(address: str) -> str:
        browser, user_id = await service.session(address)
        answer = await browser.post(
            f"/users/{user_id}/preferences",
            json={"choices": [{"pair_id": "pair-00", "preferred": 0}]},
        )
        return "begun" if answer.status_code == 202 else f"{answer.status_code} {code_of(answer)}"

    one = [await begins("192.0.2.1") for _ in range(6)]
    assert one == ["begun"] * 4 + ["429 address_full"] * 2
    two = [await begins("192.0.2.2") for _ in range(3)]
    assert two == ["begun"] * 2 + ["429 address_full"]
    assert await begins("192.0.2.3") == "begun"
    assert (await service.generate(service.client()))["status"] == "succeeded"


async def test_a_person_who_begins_by_contributing_counts_for_their_address(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.actions.limits._COUNT_EVERY_S", 0.0)
    service = await start(max_people_of_sessions=8, trusted_proxies="127.0.0.1")
    statuses = []
    for _ in range(5):
        browser, user_id = await service.session("192.0.2.1")
        wish = {"contribute": True}
        statuses.append(
            (await browser.put(f"/users/{user_id}/contribution", json=wish)).status_code
        )
    assert statuses == [200] * 4 + [429]


async def test_below_the_floor_of_free_space_nothing_is_written_and_deletions_are(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.client()
    await service.answer(client, "ann")
    database = parts_of(service).database
    limit = service.settings.min_free_bytes
    monkeypatch.setattr(type(database), "free_bytes", lambda self: limit - 1)
    for answer in (
        await client.put("/users/ann/profile", json={"text": "I like fog."}),
        await client.post(
            "/users/ann/preferences", json={"choices": [{"pair_id": "pair-00", "preferred": 0}]}
        ),
    ):
        assert (answer.status_code, code_of(answer)) == (503, "storage_full")
    ready = await service.bare().get("/health/ready")
    assert "no room" in ready.json()["reason"]
    assert (await client.delete("/users/ann")).status_code == 200


async def test_a_hundred_and_fifty_edits_are_pages_and_few_rows(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "KEPT_VERSIONS", 25)
    client = service.client()
    await service.answer(client, "ann")
    job = await service.generate(client, user_id="ann")
    pinned = job["result"]["profile_version"]
    for number in range(40):
        edit = {"text": f"I like fog {number}."}
        answer = await client.put("/users/ann/profile", json=edit, headers={"Prefer": "wait=60"})
        assert answer.status_code == 200, answer.text
    held = (await client.get("/users/ann/preferences")).json()
    assert [one["version"] for one in held["profiles"]] == list(range(22, 42))
    assert (held["profile_version"], held["status"]) == (41, "ready")
    seen, cursor = [], held["profiles_next"]
    while cursor:
        page = (await client.get(f"/users/ann/profiles?limit=3&cursor={cursor}")).json()
        seen += [one["version"] for one in page["results"]]
        cursor = page["next"]
    assert seen == [21, 20, 19, 18, 17, pinned], "the newest, and what a picture is pinned to"
    assert (await client.get(f"/jobs/{job['id']}")).status_code == 200
    assert (await client.get("/users/ann/profiles?cursor=x")).status_code == 422
    assert (await client.get("/users/bob/profiles")).status_code == 404


async def test_sessions_nobodys_jobs_and_what_sessions_did_in_vain_end_by_default(
    service: Service,
) -> None:
    client = service.client()
    await service.generate(client)
    await service.answer(client, "ann")
    await service.generate(client, user_id="ann")
    browser, user_id = await service.session()
    await service.generate(browser, user_id=user_id)
    service.runtime.gate.clear()
    vain = (await browser.post("/generate", json={"prompt": "x fox", "user_id": user_id})).json()
    await browser.delete(f"/jobs/{vain['id']}")
    service.runtime.gate.set()
    await age(service, 4)
    await housekeeping.tidy(parts_of(service))
    assert (await browser.get(f"/jobs/{vain['id']}")).status_code == 404
    assert (await count(service, "users"), files_of(service)) == (2, 3)
    await age(service, 100)
    await housekeeping.tidy(parts_of(service))
    assert (await count(service, "users"), files_of(service)) == (2, 2), "nobody's are gone"
    await age(service, 200)
    await housekeeping.tidy(parts_of(service))
    assert (await count(service, "users"), files_of(service)) == (1, 1), "keys' people stay"


async def test_jobs_of_nobody_are_listed_canceled_and_erased_together(service: Service) -> None:
    client = service.client()
    first = await service.generate(client)
    await service.answer(client, "ann")
    hers = await service.generate(client, user_id="ann")
    service.runtime.gate.clear()
    body = {"prompt": "a fox", "steps": 3, "seed": 99}
    waiting = (await client.post("/generate", json=body)).json()["id"]
    for query in ("", "?nobody=true&user_id=ann", "?erase=true"):
        assert (await client.delete(f"/jobs{query}")).status_code == 422
    stranger = service.client(await service.new_key("other"))
    none = {"canceled": [], "erased": {"jobs": 0, "images": 0}}
    assert (await stranger.delete("/jobs?nobody=true&erase=true")).json() == none
    browser, _ = await service.session()
    assert (await browser.delete("/jobs?nobody=true&erase=true")).status_code == 404
    ended = (await client.delete("/jobs?nobody=true")).json()
    assert ended == {"canceled": [waiting]}
    ended = (await client.delete("/jobs?nobody=true&erase=true")).json()
    assert ended == {"canceled": [], "erased": {"jobs": 2, "images": 1}}
    service.runtime.gate.set()
    listed = (await client.get("/jobs")).json()["results"]
    assert first["id"] not in [job["id"] for job in listed]
    assert (await client.get(hers["result"]["images"][0]["url"])).status_code == 200
    assert files_of(service) == 1


async def test_a_cookie_ends_with_its_person(service: Service) -> None:
    browser, user_id = await service.session()
    await service.generate(browser, user_id=user_id)
    cookies = dict(browser.cookies)
    erased = await browser.delete(f"/users/{user_id}")
    assert erased.headers["clear-site-data"] == '"cache"'
    kept = service.bare(headers={"Sec-Fetch-Site": "same-origin"}, cookies=cookies)
    answer = await kept.post("/generate", json={"prompt": "a fox", "user_id": user_id})
    assert (answer.status_code, code_of(answer)) == (401, "session_ended")
    answer = await kept.put(f"/users/{user_id}/profile", json={"text": "I like fog."})
    assert (answer.status_code, code_of(answer)) == (401, "session_ended")
    assert await count(service, "users") == 0
    page = await kept.get("/")
    assert user_id not in page.text, "a page begins another session"
    async with service.database.write() as store:
        assert await store.users.forget_ended_sessions(now() - timedelta(days=365)) == 0
        assert await store.users.forget_ended_sessions(now() + timedelta(days=1)) == 1


@pytest.mark.sqlite_only
async def test_a_database_that_another_process_locks_is_not_ready_and_refuses_soon(
    service: Service,
) -> None:
    file = service.settings.data_dir / "ppd.db"
    other = sqlite3.connect(file, isolation_level=None, timeout=60, check_same_thread=False)
    await asyncio.to_thread(other.execute, "BEGIN EXCLUSIVE")  # who writes now goes on meanwhile
    try:
        ready = await service.bare().get("/health/ready")
        assert ready.status_code == 503
        assert "locked by another process" in ready.json()["reason"]
        began = asyncio.get_running_loop().time()
        answer = await service.client().post("/generate", json={"prompt": "a fox"})
        assert (answer.status_code, code_of(answer)) == (503, "database")
        assert asyncio.get_running_loop().time() - began < 14
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert (await service.bare().get("/health/ready")).status_code == 200


async def test_rows_of_prompts_are_as_long_as_their_text(service: Service) -> None:
    client = service.client()
    prompt = "fox " + "\U0001f600" * 900
    answer = await client.post("/generate", json={"prompt": prompt})
    async with service.database.read() as store:
        statement = "SELECT length(CAST(request AS BLOB)) FROM jobs"
        raw = (await store.session.connection()).exec_driver_sql(statement)
        size = (await raw).scalar_one()
    assert answer.status_code == 202
    assert size < 5_000
    assert (await client.get("/users/none/preferences")).status_code == 404
