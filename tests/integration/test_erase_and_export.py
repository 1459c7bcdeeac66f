"""All that is held about a person can be taken along, and nothing of it stays after an erasure."""

import asyncio
import base64
import io
import json
import logging
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select, text, update

from service.actions import housekeeping
from service.actions.export import export_person
from service.infra.sql.database import Database
from service.infra.sql.tables import Base, ErasedUser, Job, now
from tests.fake_runtime import EMB_DIM
from tests.integration.conftest import Start
from tests.running_service import Service, stop

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]

PROMPT = "a fox of great secrecy"


async def fill(service: Service, user_id: str = "ann-of-the-lake") -> None:
    """A person with answers, an own pair, an edited profile, pictures and idempotency keys."""
    client = service.client(headers={"Idempotency-Key": "first"})
    await service.answer(client, user_id)
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, format="PNG")
    mine = base64.b64encode(buffer.getvalue()).decode()
    body = {"choices": [{"caption": "my secret garden", "images": [mine] * 2, "preferred": 1}]}
    client = service.client()
    await client.post(f"/users/{user_id}/preferences", json=body, headers={"Prefer": "wait=60"})
    await client.put(
        f"/users/{user_id}/profile", json={"text": "I like fog."}, headers={"Prefer": "wait=60"}
    )
    await service.generate(client, user_id=user_id, prompt=PROMPT)
    await service.generate(client, blend=[{"user_id": user_id, "weight": 1.0}], prompt=PROMPT)


async def test_the_export_holds_everything(service: Service) -> None:
    await fill(service)
    client = service.client()
    export = (await client.get("/users/ann-of-the-lake/export")).json()
    assert len(export["choices"]) == 5
    assert [p["source"] for p in export["profiles"]] == ["generated", "generated", "edited"]
    emb_D = np.frombuffer(
        base64.b64decode(export["profiles"][0]["embedding_float32_le_base64"]), "<f4"
    )
    assert emb_D.shape == (EMB_DIM,)
    assert [job["kind"] for job in export["jobs"]] == ["encode"] * 3 + ["generate"] * 2
    assert export["jobs"][-1]["request"]["prompt"] == PROMPT
    assert {image["kind"] for image in export["images"]} == {"upload", "generated"}
    for image in export["images"]:
        assert (await client.get(image["url"])).status_code == 200


async def test_the_export_holds_blends_and_names_nobody_else(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    await service.answer(client, "bob-of-the-hill")
    parts = [{"user_id": name, "weight": 1.0} for name in ("bob-of-the-hill", "ann")]
    job = await service.generate(client, blend=parts)
    export = (await client.get("/users/ann/export")).json()
    (blend,) = [entry for entry in export["jobs"] if entry["id"] == job["id"]]
    assert blend["request"]["user_ids"] == [None, "ann"]
    assert blend["result"]["blend"] == [
        {"user_id": None, "profile_version": None},
        {"user_id": "ann", "profile_version": 1},
    ]
    assert "bob-of-the-hill" not in json.dumps(export)
    url = job["result"]["images"][0]["url"]
    assert [image["url"] for image in export["images"]] == [url]
    receipt = (await client.delete("/users/ann")).json()
    assert receipt["erased"]["jobs"] == len(export["jobs"])
    assert receipt["erased"]["images"] == len(export["images"])


@pytest.mark.sqlite_only
async def test_after_an_erasure_nothing_is_left(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="ppd")
    client = service.client()
    await service.answer(client, "bob")
    await fill(service)
    text = {"text": "A secret garden, in another taste."}
    waits = {"Prefer": "wait=60"}
    await client.put("/users/ann-of-the-lake/profile?taste=fog", json=text, headers=waits)
    shared = await client.post("/users/ann-of-the-lake/shares", json={"taste": "fog"})
    assert shared.status_code == 201
    url = (await client.get("/users/ann-of-the-lake/images")).json()["results"][0]["url"]
    receipt = await client.delete("/users/ann-of-the-lake")
    assert receipt.status_code == 200
    assert receipt.json()["erased"] == {"choices": 5, "profiles": 4, "jobs": 6, "images": 4}
    assert receipt.json()["scrubbed"] is True
    for path in ("preferences", "export", "images"):
        assert (await client.get(f"/users/ann-of-the-lake/{path}")).status_code == 404
    assert (await client.get(url)).status_code == 404
    assert (await client.delete("/users/ann-of-the-lake")).status_code == 404
    assert list((service.settings.data_dir / "images").rglob("*.png")) == []
    counts = {}
    async with service.database.read() as store:
        for table in Base.metadata.sorted_tables:
            count = select(func.count()).select_from(table)
            counts[table.name] = await store.session.scalar(count)
    assert counts.pop("turns") <= 5, "hashes, which go an hour after they were served"
    assert counts == {
        "api_keys": 1, "users": 1, "profiles": 1, "jobs": 1, "choices": 4,
        "images": 0, "job_subjects": 0, "idempotency_keys": 0,
        "workers": 0, "adapters": 0, "adapter_activations": 0,
        "images_to_delete": 0, "erased_users": 2, "chores": 2, "schema_floor": 1,
            "audit_entries": 2, "reports": 0, "ended_sessions": 0, "readings": 1,
        "exports": 0, "exported_people": 0, "exported_answers": 0, "blind_choices": 0,
        "taste_shares": 0,
    }  # fmt: skip
    for trace in (b"ann-of-the-lake", PROMPT.encode(), b"secret garden", b"fog"):
        for file in service.settings.data_dir.rglob("*"):
            assert trace not in bytes_of(file), (trace, file)
        assert trace.decode() not in caplog.text
    assert (await client.get("/users/bob/preferences")).json()["status"] == "ready"


def services_of(service: Service) -> Any:
    return service.parts.app.app.state.services  # type: ignore[attr-defined]


def bytes_of(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@pytest.mark.sqlite_only
async def test_a_reader_in_the_way_of_the_last_traces_is_said_and_outwaited(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.infra.sql.database._SCRUB_TIMEOUT_MS", 50)
    await fill(service)
    reader = sqlite3.connect(service.settings.data_dir / "ppd.db")
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM users").fetchone() == (1,)
    receipt = await service.client().delete("/users/ann-of-the-lake")
    assert receipt.status_code == 200
    assert receipt.json()["scrubbed"] is False
    assert "erased rows are still in the database's log" in caplog.text
    assert any(b"ann-of-the-lake" in bytes_of(f) for f in service.settings.data_dir.iterdir())
    await service.parts.worker._sweep.once()
    reader.close()
    await service.parts.worker._sweep.once()
    assert not any(b"ann-of-the-lake" in bytes_of(f) for f in service.settings.data_dir.iterdir())


@pytest.mark.sqlite_only
async def test_what_a_lost_process_left_in_the_log_is_folded_at_the_start(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service: Service = await start(data_dir=tmp_path / "d")
    await fill(service)
    reader = sqlite3.connect(tmp_path / "d" / "ppd.db")  # keeps the log when the service stops

    async def lost(_: Database) -> bool:
        return False

    with monkeypatch.context() as patched:
        patched.setattr(Database, "scrub_again", lost)
        await service.client().delete("/users/ann-of-the-lake")
        assert reader.execute("SELECT count(*) FROM users").fetchone() == (0,)
        await stop(service)
    log = tmp_path / "d" / "ppd.db-wal"
    assert b"ann-of-the-lake" in log.read_bytes()
    again: Service = await start(data_dir=tmp_path / "d")
    await again.parts.worker._sweep.once()
    assert b"ann-of-the-lake" not in bytes_of(log)
    reader.close()


@pytest.mark.sqlite_only
async def test_a_person_with_very_many_jobs_is_erased(service: Service) -> None:
    client = service.client()
    first = (await service.generate(client, user_id="ann"))["id"]
    many = """
        WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 33000)
        INSERT INTO jobs (id, kind, priority, turn, tenant, user_pk, status, seq, attempt,
                          request, created_at)
        SELECT 'job-' || n, kind, priority, turn, tenant, user_pk, status, seq, attempt,
               '{}', created_at
        FROM jobs, i WHERE id = :first
    """
    async with service.database.write() as store:
        await store.session.execute(text(many), {"first": first})
    receipt = await client.delete("/users/ann")
    assert receipt.status_code == 200
    assert receipt.json()["erased"]["jobs"] == 33_001
    async with service.database.read() as store:
        assert await store.session.scalar(select(func.count()).select_from(Job)) == 0
    assert list((service.settings.data_dir / "images").rglob("*.png")) == []


async def test_a_person_with_very_many_pictures_is_exported_and_erased(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.client()
    job_id = (await service.generate(client, user_id="ann"))["id"]
    many = """
        WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 33000)
        INSERT INTO images (id, tenant, user_pk, job_id, kind, position, key, sha256, size_bytes,
                            width_px, height_px, created_at)
        SELECT 'image-' || n, tenant, user_pk, job_id, kind, n, 'many/' || n || '.png', sha256,
               size_bytes, width_px, height_px, created_at
        FROM images, i WHERE job_id = :job_id
    """
    async with service.database.write() as store:
        await store.session.execute(text(many), {"job_id": job_id})
    export = (await client.get("/users/ann/export")).json()
    assert len({image["id"] for image in export["images"]}) == 33_001
    monkeypatch.setattr("service.actions.leftovers._IN_REQUEST_S", 0.2)
    receipt = (await client.delete("/users/ann")).json()
    assert receipt["erased"]["images"] == 33_001
    async with service.database.read() as store:
        assert len(await store.deletions.oldest(100_000)) == receipt["pending_images"] > 0
    await housekeeping.tidy(services_of(service))
    async with service.database.read() as store:
        assert len(await store.deletions.oldest(100_000)) == 0
    assert list((service.settings.data_dir / "images").rglob("*.png")) == []


async def test_an_export_ends_well_when_the_person_is_erased_meanwhile(service: Service) -> None:
    client = service.client()
    await service.generate(client, user_id="ann")
    async with service.database.read() as store:
        user = await store.users.find("default", "ann")
    assert user is not None
    pieces = export_person(services_of(service), user)
    begun = [await anext(pieces) for _ in range(2)]
    await client.delete("/users/ann")
    export = json.loads("".join(begun) + "".join([piece async for piece in pieces]))
    assert (export["user_id"], export["jobs"], export["images"]) == ("ann", [], [])


async def test_the_export_says_how_a_taste_was_used(service: Service) -> None:
    client = service.client(headers={"Idempotency-Key": "k1"})
    await service.answer(client, "ann")
    client = service.client()
    await service.generate(client, blend=[{"user_id": "ann", "weight": 0.25}])
    export = (await client.get("/users/ann/export")).json()
    assert [job["uses"] for job in export["jobs"]] == [
        [],
        [{"weight": 0.25, "pinned_profile_version": 1}],
    ]
    assert [request["key"] for request in export["idempotency_keys"]] == ["k1"]


async def test_a_cache_that_was_away_is_asked_again(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.client()
    await service.answer(client, "ann")
    cache = services_of(service).cache

    async def away(*_: str) -> None:
        raise ConnectionError("the cache is away")

    with monkeypatch.context() as patched:
        patched.setattr(cache, "forget_user", away)
        receipt = await client.delete("/users/ann")
        assert (receipt.status_code, receipt.json()["cache_forgotten"]) == (200, False)
        await housekeeping.tidy(services_of(service))
    assert len(embeddings_in(cache)) == 1
    await housekeeping.tidy(services_of(service))
    assert embeddings_in(cache) == {}


async def test_an_erased_person_is_forgotten_once_more_when_no_job_of_then_can_run(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.client()
    await service.answer(client, "ann")
    await client.delete("/users/ann")
    await housekeeping.tidy(services_of(service))
    asked = []

    async def note(tenant: str, user_pk: str) -> None:
        asked.append((tenant, user_pk))

    monkeypatch.setattr(services_of(service).cache, "forget_user", note)
    await housekeeping.tidy(services_of(service))
    assert asked == []
    async with service.database.write() as store:
        long_ago = now() - timedelta(days=2)
        await store.session.execute(update(ErasedUser).values(erased_at=long_ago))
    await housekeeping.tidy(services_of(service))
    await housekeeping.tidy(services_of(service))
    assert [tenant for tenant, _ in asked] == ["default"]
    async with service.database.read() as store:
        assert await store.session.scalar(select(func.count()).select_from(ErasedUser)) == 0


async def test_an_erasure_stops_a_running_job_and_nothing_comes_back(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    body = {"prompt": PROMPT, "user_id": "ann"}
    jobs = [(await client.post("/generate", json=body)).json()["id"] for _ in range(2)]
    await service.until(client, jobs[0], "running")
    assert (await client.delete("/users/ann")).json()["erased"]["jobs"] == 2
    service.runtime.gate.set()
    await service.generate(client)
    for job_id in jobs:
        assert (await client.get(f"/jobs/{job_id}")).status_code == 404
    assert len(list((service.settings.data_dir / "images").rglob("*.png"))) == 1


async def test_an_encoding_that_runs_during_the_erasure_brings_nothing_back(
    service: Service,
) -> None:
    client = service.client()
    service.runtime.gate.clear()
    pairs = (await client.get("/users/ann/quiz")).json()["pairs"]
    body = {"choices": [{"pair_id": pair["pair_id"], "preferred": 0} for pair in pairs]}
    link = (await client.post("/users/ann/preferences", json=body)).json()["links"]["job"]
    job_id = link.split("/")[-1]
    await service.until(client, job_id, "running")
    assert (await client.delete("/users/ann")).json()["erased"]["profiles"] == 1
    service.runtime.gate.set()
    await service.generate(client)  # the worker is past the encoding
    assert len(service.runtime.encoded) == 1
    await expect_nobody(service, job_id)


async def test_an_embedding_that_comes_to_the_cache_after_the_erasure_is_dropped(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.client()
    cache = services_of(service).cache
    put, late = cache.put, []

    async def put_late(*what: Any) -> None:
        late.append((await client.delete("/users/ann")).status_code)
        await put(*what)

    monkeypatch.setattr(cache, "put", put_late)
    pairs = (await client.get("/users/ann/quiz")).json()["pairs"]
    body = {"choices": [{"pair_id": pair["pair_id"], "preferred": 0} for pair in pairs]}
    await client.post("/users/ann/preferences", json=body)
    await service.generate(client)
    assert late == [200]
    await expect_nobody(service)


async def test_steps_after_the_erasure_are_not_remembered(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    body = {"prompt": PROMPT, "user_id": "ann", "steps": 5}
    job_id = (await client.post("/generate", json=body)).json()["id"]
    assert await asyncio.to_thread(service.runtime.entered.wait, 30)
    cancelled = service.runtime.generate

    def heedless(specs: Any, on_step: Any, _: Any, on_preview: Any, **options: Any) -> Any:
        return cancelled(specs, on_step, lambda: False, on_preview, **options)

    service.runtime.generate = heedless  # type: ignore[method-assign]
    second = (await client.post("/generate", json=body)).json()["id"]
    await client.delete(f"/jobs/{job_id}")
    await service.until(client, second, "running")
    await client.delete("/users/ann")
    service.runtime.gate.set()
    await service.generate(client)
    await expect_nobody(service, job_id, second)


def embeddings_in(cache: Any) -> Any:
    """What the embedded cache holds, behind what counts its hits."""
    return cache._entries


async def expect_nobody(service: Service, *job_ids: str) -> None:
    services = service.parts.app.app.state.services  # type: ignore[attr-defined]
    assert embeddings_in(services.cache) == {}
    for job_id in job_ids:
        assert await services.events.latest(job_id) is None
    async with service.database.read() as store:
        for table in ("users", "profiles", "choices", "job_subjects"):
            rows = await store.session.scalar(text(f"SELECT count(*) FROM {table}"))
            assert rows == 0, table
    client = service.client()
    assert (await client.get("/users/ann/preferences")).status_code == 404


async def test_an_erased_person_who_comes_back_begins_anew(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    await client.delete("/users/ann")
    quiz = (await client.get("/users/ann/quiz")).json()
    assert (quiz["answered"], quiz["needed"]) == (0, 4)
    assert (await service.answer(client, "ann"))["profile_version"] == 1


async def test_a_browser_that_erases_itself_gets_another_user(service: Service) -> None:
    browser, user_id = await service.session()
    await service.answer(browser, user_id)
    assert (await browser.delete(f"/users/{user_id}")).status_code == 200
    assert (await browser.get("/pairs")).status_code == 401
    page = await browser.get("/")
    assert user_id not in page.text
