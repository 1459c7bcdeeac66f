"""Adapters change while the service runs; a job is made with the one that it came with."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from ppd_model.pipeline import MINI_WEIGHTS_DIR
from service.cli.commands import app
from service.core.ports import Versions
from service.core.proof.serving import Serving
from service.infra.adapters import AdapterCopies, file_sha256, keep
from service.infra.pictures.folder_store import FolderImageStore
from service.infra.sql.tables import Adapter, Job, WorkerRow
from tests.fake_runtime import FakeRuntime
from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = pytest.mark.anyio

SHIPPED = "fake-adapter-1"


def images_of(service: Service) -> FolderImageStore:
    return FolderImageStore(service.settings.data_dir / "images")


async def kept(service: Service, content: bytes) -> str:
    """Keep an adapter of this content, as another process would; gives its version."""
    row = await keep(
        service.database,
        images_of(service),
        content,
        base_model="fake-model",
        encoder_id="fake-encoder-1",
    )
    return row.version


async def activate(service: Service, version: str | None) -> None:
    """Put it into service, as another process would; None is the shipped one."""
    async with service.database.write() as store:
        if version is None:
            assert await store.adapters.deactivate()
        else:
            assert await store.adapters.activate(version)


async def ask(client: httpx.AsyncClient, seed: int = 7) -> str:
    body = {"prompt": "a fox", "user_id": "ann", "steps": 2, "seed": seed, "fresh": True}
    answer = await client.post("/generate", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def end_of(service: Service, client: httpx.AsyncClient, job_id: str) -> tuple[str, bytes]:
    """The adapter that made a job's picture, and the picture."""
    result = (await service.until(client, job_id, "succeeded"))["result"]
    picture = await client.get(result["images"][0]["url"])
    return result["adapter_version"], picture.content


async def solo(service: Service, client: httpx.AsyncClient, seed: int = 7) -> tuple[str, bytes]:
    return await end_of(service, client, await ask(client, seed))


async def test_the_next_request_is_made_with_what_was_activated(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    before = await solo(service, client)
    assert before[0] == SHIPPED
    one, two = await kept(service, b"one"), await kept(service, b"two")
    await activate(service, one)
    assert (await solo(service, client))[0] == one
    await activate(service, two)
    made = await solo(service, client)
    assert made[0] == two
    assert made[1] != before[1]
    await activate(service, None)
    assert await solo(service, client) == before


async def test_without_a_user_or_strength_no_adapter_changes_a_bit(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")

    async def png(**body: Any) -> bytes:
        job = await service.generate(client, **body)
        return (await client.get(job["result"]["images"][0]["url"])).content

    base = await png()
    await activate(service, await kept(service, b"one"))
    assert await png() == base
    assert await png(user_id="ann", strength=0) == base
    assert await png(user_id="ann") != base


async def test_adapters_change_under_load_and_every_job_keeps_its_own(start: Start) -> None:
    service: Service = await start(max_queued_jobs_per_caller=40)
    client = service.client()
    await service.answer(client, "ann")
    one, two = await kept(service, b"one"), await kept(service, b"two")
    alone = {}
    for version in (one, two, None):
        await activate(service, version)
        for seed in range(3):
            alone[version, seed] = await solo(service, client, seed)
    assert len(set(alone.values())) == 9
    service.runtime.gate.clear()
    jobs: list[tuple[str | None, int, str]] = []
    for i in range(24):
        version = (one, two, None)[i // 2 % 3]
        if i % 2 == 0 and (i or version is not None):
            await activate(service, version)
        jobs.append((version, i % 3, await ask(client, i % 3)))
    service.runtime.gate.set()
    for version, seed, job_id in jobs:
        assert await end_of(service, client, job_id) == alone[version, seed]


async def test_a_job_outlives_a_restart_with_its_adapter(start: Start, tmp_path: Path) -> None:
    service: Service = await start(data_dir=tmp_path / "data")
    client = service.client()
    one, two = await kept(service, b"one"), await kept(service, b"two")
    await activate(service, one)
    service.runtime.gate.clear()
    job_id = await ask(client)
    await service.until(client, job_id, "running")
    await activate(service, two)
    await asyncio.wait_for(stop_before_restart(service), 30)
    again: Service = await start(data_dir=tmp_path / "data")
    assert (await end_of(again, again.client(), job_id))[0] == one
    assert (await solo(again, again.client()))[0] == two


async def stop_before_restart(service: Service) -> None:
    """Stop, while the model is in the middle of a picture."""
    service.server.should_exit = True
    await service.serving


async def test_an_adapter_that_cannot_be_had_fails_its_job_and_no_other(service: Service) -> None:
    client = service.client()
    one, two = await kept(service, b"one"), await kept(service, b"two")
    await activate(service, one)
    async with service.database.read() as store:
        row = await store.adapters.get(one)
    assert row is not None
    await images_of(service).delete([row.key])
    job = await service.generate(client)
    assert (job["status"], job["error"]["code"]) == ("failed", "adapter_unavailable")
    assert one in job["error"]["detail"]
    await images_of(service).put(row.key, b"something else")
    job = await service.generate(client)
    assert job["error"]["code"] == "adapter_unavailable"
    await activate(service, two)
    assert (await service.generate(client))["result"]["adapter_version"] == two
    await kept(service, b"one")  # adding it again puts the bytes back
    await activate(service, one)
    assert (await service.generate(client))["result"]["adapter_version"] == one


async def test_a_job_of_an_adapter_without_a_row_fails(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    first, second = await ask(client), await ask(client)
    await service.until(client, first, "running")
    async with service.database.write() as store:
        await store.session.execute(
            update(Job).where(Job.id == second).values(adapter_version="0" * 12)
        )
    service.runtime.gate.set()
    job = await service.until(client, second, "failed")
    assert job["error"]["code"] == "adapter_unavailable"


async def test_a_damaged_copy_is_replaced(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    one = await kept(service, b"one")
    await activate(service, one)
    made = await solo(service, client)
    copy = service.settings.adapters_dir / f"{one}.safetensors"
    copy.write_bytes(b"changed")
    assert await solo(service, client) == made
    assert copy.read_bytes() == b"one"


async def test_bytes_of_another_hash_are_never_copied(tmp_path: Path) -> None:
    images = FolderImageStore(tmp_path / "images")
    row = Adapter(version="a" * 12, sha256="a" * 64, key=f"adapters/{'a' * 64}.safetensors")
    copies = AdapterCopies(tmp_path / "copies", images)
    with pytest.raises(FileNotFoundError):
        await copies.fetch(row)
    await images.put(row.key, b"not what it says")
    with pytest.raises(ValueError, match="add the adapter again"):
        await copies.fetch(row)
    assert not (tmp_path / "copies").exists()


class Overriding(FakeRuntime):
    """A model that was started with an adapter's file of its own."""

    def load(self) -> Versions:
        return Versions("fake-model-1", "from-a-file", self.encoder_version, adapter_overrides=True)


async def test_an_adapter_given_at_the_start_serves_whatever_is_activated(start: Start) -> None:
    service: Service = await start(Overriding())
    await activate(service, await kept(service, b"one"))
    job = await service.generate(service.client())
    assert job["result"]["adapter_version"] == "from-a-file"
    assert service.runtime.adapters[-1] is None


# Going back, and removing


async def test_going_back_goes_back_as_often_as_there_was_something_before(
    service: Service,
) -> None:
    one, two, three = [await kept(service, name) for name in (b"one", b"two", b"three")]

    async def back() -> str | None:
        async with service.database.write() as store:
            row = await store.adapters.rollback()
        async with service.database.read() as store:
            active = (await store.adapters.serving()).first
        assert row is None or row.first == active
        return active if row is not None else "nothing"

    assert await back() == "nothing"
    for version in (one, two, two, three):
        await activate(service, version)
    assert [await back() for _ in range(4)] == [two, one, None, "nothing"]
    await activate(service, three)
    await activate(service, None)
    assert [await back() for _ in range(3)] == [three, None, "nothing"]
    await activate(service, one)
    await activate(service, two)
    assert await back() == one
    await activate(service, three)
    assert [await back() for _ in range(3)] == [one, None, "nothing"]


async def test_only_what_nobody_needs_can_be_removed(service: Service) -> None:
    client = service.client()
    one, two = await kept(service, b"one"), await kept(service, b"two")

    async def remove(version: str) -> None:
        async with service.database.write() as store:
            key = await store.adapters.remove(version)
        await images_of(service).delete([key])

    with pytest.raises(ValueError, match="no adapter 000000000000 is kept"):
        await remove("0" * 12)
    await activate(service, one)
    with pytest.raises(ValueError, match="is in service"):
        await remove(one)
    service.runtime.gate.clear()
    job_id = await ask(client)
    await activate(service, two)
    with pytest.raises(ValueError, match="1 unfinished jobs are pinned"):
        await remove(one)
    service.runtime.gate.set()
    assert (await end_of(service, client, job_id))[0] == one
    await remove(one)
    async with service.database.write() as store:
        back = await store.adapters.rollback()
        assert back is not None
        assert back.first is None
        assert [row.version for row in await store.adapters.all()] == [two]
    stored = (service.settings.data_dir / "images" / "adapters").iterdir()
    assert [path.name[:12] for path in stored] == [two]


# Over HTTP


async def test_admins_activate_what_is_kept(service: Service) -> None:
    admin = service.client()
    one, two = await kept(service, b"one"), await kept(service, b"two")
    state = (await admin.get("/admin/adapters")).json()
    assert state["active"] is None
    assert {row["version"]: row["active"] for row in state["results"]} == {one: False, two: False}
    for version in (one, two):
        answer = await admin.post(f"/admin/adapters/{version}/activate")
        assert (answer.status_code, answer.json()["active"]) == (200, version)
    twice = {"Idempotency-Key": "back"}
    for _ in range(2):
        answer = await admin.post("/admin/adapters/rollback", headers=twice)
        assert (answer.status_code, answer.json()["active"]) == (200, one)
    assert (await service.generate(admin))["result"]["adapter_version"] == one
    assert (await admin.post("/admin/adapters/deactivate")).json()["active"] is None
    for path, status, code in (
        ("000000000000/activate", 404, "adapter_not_found"),
        ("..%2f..%2fetc/activate", 404, "not_found"),
        ("NOTAVERSION1/activate", 422, "invalid_request"),
    ):
        answer = await admin.post(f"/admin/adapters/{path}")
        assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_there_must_be_something_to_go_back_to(service: Service) -> None:
    answer = await service.client().post("/admin/adapters/rollback")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_earlier_adapter")


async def test_clients_and_browsers_change_no_adapter(service: Service) -> None:
    one = await kept(service, b"one")
    browser, _ = await service.session()
    for client in (service.client(await service.new_key("default")), browser):
        for method, path in (
            ("GET", ""),
            ("POST", f"/{one}/activate"),
            ("POST", "/rollback"),
            ("POST", "/deactivate"),
        ):
            answer = await client.request(method, f"/admin/adapters{path}")
            assert (answer.status_code, answer.json()["code"]) == (403, "admin_only"), path
    async with service.database.read() as store:
        assert await store.adapters.serving() == Serving(None)


async def test_what_a_running_worker_cannot_use_is_refused_with_both_ids(
    service: Service,
) -> None:
    one = await kept(service, b"one")
    async with service.database.write() as store:
        store.session.add(
            WorkerRow(id="w", kinds=["encode"], encoder_version="fake-encoder-2", model=None)
        )
    answer = await service.client().post(f"/admin/adapters/{one}/activate")
    assert (answer.status_code, answer.json()["code"]) == (409, "adapter_refused")
    for named in ("fake-encoder-1", "fake-encoder-2", "restart"):
        assert named in answer.json()["detail"]
    async with service.database.read() as store:
        assert await store.adapters.serving() == Serving(None)


# From another process


async def test_the_command_works_while_the_service_does(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the same SQLite file, while a job runs and others come."""
    monkeypatch.setenv("PPD_MIN_FREE_BYTES", "0")
    client = service.client()

    async def ppd(*arguments: str) -> None:
        command = ["adapters", *arguments, "--data-dir", str(service.settings.data_dir)]
        result = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert result.exit_code == 0, result.output

    service.runtime.gate.clear()
    first = await ask(client)
    await service.until(client, first, "running")
    await ppd("activate", str(MINI_WEIGHTS_DIR / "adapter.safetensors"))
    version = file_sha256(MINI_WEIGHTS_DIR / "adapter.safetensors")[:12]
    second = await ask(client)
    await ppd("rollback")
    third = await ask(client)
    service.runtime.gate.set()
    made = [(await end_of(service, client, job_id))[0] for job_id in (first, second, third)]
    assert made == [SHIPPED, version, SHIPPED]
    await ppd("remove", version)
