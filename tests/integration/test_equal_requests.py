"""A request that equals an earlier one gets its pictures; others are never given them."""

import asyncio
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image as PillowImage
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError

from service.actions import housekeeping
from service.core.errors import JobFailure
from service.core.messages import KINDS
from service.core.ports import Versions
from service.infra.adapters import keep
from service.infra.queue.remote_workers import RemoteWorkers
from service.infra.sql.tables import Image, Job, WorkerRow
from tests.fake_runtime import FakeRuntime
from tests.integration.conftest import Start
from tests.integration.test_retention import age, parts_of
from tests.production import deployment
from tests.running_service import Service, stop

pytestmark = pytest.mark.anyio
both_databases = pytest.mark.both_databases


class Many(FakeRuntime):
    """Several jobs at once, as the real engine takes them."""

    @property
    def jobs_at_once(self) -> int:
        return 4


def ids(job: dict[str, Any]) -> list[str]:
    assert job["status"] == "succeeded", job
    return [image["url"] for image in job["result"]["images"]]


def cached(job: dict[str, Any]) -> bool:
    ids(job)
    return bool(job["result"]["cached"])


async def ask(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    asked = {"prompt": "a fox", "steps": 3, "seed": 7, **body}
    answer = await client.post("/generate", json=asked)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def made(service: Service) -> int:
    return len(service.runtime.generated)


# Asked again


@both_databases
async def test_an_equal_request_is_given_the_pictures_without_the_model(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    body = {"user_id": "ann", "n": 2, "negative_prompt": "night", "strength": 0.5}
    first = await service.generate(client, **body)
    again = await service.generate(client, **body)
    assert (cached(first), cached(again)) == (False, True)
    assert first["id"] != again["id"]
    assert made(service) == 2
    expected = {**first["result"], "cached": True, "timings": again["result"]["timings"]}
    assert again["result"] == expected
    assert again["result"]["timings"]["denoise_s"] == 0
    assert first["result"]["ai_generated"] is again["result"]["ai_generated"] is True
    # Without `Prefer: wait` too, and the job is one like any other.
    at_once = await ask(client, **body)
    assert ids(at_once) == ids(first)
    listed = (await client.get(f"/jobs/{at_once['id']}")).json()
    assert listed == at_once
    events = await client.get(at_once["links"]["events"])
    assert events.text.count("event: status") == 1
    assert at_once["id"] in events.text


@both_databases
@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "a Fox"},
        {"negative_prompt": "night"},
        {"seed": 8},
        {"n": 2},
        {"steps": 4},
        {"guidance_scale": 4.5},
        {"guidance_interval": [0.25, 1]},
        {"solver": "dpm++2m"},
        {"strength": 0.5},
        {"user_id": None},
        {"user_id": None, "blend": [{"user_id": "ann", "weight": 2.0}]},
    ],
    ids=lambda other: "-".join(other),
)
async def test_all_that_decides_the_picture_has_to_be_equal(
    service: Service, other: dict[str, Any]
) -> None:
    client = service.client()
    await service.answer(client, "ann")
    await service.generate(client, user_id="ann")
    assert not cached(await service.generate(client, **{"user_id": "ann", **other}))


@both_databases
async def test_what_is_as_by_default_is_equal_to_what_is_left_out(service: Service) -> None:
    client = service.client()
    first = await service.generate(client)
    own = service.runtime.capabilities.sampling
    named = {
        "guidance_scale": 4,
        "width": 128,
        "height": 128,
        "n": 1,
        "negative_prompt": "",
        "solver": own.solver,
        "guidance_interval": list(own.guidance_interval),
    }
    assert ids(await service.generate(client, **named)) == ids(first)
    # The seed that was drawn for a request is said in its result, and can be asked for.
    drawn = await service.generate(client, seed=None)
    again = await service.generate(client, seed=drawn["result"]["images"][0]["seed"])
    assert cached(again)
    assert ids(again) == ids(drawn)


@both_databases
async def test_strength_zero_is_given_the_picture_of_no_user(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    base = await service.generate(client)
    zero = await service.generate(client, user_id="ann", strength=0)
    assert ids(zero) == ids(base)
    assert zero["result"]["reason"] == "strength_zero"
    assert zero["result"]["strength"] == 0
    assert zero["result"]["profile_version"] == 1
    assert "reason" not in base["result"]
    # What was made in her name is given to nobody else, not even to nobody.
    zero = await service.generate(client, user_id="ann", strength=0, seed=8)
    assert not cached(await service.generate(client, seed=8))
    assert ids(await service.generate(client, user_id="ann", strength=0, seed=8)) == ids(zero)
    blend = [{"user_id": "ann", "weight": 1.0}, {"user_id": "bob", "weight": 1.0}]
    both = await service.generate(client, blend=blend, strength=0, seed=9)
    assert not cached(both)
    assert not cached(await service.generate(client, user_id="ann", strength=0, seed=9))
    assert not cached(await service.generate(client, seed=9))


@both_databases
async def test_in_a_browser_strength_zero_and_no_user_are_one_picture_in_either_order(
    service: Service,
) -> None:
    browser, user_id = await service.session()
    await service.answer(browser, user_id)
    for seed, bodies in {
        7: [{}, {"user_id": user_id, "strength": 0}],
        8: [{"user_id": user_id, "strength": 0}, {}],
    }.items():
        one, other = [await service.generate(browser, seed=seed, **body) for body in bodies]
        assert ids(one) == ids(other)
    assert made(service) == 2


@both_databases
async def test_a_request_can_ask_for_fresh_computation(service: Service) -> None:
    client = service.client()
    first = await service.generate(client)
    fresh = await service.generate(client, fresh=True)
    assert not cached(fresh)
    assert ids(fresh) != ids(first)
    assert ids(await service.generate(client)) == ids(first)


async def test_openais_clients_are_given_them_too(service: Service) -> None:
    client = service.client()
    body = {"prompt": "a fox", "seed": 7, "response_format": "b64_json"}
    answers = [(await client.post("/v1/images/generations", json=body)).json() for _ in range(2)]
    assert [answer["ppd"]["cached"] for answer in answers] == [False, True]
    assert answers[0]["data"] == answers[1]["data"]
    fresh = await client.post("/v1/images/generations", json={**body, "fresh": True})
    assert fresh.json()["ppd"]["cached"] is False


@both_databases
async def test_an_idempotency_key_of_its_own_changes_nothing(service: Service) -> None:
    client = service.client()
    body = {"prompt": "a fox", "seed": 7, "steps": 3}
    first = await service.generate(client)
    for _ in range(2):
        answer = await client.post("/generate", json=body, headers={"Idempotency-Key": "one"})
        assert ids(answer.json()) == ids(first)
    async with service.database.read() as store:
        assert await store.session.scalar(select(func.count()).select_from(Job)) == 2


# While the first one is being made


@both_databases
async def test_twenty_equal_requests_at_once_are_one_computation(start: Start) -> None:
    service: Service = await start(Many(), max_queued_jobs_per_caller=10)
    client = service.client()
    service.runtime.gate.clear()
    jobs = list(await asyncio.gather(*(ask(client, n=4) for _ in range(12))))
    others = [await ask(client, seed=100 + i) for i in range(8)]
    jobs += [await ask(client, n=4) for _ in range(8)]  # one computation takes one place
    service.runtime.gate.set()
    ended = [await service.until(client, job["id"], "succeeded") for job in jobs]
    assert len({tuple(ids(job)) for job in ended}) == 1
    assert sorted(cached(job) for job in ended) == [False] + [True] * 19
    for job in others:
        assert not cached(await service.until(client, job["id"], "succeeded"))
    assert made(service) == 4 + 8


@both_databases
async def test_one_that_waits_for_its_equal_holds_up_nobody(start: Start) -> None:
    service: Service = await start(Many())
    client = service.client()
    service.runtime.gate.clear()
    equal = [await ask(client) for _ in range(4)]
    await service.until(client, equal[0]["id"], "running")
    other = await ask(client, seed=8)
    await service.until(client, other["id"], "running")
    states = [(await client.get(f"/jobs/{job['id']}")).json()["status"] for job in equal]
    assert states == ["running", "queued", "queued", "queued"]


@both_databases
async def test_when_the_first_is_canceled_another_is_made_in_its_place(start: Start) -> None:
    service: Service = await start(Many())
    client = service.client()
    service.runtime.gate.clear()
    first, second, third = [await ask(client) for _ in range(3)]
    await service.until(client, first["id"], "running")
    assert (await client.delete(f"/jobs/{first['id']}")).json()["status"] == "canceled"
    service.runtime.gate.set()
    ended = [await service.until(client, job["id"], "succeeded") for job in (second, third)]
    assert sorted(cached(job) for job in ended) == [False, True]
    assert (await client.get(f"/jobs/{first['id']}")).json()["status"] == "canceled"


@both_databases
async def test_when_the_first_fails_another_is_tried(start: Start) -> None:
    class FailsOnce(Many):
        faults = 1

        def generate(self, *args, **whose):  # type: ignore[no-untyped-def]
            made = super().generate(*args, **whose)
            if self.faults:
                self.faults -= 1
                raise JobFailure("model_error")
            return made

    service: Service = await start(FailsOnce())
    client = service.client()
    service.runtime.gate.clear()
    jobs = [await ask(client) for _ in range(3)]
    service.runtime.gate.set()
    await service.until(client, jobs[0]["id"], "failed")
    ended = [await service.until(client, job["id"], "succeeded") for job in jobs[1:]]
    assert sorted(cached(job) for job in ended) == [False, True]


@both_databases
async def test_of_equal_jobs_one_can_run(service: Service) -> None:
    """Whatever two workers do at the same moment: the database holds it."""
    client = service.client()
    service.runtime.gate.clear()
    first, second = await ask(client), await ask(client)
    await service.until(client, first["id"], "running")
    async with service.database.write() as store:
        assert await store.claims.claim(KINDS, "another", 60) is None
    async with service.database.write() as store:
        both = update(Job).where(Job.id == second["id"]).values(status="running")
        with pytest.raises(IntegrityError):
            await store.session.execute(both)


async def test_two_replicas_and_four_workers_make_it_once(
    postgres_url: str, redis_url: str, tmp_path: Path, pool_dir: Path
) -> None:
    async with deployment(postgres_url, redis_url, tmp_path / "data", pool_dir) as deployed:
        for _ in range(4):
            deployed.worker(concurrency=2, step_s=0.05)
        await deployed.all_ready()
        replicas = [deployed.url, await deployed.another_replica()]
        clients = [await deployed.client_of("default", url) for url in replicas]
        jobs = await asyncio.gather(*(ask(clients[i % 2], n=4) for i in range(20)))
        await deployed.all_are([job["id"] for job in jobs], "succeeded")
        ended = [await deployed.job(job["id"]) for job in jobs]
        assert len({tuple(ids(job)) for job in ended}) == 1
        assert sum(not cached(job) for job in ended) == 1
        for i, client in enumerate(clients):  # by the replica, or by the worker that is quicker
            again = await ask(clients[1 - i], n=4)
            await deployed.all_are([again["id"]], "succeeded")
            assert ids((await client.get(f"/jobs/{again['id']}")).json()) == ids(ended[0])
        async with deployed.database.read() as store:
            assert await store.session.scalar(select(func.count()).select_from(Image)) == 4


# Whose they are


@both_databases
async def test_never_across_tenants_people_or_browsers(service: Service) -> None:
    client = service.client()
    for user_id in ("ann", "bob"):
        await service.answer(client, user_id)
    shop = service.client(await service.new_key("shop"))
    await service.answer(shop, "ann")
    one, _ = await service.session()
    other, other_id = await service.session()
    for asks, body in [
        (client, {}),
        (client, {"user_id": "ann"}),
        (client, {"user_id": "bob"}),
        (client, {"user_id": "carl"}),  # nobody's taste yet: still another person
        (client, {"user_id": "dora"}),
        (client, {"blend": [{"user_id": "ann", "weight": 1.0}, {"user_id": "bob", "weight": 1.0}]}),
        (shop, {}),
        (shop, {"user_id": "ann"}),
        (one, {}),
        (other, {}),
        (other, {"user_id": other_id}),
    ]:
        assert not cached(await service.generate(asks, **body)), body
        assert cached(await service.generate(asks, **body)), body


@both_databases
async def test_at_strength_zero_nobody_gets_another_persons(service: Service) -> None:
    client = service.client()
    for user_id in ("ann", "bob"):
        await service.answer(client, user_id)
        made = await service.generate(client, user_id=user_id, strength=0)
        assert not cached(made)


# Until when


@both_databases
async def test_a_new_profile_version_is_another_picture_and_the_base_is_there(
    service: Service,
) -> None:
    client = service.client()
    await service.answer(client, "ann")
    await service.generate(client, user_id="ann")
    await service.generate(client)
    await service.answer(client, "ann", (1, 0, 1, 0))
    assert not cached(await service.generate(client, user_id="ann"))
    assert cached(await service.generate(client))


@both_databases
async def test_another_adapter_is_another_picture_in_a_taste(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    shipped = await service.generate(client, user_id="ann")
    await service.generate(client)
    adapter = await keep(
        service.database,
        parts_of(service).images,
        b"weights",
        base_model="fake-model",
        encoder_id="fake-encoder-1",
    )
    async with service.database.write() as store:
        await store.adapters.activate(adapter.version)
    assert not cached(await service.generate(client, user_id="ann"))
    assert cached(await service.generate(client))
    async with service.database.write() as store:
        await store.adapters.deactivate()
    assert ids(await service.generate(client, user_id="ann")) == ids(shipped)


class Newer(FakeRuntime):
    """The same service with other weights."""

    def load(self) -> Versions:
        return Versions("fake-model-2", "fake-adapter-1", self.encoder_version)


async def test_another_base_model_makes_it_anew(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    service: Service = await start(None, folder)
    await service.generate(service.client())
    await stop(service)
    service = await start(None, folder)
    assert cached(await service.generate(service.client()))
    await stop(service)
    service = await start(Newer(), folder)
    assert not cached(await service.generate(service.client()))


@both_databases
async def test_it_ends_with_the_erasure_of_the_person(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    first = await service.generate(client, user_id="ann")
    assert (await client.delete("/users/ann")).status_code == 200
    await service.answer(client, "ann")
    again = await service.generate(client, user_id="ann")
    assert not cached(again)
    assert (await client.get(ids(first)[0])).status_code == 404


@pytest.mark.parametrize("how", ["gone", "damaged"])
async def test_it_ends_with_a_file_that_cannot_be_read(service: Service, how: str) -> None:
    client = service.client()
    first = await service.generate(client)
    (path,) = (service.settings.data_dir / "images").rglob("*.png")
    path.unlink() if how == "gone" else path.write_bytes(b"something else")
    again = await service.generate(client)
    assert not cached(again)
    assert ids(again) != ids(first)
    assert (await client.get(ids(again)[0])).status_code == 200
    assert ids(await service.generate(client)) == ids(again)


async def test_it_ends_with_the_time_that_pictures_are_kept(start: Start) -> None:
    service: Service = await start(retain_pictures_days=30)
    client = service.client()
    await service.generate(client)
    await age(service, 31)
    await housekeeping.tidy(parts_of(service))
    assert not cached(await service.generate(client))


# What it costs


@both_databases
async def test_nothing_is_charged_and_no_limit_of_the_models_counts(start: Start) -> None:
    runtime = FakeRuntime()
    service: Service = await start(
        runtime, gpu_seconds_per_user="1/day", max_queued_jobs_per_caller=1
    )
    client = service.client()
    await service.answer(client, "ann")
    first = await service.generate(client, user_id="ann", steps=50)
    await service.generate(client, user_id="ann", steps=50, seed=8)
    spent = await client.post("/generate", json={"prompt": "a fox", "user_id": "ann", "seed": 9})
    assert (spent.status_code, spent.json()["code"]) == (429, "gpu_quota")
    for _ in range(3):
        assert ids(await ask(client, user_id="ann", steps=50)) == ids(first)
    runtime.gate.clear()
    running = await ask(client, seed=20)
    await service.until(client, running["id"], "running")
    await ask(client, seed=21)  # it waits, and so takes the only place
    full = await client.post("/generate", json={"prompt": "a fox", "seed": 22})
    assert (full.status_code, full.json()["code"]) == (429, "too_many_jobs")
    assert ids(await ask(client, user_id="ann", steps=50)) == ids(first)
    metrics = (await client.get("/metrics")).text
    assert 'ppd_pictures_answered_again_total{adapter="fake-adapter-1"' in metrics


@both_databases
async def test_asked_again_before_the_model_is_there(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    service: Service = await start(None, folder)
    first = await service.generate(service.client())
    await stop(service)
    runtime = FakeRuntime()
    runtime.load_gate.clear()
    service = await start(runtime, folder, ready=False)
    client = service.client()
    waits = await ask(client)
    assert waits["status"] == "queued"  # which model will serve is not known yet
    runtime.load_gate.set()
    again = await service.until(client, waits["id"], "succeeded")
    assert ids(again) == ids(first)
    assert made(service) == 0


async def test_the_bytes_are_those_of_the_first(service: Service) -> None:
    client = service.client()
    first, again = await service.generate(client), await service.generate(client)
    pngs = [(await client.get(ids(job)[0])).content for job in (first, again)]
    assert pngs[0] == pngs[1]
    assert np.asarray(PillowImage.open(io.BytesIO(pngs[0]))).shape == (128, 128, 3)


# What a review found


@both_databases
async def test_followers_are_bounded_and_hold_up_nobody(start: Start) -> None:
    service: Service = await start(Many(), max_queued_jobs_per_caller=2)
    client = service.client()
    service.runtime.gate.clear()
    codes = []
    for _ in range(40):
        answer = await client.post("/generate", json={"prompt": "a fox", "seed": 7, "steps": 3})
        codes.append(answer.status_code)
    assert codes[:33] == [202] * 33
    assert codes[33:] == [429] * 7
    other = await ask(client, seed=8)  # the followers took no place of the caller's
    service.runtime.gate.set()
    await service.until(client, other["id"], "succeeded")


@both_databases
async def test_equal_seeds_of_different_people_run_beside_each_other(start: Start) -> None:
    service: Service = await start(Many())
    client = service.client()
    for user_id in ("ann", "bob"):
        await service.answer(client, user_id)
    service.runtime.gate.clear()
    jobs = [await ask(client, user_id=user_id, strength=0) for user_id in ("ann", "bob")]
    for job in jobs:
        await service.until(client, job["id"], "running")


@both_databases
async def test_no_quota_is_evaded_by_what_another_adapter_made(start: Start) -> None:
    service: Service = await start(FakeRuntime(), gpu_seconds_per_user="1/day")
    client = service.client()
    await service.answer(client, "ann")
    for seed in (1, 2):
        await service.generate(client, user_id="ann", steps=50, seed=seed)
    adapter = await keep(
        service.database,
        parts_of(service).images,
        b"weights",
        base_model="fake-model",
        encoder_id="fake-encoder-1",
    )
    async with service.database.write() as store:
        await store.adapters.activate(adapter.version)
    body = {"prompt": "a fox", "user_id": "ann", "steps": 50, "seed": 1}
    refused = await client.post("/generate", json=body)
    assert (refused.status_code, refused.json()["code"]) == (429, "gpu_quota")


async def test_many_files_that_cannot_be_read_are_each_forgotten(service: Service) -> None:
    client = service.client()
    for _ in range(12):
        assert not cached(await service.generate(client))
        for path in (service.settings.data_dir / "images").rglob("*.png"):
            path.unlink()
    first = await service.generate(client)
    assert ids(await service.generate(client)) == ids(first)


class Overriding(FakeRuntime):
    """Started with an adapter's file of its own."""

    def load(self) -> Versions:
        return Versions("fake-model-1", "from-a-file", self.encoder_version, adapter_overrides=True)


async def test_an_adapter_that_overrides_is_another_picture(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    service: Service = await start(None, folder)
    client = service.client()
    await service.answer(client, "ann")
    await service.generate(client, user_id="ann")
    await stop(service)
    service = await start(Overriding(), folder)
    client = service.client()
    assert not cached(await service.generate(client, user_id="ann"))
    assert cached(await service.generate(client, user_id="ann"))


async def test_replicas_know_whether_their_workers_adapter_overrides(
    postgres_url: str, redis_url: str, tmp_path: Path, pool_dir: Path
) -> None:
    async def mark() -> str:
        return "here"

    async with deployment(postgres_url, redis_url, tmp_path / "data", pool_dir) as deployed:
        row = WorkerRow(
            id="w", kinds=["generate"], model="m", adapter_version="a", encoder_version="e"
        )
        row.adapter_overrides = True
        async with deployed.database.write() as store:
            await store.workers.put(row)
        workers = RemoteWorkers(deployed.database, KINDS, 60, lambda: asyncio.sleep(0), mark)
        assert await workers.versions() == Versions("m", "a", "e", adapter_overrides=True)
