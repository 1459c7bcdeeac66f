"""A share of people is served with another adapter, everywhere, until it is ended."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.core.proof.serving import Serving
from service.infra.sql.tables import User
from tests.integration.conftest import Start
from tests.integration.test_adapters import SHIPPED, kept
from tests.integration.test_made_pairs import made
from tests.running_service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

PEOPLE = [f"person-{i}" for i in range(24)]


async def made_with(
    service: Service, client: httpx.AsyncClient, people: Sequence[str], **body: Any
) -> dict[str, str]:
    """Which adapter each person's picture was made with."""

    async def one(person: str) -> str:
        job = await service.generate(client, user_id=person, **body)
        return str(job["result"]["adapter_version"])

    return {person: await one(person) for person in people}


async def drawn_in(service: Service, serving: Serving) -> set[str]:
    """The people who fall in the share, as the function says."""
    found = set()
    async with service.database.read() as store:
        for person in PEOPLE:
            user = await store.users.find("default", person)
            assert isinstance(user, User)
            if serving.trial_of(user.pk) is not None:
                found.add(person)
    return found


async def share(client: httpx.AsyncClient, version: str, part: float) -> dict[str, Any]:
    answer = await client.post(f"/admin/adapters/{version}/share", json={"share": part})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_share_of_people_is_served_the_trial_over_restarts_until_it_ends(
    start: Start, tmp_path: Path
) -> None:
    service: Service = await start(data_dir=tmp_path / "data", max_queued_jobs_per_caller=40)
    client = service.client()
    one, two = await kept(service, b"one"), await kept(service, b"two")
    assert (await client.post(f"/admin/adapters/{one}/activate")).status_code == 200
    before = await made_with(service, client, PEOPLE)
    assert set(before.values()) == {one}
    told = await share(client, two, 0.4)
    assert (told["active"], told["trial"], told["share"]) == (one, two, 0.4)
    assert {row["version"]: row["share"] for row in told["results"]} == {one: 0.6, two: 0.4}
    mixed = await made_with(service, client, PEOPLE)
    theirs = await drawn_in(service, Serving(one, two, 0.4))
    assert {person for person, version in mixed.items() if version == two} == theirs
    assert 0 < len(theirs) < len(PEOPLE)

    service.server.should_exit = True
    await service.serving
    again: Service = await start(data_dir=tmp_path / "data", max_queued_jobs_per_caller=40)
    client = again.client()
    assert await made_with(again, client, PEOPLE, seed=8) == mixed
    assert (await client.post("/admin/adapters/withdraw")).json()["trial"] is None
    assert set((await made_with(again, client, PEOPLE, seed=9)).values()) == {one}
    assert (await share(client, two, 0.4))["trial"] == two
    promoted = (await client.post(f"/admin/adapters/{two}/activate")).json()
    assert (promoted["active"], promoted["trial"], promoted["share"]) == (two, None, None)
    assert set((await made_with(again, client, PEOPLE, seed=10)).values()) == {two}


async def test_every_way_to_ask_takes_the_persons_own_adapter(service: Service) -> None:
    client = service.client()
    two = await kept(service, b"two")
    await service.answer(client, "ann")
    await service.answer(client, "bob")
    await share(client, two, 0.999_999)

    async def adapter(**body: Any) -> str:
        return str((await service.generate(client, **body))["result"]["adapter_version"])

    assert await adapter(user_id="ann") == two
    assert await adapter(blend=[{"user_id": "ann", "weight": 1.0}]) == two
    assert await adapter() == SHIPPED
    both = [{"user_id": "ann", "weight": 1.0}, {"user_id": "bob", "weight": 1.0}]
    assert await adapter(blend=both) == SHIPPED
    openai = {"prompt": "a fox", "user": "ann", "steps": 2, "response_format": "url"}
    assert (await client.post("/v1/images/generations", json=openai)).status_code == 200
    assert service.runtime.adapters[-1].version == two
    browser, user_id = await service.session()
    await service.answer(browser, user_id)
    own = await service.generate(browser, user_id=user_id)
    assert own["result"]["adapter_version"] == two
    base = await service.generate(browser)
    assert base["result"]["adapter_version"] == SHIPPED


async def test_all_tastes_of_a_person_are_served_the_same_and_prove_as_one_person(
    service: Service,
) -> None:
    client = service.client()
    two = await kept(service, b"two")
    await share(client, two, 0.5)
    people = PEOPLE[:6]
    waits = {"Prefer": "wait=60"}
    for person in people:
        for query in ({}, {"taste": "home"}):
            answer = await client.put(
                f"/users/{person}/profile",
                params=query,
                json={"text": "I like fog."},
                headers=waits,
            )
            assert answer.status_code == 200, answer.text
    first = await made_with(service, client, people)
    assert await made_with(service, client, people, taste="home") == first
    assert set(first.values()) <= {SHIPPED, two}, "chance may put all six in one"

    async def choose(person: str, **taste: str) -> None:
        ids = [
            await made(service, client, user_id=person, **taste),
            await made(service, client),
        ]
        body = {"choices": [{"image_ids": ids, "preferred": 0, "blind": True}]}
        answer = await client.post(f"/users/{person}/preferences", params=taste, json=body)
        assert answer.is_success, answer.text

    await choose(people[0])
    await choose(people[0], taste="home")
    (one,) = (await client.get("/admin/wins")).json()["results"]
    assert (one["people"], one["observed"], one["choices"]["won"]) == (1, 1, 2)
    exported = (await client.get(f"/users/{people[0]}/export")).json()["blind_choices"]
    assert len(exported) == 2
    assert (await client.delete(f"/users/{people[0]}")).is_success
    assert (await client.get("/admin/wins")).json()["results"] == []


async def test_readings_are_not_an_adapters_and_are_read_by_both(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    read = len(service.runtime.encoded)
    first = (await service.generate(client, user_id="ann"))["result"]
    await share(client, await kept(service, b"two"), 0.999_999)
    second = (await service.generate(client, user_id="ann"))["result"]
    assert second["profile_version"] == first["profile_version"]
    assert second["personalization_applied"]
    assert len(service.runtime.encoded) == read


async def test_an_equal_request_gets_no_picture_of_the_other_adapter(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    two = await kept(service, b"two")

    async def made() -> tuple[str, bool, bytes]:
        result = (await service.generate(client, user_id="ann"))["result"]
        picture = await client.get(result["images"][0]["url"])
        return result["adapter_version"], result["cached"], picture.content

    shipped = await made()
    await share(client, two, 0.999_999)
    trial = await made()
    assert (shipped[:2], trial[:2]) == ((SHIPPED, False), (two, False))
    assert shipped[2] != trial[2]
    assert await made() == (two, True, trial[2])
    await client.post("/admin/adapters/withdraw")
    assert await made() == (SHIPPED, True, shipped[2])


async def test_a_trial_needs_another_adapter_a_share_and_a_kept_file(service: Service) -> None:
    client = service.client()
    one = await kept(service, b"one")
    await client.post(f"/admin/adapters/{one}/activate")
    for version, body, status, code in (
        (one, {"share": 0.2}, 409, "adapter_refused"),
        ("0" * 12, {"share": 0.2}, 404, "adapter_not_found"),
        (one, {"share": 0}, 422, "invalid_request"),
        (one, {"share": 1}, 422, "invalid_request"),
        (one, {}, 422, "invalid_request"),
    ):
        answer = await client.post(f"/admin/adapters/{version}/share", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), body
    nothing = (await client.post("/admin/adapters/withdraw")).json()
    assert (nothing["active"], nothing["trial"]) == (one, None)


async def test_the_trial_is_not_removed_and_going_back_restores_it(service: Service) -> None:
    one, two = await kept(service, b"one"), await kept(service, b"two")

    async def serving() -> Serving:
        async with service.database.read() as store:
            return await store.adapters.serving()

    async def back() -> Serving | None:
        async with service.database.write() as store:
            return await store.adapters.rollback()

    async with service.database.write() as store:
        assert await store.adapters.activate(one)
        assert await store.adapters.activate(two, 0.2)
    async with service.database.read() as store:
        begun = await store.adapters.last_share()
    assert begun is not None
    assert begun.until is None
    with pytest.raises(ValueError, match="withdraw it first"):
        async with service.database.write() as store:
            await store.adapters.remove(two)
    async with service.database.write() as store:
        assert await store.adapters.activate(two, 0.4)
    async with service.database.write() as store:
        assert await store.adapters.activate(two)
    async with service.database.read() as store:
        ended = await store.adapters.last_share()
    assert ended is not None
    assert (ended.since, ended.serving) == (begun.since, Serving(one, two, 0.4))
    assert [step.share for _, step in ended.steps] == [0.2, 0.4]
    assert ended.until is not None
    assert ended.until > ended.since
    assert [await back() for _ in range(3)] == [
        Serving(one, two, 0.4),
        Serving(one, two, 0.2),
        Serving(one),
    ]
    async with service.database.write() as store:
        await store.adapters.remove(two)
    assert await serving() == Serving(one)
    assert await back() == Serving(None)


async def test_a_share_begins_and_ends_beside_requests_and_removals(service: Service) -> None:
    """Many at once: nothing waits for itself, and every job is of an adapter that was there."""
    client = service.client()
    one, two = await kept(service, b"one"), await kept(service, b"two")

    async def change(i: int) -> None:
        paths = (f"{one}/activate", "withdraw", "rollback", "deactivate", f"{two}/activate")
        if i % 6 == 5:
            await client.post(f"/admin/adapters/{two}/share", json={"share": 0.5})
        else:
            answer = await client.post(f"/admin/adapters/{paths[i % 6]}")
            assert answer.status_code in (200, 409), answer.text

    async def ask(i: int) -> str:
        body = {"prompt": "a fox", "steps": 1, "user_id": PEOPLE[i % 4], "seed": i}
        answer = await client.post("/generate", json=body, headers={"Prefer": "wait=60"})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["result"]["adapter_version"])

    made, _ = await asyncio.gather(
        asyncio.gather(*(ask(i) for i in range(8))),
        asyncio.gather(*(change(i) for i in range(18))),
    )
    assert set(made) <= {SHIPPED, one, two}
