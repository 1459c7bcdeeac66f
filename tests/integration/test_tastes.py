"""Several tastes of one person: apart in what they are made of, one person in all that counts."""

from typing import Any

import httpx
import pytest

from service.core.auth import MAX_TASTES
from service.core.errors import JobFailure
from tests.integration.conftest import Start
from tests.integration.test_preferences import picture
from tests.running_service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]
WAIT = {"Prefer": "wait=60"}
TEXT = {"text": "Calm and dark."}


async def say(client: httpx.AsyncClient, user_id: str, taste: str, text: str = "Calm.") -> Any:
    """A taste of words, which begins it."""
    answer = await client.put(
        f"/users/{user_id}/profile?taste={taste}", json={"text": text}, headers=WAIT
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def held(client: httpx.AsyncClient, query: str = "") -> dict[str, Any]:
    answer = await client.get(f"/users/ann/preferences{query}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def answer(client: httpx.AsyncClient, preferred: list[int], query: str = "") -> Any:
    pairs = (await client.get(f"/users/ann/quiz{query}")).json()["pairs"]
    choices = [
        {"pair_id": pair["pair_id"], "preferred": side}
        for pair, side in zip(pairs, preferred, strict=True)
    ]
    sent = await client.post(
        f"/users/ann/preferences{query}", json={"choices": choices}, headers=WAIT
    )
    assert sent.status_code == 200, sent.text
    return sent.json()


async def test_each_taste_has_its_own_answers_and_profile(service: Service) -> None:
    client = service.client()
    await answer(client, [0, 1, 0, 1])
    work = await answer(client, [1, 1, 1, 1], "?taste=work")
    assert (work["user_id"], work["taste"], work["profile_version"]) == ("ann", "work", 1)
    assert work["links"]["quiz"] == "/users/ann/quiz?taste=work"
    assert (await client.get(work["links"]["preferences"])).json()["taste"] == "work"
    first, second = await held(client), await held(client, "?taste=work")
    assert [choice["preferred"] for choice in first["choices"]] == [0, 1, 0, 1]
    assert [choice["preferred"] for choice in second["choices"]] == [1, 1, 1, 1]
    assert first["taste"] is None
    assert first["profile"]["text"] != second["profile"]["text"]
    removed = await client.delete(
        f"/users/ann/preferences/{second['choices'][0]['id']}?taste=work", headers=WAIT
    )
    assert removed.json()["status"] == "collecting"
    assert (await held(client))["status"] == "ready"


async def test_an_answer_is_of_the_taste_it_was_given_to(service: Service) -> None:
    client = service.client()
    await answer(client, [0, 1, 0, 1])
    await say(client, "ann", "work")
    answer_id = (await held(client))["choices"][0]["id"]
    wrong = await client.delete(f"/users/ann/preferences/{answer_id}?taste=work")
    assert (wrong.status_code, wrong.json()["code"]) == (404, "answer_not_found")


async def test_pictures_are_in_the_taste_that_is_named(service: Service) -> None:
    client = service.client()
    await say(client, "ann", "work")
    plain = await service.generate(client, user_id="ann")
    named = await service.generate(client, user_id="ann", taste="work")
    assert plain["result"]["reason"] == "no_profile"
    assert named["result"]["personalization_applied"]
    assert (named["result"]["taste"], named["result"]["profile_version"]) == ("work", 1)
    assert "taste" not in plain["result"]
    embeddings = [request.user_emb_D for request in service.runtime.generated]
    assert embeddings[0] is None
    assert embeddings[1] is not None
    again = await service.generate(client, user_id="ann", taste="work")
    assert again["result"]["cached"]


async def test_tastes_of_one_person_and_of_others_are_blended(service: Service) -> None:
    client = service.client()
    for user_id, taste in (("ann", "home"), ("ann", "work"), ("bob", "work")):
        await say(client, user_id, taste, f"{user_id} at {taste}")
    own = [{"user_id": "ann", "taste": taste, "weight": 1} for taste in ("home", "work")]
    job = await service.generate(client, blend=own)
    assert job["result"]["blend"] == [
        {"user_id": "ann", "taste": taste, "profile_version": 1} for taste in ("home", "work")
    ]
    listed = (await client.get("/jobs?user_id=ann")).json()["results"]
    assert job["id"] in {one["id"] for one in listed}, "of her tastes alone, so it is hers"
    others = [own[0], {"user_id": "bob", "taste": "work", "weight": 2}]
    mixed = await service.generate(client, blend=others)
    assert mixed["result"]["personalization_applied"]
    erased = await client.delete("/users/bob")
    assert erased.json()["erased"]["jobs"] == 2, "his reading, and the blend with his taste"
    assert (await client.get(f"/jobs/{mixed['id']}")).status_code == 404


async def test_a_job_that_runs_again_after_its_taste_was_deleted_is_not_made_without_it(
    service: Service,
) -> None:
    client = service.client()
    await say(client, "ann", "work")
    service.runtime.fail_with = JobFailure("out_of_memory")
    body = {"prompt": "a fox", "user_id": "ann", "taste": "work"}
    job_id = (await client.post("/generate", json=body)).json()["id"]
    await service.until(client, job_id, "failed")
    assert (await client.delete("/users/ann/tastes/work")).status_code == 200
    service.runtime.fail_with = None
    async with service.database.write() as store:
        job = await store.jobs.get(job_id, lock=True)
        assert job is not None
        await store.jobs.requeue(job, None)
    failed = await service.until(client, job_id, "failed")
    assert failed["error"]["code"] == "taste_gone"


async def test_a_taste_that_is_not_there_is_refused_and_not_begun(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    refused = await client.post("/generate", json={"prompt": "x", "user_id": "ann", "taste": "wrk"})
    assert (refused.status_code, refused.json()["code"]) == (404, "taste_not_found")
    for path in ("preferences", "profiles"):
        missing = await client.get(f"/users/ann/{path}?taste=wrk")
        assert (missing.status_code, missing.json()["code"]) == (404, "taste_not_found")
    assert len((await client.get("/users/ann/tastes")).json()["results"]) == 1
    assert (await client.get("/users/ann/quiz?taste=wrk")).json()["answered"] == 0


@pytest.mark.parametrize("name", ["", ".", "a:b", "x" * 65, "a/b"])
async def test_names_of_tastes_are_checked(service: Service, name: str) -> None:
    client = service.client()
    answer = await client.put("/users/ann/profile", json=TEXT, params={"taste": name})
    assert answer.status_code == 422, answer.text
    body = {"prompt": "x", "user_id": "ann", "taste": name}
    assert (await client.post("/generate", json=body)).status_code == 422


async def test_a_person_has_so_many_tastes(service: Service) -> None:
    client = service.client()
    for i in range(MAX_TASTES):
        await say(client, "ann", f"t{i:02}")
    refused = await client.put("/users/ann/profile?taste=more", json=TEXT)
    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_tastes")
    listed = (await client.get("/users/ann/tastes")).json()
    assert [one["taste"] for one in listed["results"]] == [
        None,
        *(f"t{i:02}" for i in range(MAX_TASTES)),
    ]
    assert listed["results"][1]["status"] == "ready"
    await client.delete("/users/ann/tastes/t00")
    await say(client, "ann", "more")


async def test_jobs_and_limits_are_the_persons(start: Start) -> None:
    service: Service = await start(max_uploads_per_user=4)
    client = service.client()
    own = [
        {"caption": "a fox", "images": [picture(i), picture(i + 1)], "preferred": 0} for i in (1, 3)
    ]
    for taste, choice in zip(("home", "work"), own, strict=True):
        sent = await client.post(
            f"/users/ann/preferences?taste={taste}", json={"choices": [choice]}
        )
        assert sent.status_code == 202, sent.text
    refused = await client.post("/users/ann/preferences", json={"choices": own[:1]})
    assert (refused.status_code, refused.json()["code"]) == (409, "upload_quota")
    await say(client, "ann", "work")
    await service.generate(client, user_id="ann", taste="work")
    jobs = (await client.get("/jobs?user_id=ann")).json()["results"]
    assert sorted(job["kind"] for job in jobs) == ["encode", "generate"]
    assert len((await client.get("/users/ann/images")).json()["results"]) == 1


async def test_one_persons_waiting_jobs_are_counted_over_all_tastes(start: Start) -> None:
    service: Service = await start(max_queued_jobs_per_session=2)
    client, user_id = await service.session()
    for taste in ("home", "work"):
        await say(client, user_id, taste)
    service.runtime.gate.clear()
    statuses = []
    for i, taste in enumerate(["home", "work"] * 3):
        body = {"prompt": f"fox {i}", "user_id": user_id, "taste": taste}
        statuses.append((await client.post("/generate", json=body)).status_code)
    assert statuses[:2] == [202, 202]
    assert 429 in statuses
    ended = await client.delete(f"/jobs?user_id={user_id}")
    assert len(ended.json()["canceled"]) == statuses.count(202)
    service.runtime.gate.set()


async def test_a_session_begins_tastes_of_its_own(service: Service) -> None:
    client, user_id = await service.session()
    assert (await client.get(f"/users/{user_id}/tastes")).json()["results"][0]["taste"] is None
    await say(client, user_id, "work")
    other, _ = await service.session("127.0.0.2")
    stolen = await other.get(f"/users/{user_id}/preferences?taste=work")
    assert stolen.status_code == 404


async def test_a_repeated_post_for_another_taste_is_another_request(service: Service) -> None:
    client = service.client()
    choice = {"choices": [{"pair_id": "pair-00", "preferred": 0}]}
    key = {"Idempotency-Key": "once"}
    first = await client.post("/users/ann/preferences?taste=home", json=choice, headers=key)
    assert first.status_code == 202
    other = await client.post("/users/ann/preferences?taste=work", json=choice, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    again = await client.post("/users/ann/preferences?taste=home", json=choice, headers=key)
    assert again.headers["Idempotent-Replayed"] == "true"


async def test_a_deleted_taste_is_gone_and_its_pictures_stay_the_persons(service: Service) -> None:
    client = service.client()
    own = {"caption": "a fox", "images": [picture(1), picture(2)], "preferred": 0}
    sent = await client.post("/users/ann/preferences?taste=work", json={"choices": [own]})
    assert sent.status_code == 202
    (choice,) = (await held(client, "?taste=work"))["choices"]
    await say(client, "ann", "work")
    made = await service.generate(client, user_id="ann", taste="work")
    blend = [{"user_id": "ann", "taste": "work", "weight": 1}, {"user_id": "bob", "weight": 1}]
    mixed = await service.generate(client, blend=blend)
    service.runtime.gate.clear()
    waiting = await client.post(
        "/generate", json={"prompt": "later", "user_id": "ann", "taste": "work"}
    )
    gone = await client.delete("/users/ann/tastes/work")
    service.runtime.gate.set()
    assert gone.status_code == 200, gone.text
    assert gone.json()["erased"] == {"choices": 1, "profiles": 1, "images": 2}
    assert gone.json()["cache_forgotten"]
    ended = (await client.get(f"/jobs/{waiting.json()['id']}")).json()
    assert ended["status"] == "canceled"
    assert (await client.get(made["result"]["images"][0]["url"])).status_code == 200
    assert (await client.get(choice["images"][0])).status_code == 404
    assert (await client.get("/users/ann/preferences?taste=work")).status_code == 404
    assert (await client.delete("/users/ann/tastes/work")).json()["code"] == "taste_not_found"
    await client.delete("/users/ann")
    assert (await client.get(f"/jobs/{mixed['id']}")).status_code == 404, "the blend was hers too"


async def test_erasure_and_export_reach_all_tastes(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    await say(client, "ann", "work", "Dark and quiet.")
    await service.generate(client, user_id="ann", taste="work")
    export = (await client.get("/users/ann/export")).json()
    assert len(export["choices"]) == 4
    (work,) = export["tastes"]
    assert (work["taste"], work["profiles"][0]["text"]) == ("work", "Dark and quiet.")
    uses = [job["uses"] for job in export["jobs"] if job["kind"] == "generate"]
    assert uses == [[{"weight": 1.0, "pinned_profile_version": 1, "taste": "work"}]]
    erased = (await client.delete("/users/ann")).json()
    assert erased["erased"]["profiles"] == 2
    assert erased["erased"]["choices"] == 4
    async with service.database.read() as store:
        assert await store.users.find("default", "ann:work") is None
        assert len(await store.tombstones.to_forget(10)) == 2
    fresh = await service.answer(client, "ann")
    assert fresh["profile_version"] == 1
    assert len((await client.get("/users/ann/tastes")).json()["results"]) == 1


async def test_contributing_is_decided_for_all_tastes_those_to_come_too(service: Service) -> None:
    client = service.client()
    await answer(client, [0, 1, 0, 1], "?taste=work")
    decided = await client.put("/users/ann/contribution", json={"contribute": True})
    assert decided.json()["contribute"]
    await answer(client, [1, 1, 1, 1], "?taste=home")
    assert [(await held(client, query))["contribute"] for query in ("", "?taste=home")] == [
        True
    ] * 2
    async with service.database.write() as store:
        export = await store.exports.begin()
        await store.exports.take_in(export, 0, 100)
        assert len(await store.exports.answers(export, 1)) == 8
        assert await store.exports.people(export) == 2, "each taste is one of its own"
    await client.put("/users/ann/contribution", json={"contribute": False})
    async with service.database.write() as store:
        assert await store.exports.answers(export, 1) == []


async def test_names_that_are_too_long_together_are_refused(service: Service) -> None:
    client = service.client()
    person = "a" * 120
    fits = await client.put(f"/users/{person}/profile?taste=evening", json=TEXT, headers=WAIT)
    assert fits.status_code == 200, fits.text
    for answer in (
        await client.put(f"/users/{person}/profile?taste=evenings", json=TEXT),
        await client.post(
            "/generate", json={"prompt": "a boat", "user_id": person, "taste": "evenings"}
        ),
    ):
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/taste"
        assert "7 characters" in str(error)
