"""A picture is reported, an operator takes it down, and the record says who did what."""

import pytest

from tests.api_calls import code_of
from tests.running_service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


async def made(service: Service, client: object, **body: object) -> str:
    job = await service.generate(client, **body)  # type: ignore[arg-type]
    return str(job["result"]["images"][0]["url"].split("/")[-1])


async def test_a_picture_is_reported_seen_by_an_operator_and_taken_down_for_good(
    service: Service,
) -> None:
    browser, user_id = await service.session()
    image_id = await made(service, browser, user_id=user_id)
    report = {"image_id": image_id, "reason": "It shows me.\u0007"}
    first = await browser.post("/reports", json=report)
    assert (first.status_code, first.json()["status"]) == (201, "open")
    again = await browser.post("/reports", json=report)
    assert again.json()["id"] == first.json()["id"], "until it is decided on it is one report"
    admin = service.client()
    listed = (await admin.get("/admin/reports?status=open")).json()["results"]
    assert [(one["id"], one["tenant"], one["reported_by"]) for one in listed] == [
        (first.json()["id"], "browser", "session")
    ]
    shown = await admin.get(listed[0]["picture"])
    assert shown.content == (await browser.get(f"/images/{image_id}")).content
    address = f"/admin/reports/{listed[0]['id']}"
    dismissed = await admin.post(f"{address}/dismiss")
    assert dismissed.json()["status"] == "dismissed"
    assert (await admin.post(f"{address}/dismiss")).status_code == 409
    taken = await admin.post(f"{address}/takedown")
    assert (taken.json()["status"], taken.json()["picture"]) == ("taken_down", None)
    answer = await browser.get(f"/images/{image_id}")
    assert (answer.status_code, code_of(answer)) == (410, "image_taken_down")
    assert (await admin.get(f"{address}/picture")).status_code == 404
    assert list((service.settings.data_dir / "images").rglob("*.png")) == []
    assert (await browser.get(f"/users/{user_id}/images")).json()["results"] == []
    stranger, _ = await service.session()
    assert (await stranger.get(f"/images/{image_id}")).status_code == 404
    assert (await admin.get(f"/images/{image_id}")).status_code == 404


async def test_what_was_taken_down_is_not_given_to_an_equal_request(service: Service) -> None:
    client = service.client()
    image_id = await made(service, client, seed=5)
    report = (await client.post("/reports", json={"image_id": image_id, "reason": "no"})).json()
    assert (await client.post(f"/admin/reports/{report['id']}/takedown")).status_code == 200
    job = await service.generate(client, seed=5)
    assert job["result"]["cached"] is False


async def test_a_picture_that_one_cannot_see_cannot_be_reported(service: Service) -> None:
    image_id = await made(service, service.client())
    report = {"image_id": image_id, "reason": "no"}
    for stranger in ((await service.session())[0], service.client(await service.new_key("other"))):
        answer = await stranger.post("/reports", json=report)
        assert (answer.status_code, code_of(answer)) == (404, "image_not_found")
    reports = (await service.client().get("/admin/reports")).json()
    assert reports == {"results": [], "next": None}


async def test_reports_go_with_the_person_whose_picture_it_is(service: Service) -> None:
    browser, user_id = await service.session()
    image_id = await made(service, browser, user_id=user_id)
    await browser.post("/reports", json={"image_id": image_id, "reason": "mine"})
    exported = (await browser.get(f"/users/{user_id}/export")).json()
    assert [one["reason"] for one in exported["reports"]] == ["mine"]
    assert (await browser.delete(f"/users/{user_id}")).status_code == 200
    assert (await service.client().get("/admin/reports")).json()["results"] == []


async def test_reports_are_paged(service: Service) -> None:
    client = service.client()
    for seed in range(3):
        image_id = await made(service, client, seed=seed)
        await client.post("/reports", json={"image_id": image_id, "reason": str(seed)})
    first = (await client.get("/admin/reports?limit=2")).json()
    rest = (await client.get(f"/admin/reports?limit=2&cursor={first['next']}")).json()
    assert [one["reason"] for one in first["results"] + rest["results"]] == ["2", "1", "0"]
    assert rest["next"] is None


async def test_the_record_says_who_did_what_to_which_object(service: Service) -> None:
    admin = service.client()
    own = f"key:{await service.id_of_key(service.key)}"
    made_key = {"name": "x", "tenant": "shop"}
    key_id = (await admin.post("/admin/keys", json=made_key)).json()["id"]
    await admin.delete(f"/admin/keys/{key_id}")
    job = await service.generate(admin)
    await admin.delete(f"/jobs/{job['id']}?erase=true")
    browser, user_id = await service.session()
    await service.generate(browser, user_id=user_id)
    async with service.database.read() as store:
        user = await store.users.find("browser", user_id)
    assert user is not None
    await browser.delete(f"/users/{user_id}")
    async with service.database.read() as store:
        entries = await store.audit.since(None, 0, 100)
    told = [(entry.who, entry.what, entry.object) for entry in entries]
    assert told[-4:] == [
        (own, "key.made", f"key:{key_id}"),
        (own, "key.revoked", f"key:{key_id}"),
        (own, "jobs.erased", f"job:{job['id']}"),
        ("session", "person.erased", f"person:{user.pk}"),
    ]
    assert user_id not in str([entry.columns("object", "detail") for entry in entries])


async def test_the_record_keeps_its_newest_entries_alone(service: Service) -> None:
    async with service.database.write() as store:
        for number in range(5):
            await store.audit.note("service", "content.refused", f"request:{number}")
        assert await store.audit.prune(None, 2) > 0
        left = await store.audit.since(None, 0, 100)
    assert [entry.object for entry in left] == ["request:3", "request:4"]
