"""A taste that is shared by a code: used by anybody, seen by nobody, and ended at any time."""

from typing import Any

import httpx
import pytest

from service.api.routes.tastes import MAX_SHARES
from tests.integration.test_erase_and_export import embeddings_in, services_of
from tests.integration.test_tastes import say
from tests.running_service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]
SECRET = "Dark and quiet pictures of foxes."


async def shared(client: httpx.AsyncClient, user_id: str = "ann", **body: str) -> str:
    answer = await client.post(f"/users/{user_id}/shares", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["code"])


async def refused(client: httpx.AsyncClient, code: str) -> tuple[int, Any]:
    answer = await client.post("/generate", json={"prompt": "a fox", "taste_code": code})
    return answer.status_code, {
        name: told for name, told in answer.json().items() if name != "request_id"
    }


async def test_others_make_pictures_with_a_code_and_see_nothing_else(service: Service) -> None:
    ann = service.client()
    await say(ann, "ann", "work", SECRET)
    code = await shared(ann, taste="work")
    own = await service.generate(ann, user_id="ann", taste="work")
    browser, user_id = await service.session()
    shop = service.client(await service.new_key("shop"))
    by_session = await service.generate(browser, user_id=user_id, taste_code=code)
    by_key = await service.generate(shop, taste_code=code)
    for job in (by_session, by_key):
        result = job["result"]
        assert result["personalization_applied"]
        assert result["shared_taste"] is True
        assert not result["cached"], "what ann asked for is not to be told from it"
        told = str(job)
        assert "ann" not in told
        assert "work" not in told
        assert SECRET not in told
    embeddings = [request.user_emb_D.tolist() for request in service.runtime.generated]
    assert embeddings[0] == embeddings[1] == embeddings[2]
    assert "shared_taste" not in own["result"]
    mine = (await browser.get(f"/users/{user_id}/images")).json()["results"]
    assert [image["job_id"] for image in mine] == [by_session["id"]]
    seen = {job["id"] for job in (await ann.get("/jobs?user_id=ann")).json()["results"]}
    assert seen.isdisjoint({by_session["id"], by_key["id"]})
    export = str((await ann.get("/users/ann/export")).json())
    assert by_session["id"] not in export
    theirs = str((await browser.get(f"/users/{user_id}/export")).json())
    assert by_session["id"] in theirs
    assert SECRET not in theirs
    kept = {key.tenant for key in embeddings_in(services_of(service).cache)}
    assert kept == {"default"}, "erasing ann forgets her under her own tenant alone"


async def test_a_code_follows_the_taste(service: Service) -> None:
    client = service.client()
    await say(client, "ann", "work", "Calm.")
    code = await shared(client, taste="work")
    first = await service.generate(client, taste_code=code)
    equal = await service.generate(client, taste_code=code)
    await say(client, "ann", "work", "Loud.")
    then = await service.generate(client, taste_code=code)
    versions = [job["result"]["profile_version"] for job in (first, equal, then)]
    assert versions == [1, 1, 2]
    assert [job["result"]["cached"] for job in (first, equal, then)] == [False, True, False]


async def test_a_revoked_code_is_as_one_that_never_was(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    code, kept = await shared(client), await shared(client)
    listed = (await client.get("/users/ann/shares")).json()["results"]
    assert [one["code"] for one in listed] == [code, kept]
    assert (await client.delete(f"/users/bob/shares/{code}")).status_code == 404
    assert (await client.delete(f"/users/ann/shares/{code}")).status_code == 204
    for gone in (code, "%00", "%F0%9F%A6%8A"):
        again = await client.delete(f"/users/ann/shares/{gone}")
        assert (again.status_code, again.json()["code"]) == (404, "share_not_found")
    revoked, never = await refused(client, code), await refused(client, "a" * 26)
    assert revoked == never
    assert (revoked[0], revoked[1]["code"]) == (404, "share_not_found")
    assert (await service.generate(client, taste_code=kept))["result"]["shared_taste"]
    by_id = (await client.get("/users/ann/shares")).json()["results"][0]["id"]
    assert (await client.delete(f"/users/ann/shares/{by_id}")).status_code == 204
    assert (await refused(client, kept))[0] == 404


async def test_the_code_itself_is_not_stored(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    code = await shared(client)
    async with service.database.read() as store:
        user = await store.users.find("default", "ann")
        assert user is not None
        ((row, _),) = await store.taste_shares.of(user.pk)
    assert code not in str(vars(row))
    assert len(code) == 26


async def test_a_repeated_post_gives_the_same_code(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    key = {"Idempotency-Key": "share-once"}
    answers = [await client.post("/users/ann/shares", json={}, headers=key) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert len((await client.get("/users/ann/shares")).json()["results"]) == 1


async def test_nothing_is_shared_of_who_is_not_there_and_not_without_end(service: Service) -> None:
    client = service.client()
    nobody = await client.post("/users/ann/shares", json={})
    assert (nobody.status_code, nobody.json()["code"]) == (404, "user_not_found")
    await say(client, "ann", "work")
    missing = await client.post("/users/ann/shares", json={"taste": "home"})
    assert (missing.status_code, missing.json()["code"]) == (404, "taste_not_found")
    for _ in range(MAX_SHARES):
        await shared(client, taste="work")
    more = await client.post("/users/ann/shares", json={})
    assert (more.status_code, more.json()["code"]) == (409, "too_many_shares")


async def test_when_the_owner_goes_the_code_dies_and_others_keep_their_pictures(
    service: Service,
) -> None:
    client, shop = service.client(), service.client(await service.new_key("shop"))
    await say(client, "ann", "work")
    code = await shared(client, taste="work")
    made = await service.generate(shop, user_id="bob", taste_code=code)
    same_tenant = await service.generate(client, user_id="cay", taste_code=code)
    service.runtime.gate.clear()
    first = await shop.post("/generate", json={"prompt": "now", "user_id": "bob"})
    body = {"prompt": "later", "user_id": "bob", "taste_code": code}
    waiting = (await shop.post("/generate", json=body)).json()
    assert (await client.delete("/users/ann")).status_code == 200
    service.runtime.gate.set()
    assert (await refused(shop, code))[0] == 404
    await service.until(shop, first.json()["id"], "succeeded")
    failed = await service.until(shop, waiting["id"], "failed")
    assert failed["error"]["code"] == "taste_gone", "never silently without the taste"
    for caller, job in ((shop, made), (client, same_tenant)):
        assert (await caller.get(job["result"]["images"][0]["url"])).status_code == 200


async def test_who_uses_a_code_pays_for_it(service: Service) -> None:
    client = service.client()
    await say(client, "ann", "work")
    code = await shared(client, taste="work")
    browser, user_id = await service.session()
    job = await service.generate(browser, user_id=user_id, taste_code=code)
    async with service.database.read() as store:
        row = await store.jobs.get(job["id"])
        me = await store.users.find("browser", user_id)
    assert row is not None
    assert me is not None
    assert (row.tenant, row.user_pk) == ("browser", me.pk)
    assert row.lane is not None


async def test_a_shared_taste_is_blended_with_ones_own(service: Service) -> None:
    client = service.client()
    await say(client, "ann", "work")
    code = await shared(client, taste="work")
    browser, user_id = await service.session()
    await service.answer(browser, user_id)
    blend = [{"user_id": user_id, "weight": 3}, {"taste_code": code, "weight": 1}]
    job = await service.generate(browser, blend=blend)
    assert job["result"]["blend"] == [
        {"user_id": user_id, "profile_version": 1},
        {"shared_taste": True, "profile_version": 1},
    ]
    assert job["result"]["personalization_applied"]
    assert len((await browser.get(f"/users/{user_id}/images")).json()["results"]) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"taste": "work"},
        {"user_id": "ann", "taste": "work", "taste_code": "x"},
        {"taste_code": "x", "blend": [{"user_id": "ann", "weight": 1}]},
        {"taste_code": ""},
        {"blend": [{"weight": 1}]},
        {"blend": [{"user_id": "ann", "taste_code": "x", "weight": 1}]},
        {"blend": [{"taste_code": "x", "weight": 1}, {"taste_code": "x", "weight": 1}]},
    ],
)
async def test_what_contradicts_itself_is_refused(service: Service, body: Any) -> None:
    answer = await service.client().post("/generate", json={"prompt": "a fox", **body})
    assert answer.status_code == 422, answer.text


async def test_pictures_of_a_code_are_nobodys_where_a_key_names_nobody(service: Service) -> None:
    client = service.client()
    await say(client, "ann", "work")
    code = await shared(client, taste="work")
    job = await service.generate(client, taste_code=code)
    gone = await client.delete("/jobs?nobody=true&erase=true")
    assert gone.json()["erased"] == {"jobs": 1, "images": 1}
    assert (await client.get(f"/jobs/{job['id']}")).status_code == 404


async def test_an_answer_about_a_shared_tastes_picture_proves_nothing_of_ones_own(
    service: Service,
) -> None:
    client = service.client()
    await say(client, "ann", "work")
    code = await shared(client, taste="work")
    browser, user_id = await service.session()
    jobs = [
        await service.generate(browser, user_id=user_id, **how)
        for how in ({"taste_code": code}, {"strength": 0})
    ]
    ids = [job["result"]["images"][0]["url"].split("/")[-1] for job in jobs]
    choice = {"image_ids": ids, "preferred": 0, "blind": True}
    answer = await browser.post(f"/users/{user_id}/preferences", json={"choices": [choice]})
    assert answer.status_code == 202, answer.text
    (made,) = (await browser.get(f"/users/{user_id}/export")).json()["choices"]
    assert made["made"]["personal"] is None
