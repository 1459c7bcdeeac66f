"""Jobs in the plural: listed page by page, canceled all at once, erased with what they made."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


async def ask(client: httpx.AsyncClient, user_id: str | None = None) -> str:
    """Ask for a picture of its own; the id of the job."""
    body: dict[str, Any] = {"prompt": "a fox", "steps": 2}
    answer = await client.post("/generate", json=body | ({"user_id": user_id} if user_id else {}))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def listed(client: httpx.AsyncClient, **params: Any) -> list[str]:
    """The ids of all pages."""
    ids: list[str] = []
    while True:
        answer = await client.get("/jobs", params=params)
        assert answer.status_code == 200, answer.text
        ids += [job["id"] for job in answer.json()["results"]]
        if answer.json()["next"] is None:
            return ids
        params["cursor"] = answer.json()["next"]


async def test_a_key_lists_its_jobs_and_those_of_a_person_newest_first(service: Service) -> None:
    client = service.client()
    made = [await ask(client, person) for person in ("ann", "bob", None, "ann", "ann")]
    for job_id in made:
        await service.until(client, job_id, "succeeded")
    assert await listed(client, limit=2) == made[::-1]
    assert await listed(client, limit=2, user_id="ann") == [made[4], made[3], made[0]]
    assert await listed(client, limit=3, user_id="ann") == [made[4], made[3], made[0]]
    first = (await client.get("/jobs?limit=1")).json()["results"][0]
    assert first == (await client.get(f"/jobs/{made[4]}")).json()
    assert first["kind"] == "generate"
    stranger = service.client(await service.new_key("shop"))
    assert await listed(stranger) == []
    assert (await stranger.get("/jobs?user_id=ann")).json()["code"] == "user_not_found"
    for wrong in ("cursor=x", "limit=0", "limit=101", "user_id=a%20b", "cursor=WzEsMl0"):
        assert (await client.get(f"/jobs?{wrong}")).status_code == 422, wrong


async def test_a_browser_lists_and_cancels_its_own_jobs_alone(service: Service) -> None:
    theirs = await ask(service.client(), "ann")
    browser, user_id = await service.session()
    assert await listed(browser) == []
    assert (await browser.delete(f"/jobs?user_id={user_id}")).json() == {"canceled": []}
    own = await ask(browser, user_id)
    assert await listed(browser) == await listed(browser, user_id=user_id) == [own]
    for call in ("GET", "DELETE"):
        assert (await browser.request(call, "/jobs?user_id=ann")).status_code == 404
    assert (await service.until(service.client(), theirs, "succeeded"))["id"] == theirs


async def test_one_call_cancels_all_that_waits_or_runs_of_a_person(service: Service) -> None:
    client = service.client()
    done = await ask(client, "ann")
    await service.until(client, done, "succeeded")
    service.runtime.gate.clear()
    mine = [await ask(client, "ann") for _ in range(3)]
    await service.until(client, mine[0], "running")
    others = await ask(client, "bob")
    answer = await client.delete("/jobs?user_id=ann")
    assert answer.status_code == 200
    assert sorted(answer.json()["canceled"]) == sorted(mine)
    assert "erased" not in answer.json()
    for job_id in mine:
        assert (await client.get(f"/jobs/{job_id}")).json()["error"]["code"] == "canceled"
    # The gate stays shut: only the cancel can have freed the worker.
    await service.until(client, others, "running")
    service.runtime.gate.set()
    await service.until(client, others, "succeeded")
    assert (await client.get(f"/jobs/{done}")).json()["status"] == "succeeded"
    assert (await client.delete("/jobs?user_id=ann")).json() == {"canceled": []}
    assert (await client.delete("/jobs?user_id=nobody")).status_code == 404
    assert (await client.delete("/jobs")).status_code == 422, "never a whole tenant by an omission"


async def test_an_erased_job_takes_its_pictures_along_and_frees_its_key(service: Service) -> None:
    client = service.client()
    body = {"prompt": "a fox", "steps": 2, "user_id": "ann", "seed": 5}
    keyed = {"Idempotency-Key": "k-1", "Prefer": "wait=60"}
    job = (await client.post("/generate", json=body, headers=keyed)).json()
    url = job["result"]["images"][0]["url"]
    given = await service.generate(client, **body)
    assert given["result"]["images"][0]["url"] == url
    gone = await client.delete(f"/jobs/{job['id']}?erase=true")
    assert gone.json() == {"canceled": [], "erased": {"jobs": 1, "images": 1}}
    for path in (f"/jobs/{job['id']}", url, f"/jobs/{job['id']}/events"):
        assert (await client.get(path)).status_code == 404, path
    assert pictures(service) == []
    assert (await client.get("/users/ann/images")).json()["results"] == []
    assert (await client.delete(f"/jobs/{job['id']}?erase=true")).status_code == 404
    again = (await client.post("/generate", json=body, headers=keyed)).json()
    assert again["id"] != job["id"]
    assert again["result"]["cached"] is False


async def test_a_job_that_is_erased_while_it_runs_leaves_nothing(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    job_id = await ask(client, "ann")
    await service.until(client, job_id, "running")
    gone = await client.delete(f"/jobs/{job_id}?erase=true")
    assert gone.json() == {"canceled": [job_id], "erased": {"jobs": 1, "images": 0}}
    service.runtime.gate.set()
    await service.generate(client)
    assert await listed(client, user_id="ann") == []
    assert len(pictures(service)) == 1


async def test_all_pictures_of_a_person_are_erased_and_their_taste_is_kept(
    service: Service,
) -> None:
    client = service.client()
    await service.answer(client, "ann")
    for _ in range(2):
        await service.generate(client, user_id="ann", fresh=True)
    blend = [{"user_id": "ann", "weight": 1.0}, {"user_id": "bob", "weight": 1.0}]
    shared = await service.generate(client, blend=blend)
    service.runtime.gate.clear()
    waiting = await ask(client, "ann")
    gone = (await client.delete("/jobs?user_id=ann&erase=true")).json()
    assert gone == {"canceled": [waiting], "erased": {"jobs": 3, "images": 2}}
    service.runtime.gate.set()
    assert (await client.get(shared["result"]["images"][0]["url"])).status_code == 200
    assert len(pictures(service)) == 1
    (reading,) = (await client.get("/jobs?user_id=ann")).json()["results"]
    assert reading["kind"] == "encode"
    refused = await client.delete(f"/jobs/{reading['id']}?erase=true")
    assert (refused.status_code, refused.json()["code"]) == (409, "reading_kept")
    mine = await service.generate(client, user_id="ann")
    assert mine["result"]["personalization_applied"] is True


async def test_who_has_seen_the_end_and_comes_back_is_told_to_stay_away(
    service: Service,
) -> None:
    client = service.client()
    job_id = await ask(client)
    job = await service.until(client, job_id, "succeeded")
    path = f"/jobs/{job_id}/events"
    seen = await client.get(path, headers={"Last-Event-ID": str(job["seq"])})
    assert (seen.status_code, seen.content) == (204, b"")
    for before_the_end in ({}, {"Last-Event-ID": str(job["seq"] - 1)}, {"Last-Event-ID": "x"}):
        told = await client.get(path, headers=before_the_end)
        assert told.status_code == 200
        assert f"id: {job['seq']}\n" in told.text
        assert "event: status" in told.text


async def test_other_sites_scripts_may_call_where_a_setting_names_them(
    start: Start, tmp_path: Path
) -> None:
    asking = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,prefer",
    }
    closed: Service = await start(data_dir=tmp_path / "closed")
    assert (await closed.bare().options("/generate", headers=asking)).status_code == 405
    got = await closed.client().get("/pairs", headers=asking)
    assert "access-control-allow-origin" not in got.headers

    opened: Service = await start(
        data_dir=tmp_path / "open", cors_origins="https://shop.example, http://127.0.0.1:5173"
    )
    may = await opened.bare().options("/generate", headers=asking)
    assert may.status_code == 200
    assert may.headers["access-control-allow-origin"] == "https://shop.example"
    assert "prefer" in may.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in may.headers
    other = await opened.bare().options("/generate", headers=asking | {"Origin": "https://x.org"})
    assert (other.status_code, "access-control-allow-origin" in other.headers) == (400, False)
    answers = (
        await opened.client().get("/pairs", headers=asking),
        await opened.bare().get("/pairs", headers=asking),
        await opened.client().post("/generate", content=b"x" * 9_000_000, headers=asking),
    )
    assert [answer.status_code for answer in answers] == [200, 401, 413]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        assert "Retry-After" in answer.headers["access-control-expose-headers"]
    browser, user_id = await opened.session()
    body = {"prompt": "a", "user_id": user_id}
    cross = {"Origin": "https://shop.example", "Sec-Fetch-Site": "cross-site"}
    refused = await browser.post("/generate", json=body, headers=cross)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden_origin")


def pictures(service: Service) -> list[Path]:
    """The files of the image store."""
    return list((service.settings.data_dir / "images").rglob("*.png"))
