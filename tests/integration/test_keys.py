"""Keys are made, listed and revoked by admins, and by nobody else."""

import pytest

from tests.running_service import Service

pytestmark = pytest.mark.anyio


async def test_a_key_is_shown_once_works_and_stops_at_once(service: Service) -> None:
    admin = service.client()
    body = {"name": "the shop", "tenant": "shop"}
    once = {"Idempotency-Key": "k-1"}
    made = (await admin.post("/admin/keys", json=body, headers=once)).json()
    assert (made["tenant"], made["scope"], made["revoked_at"]) == ("shop", "client", None)
    shop = service.client(made["key"])
    assert (await shop.get("/pairs")).status_code == 200
    again = await admin.post("/admin/keys", json=body, headers=once)
    assert (again.status_code, again.json()) == (201, {**made, "key": None})
    listed = await admin.get("/admin/keys")
    assert made["key"] not in listed.text
    assert [key["name"] for key in listed.json()["results"]] == ["first start", "the shop"]
    revoked = await admin.delete(f"/admin/keys/{made['id']}")
    assert revoked.json()["revoked_at"] is not None
    assert (await shop.get("/pairs")).status_code == 401
    twice = await admin.delete(f"/admin/keys/{made['id']}")
    assert (twice.status_code, twice.json()["code"]) == (404, "key_not_found")
    assert (await admin.delete("/admin/keys/unknown")).status_code == 404


async def test_a_key_does_not_revoke_itself(service: Service) -> None:
    admin = service.client()
    own = await service.id_of_key(service.key)
    answer = await admin.delete(f"/admin/keys/{own}")
    assert (answer.status_code, answer.json()["code"]) == (409, "own_key")
    other = service.client(await service.new_key("shop", "admin"))
    assert (await other.delete(f"/admin/keys/{own}")).status_code == 200
    assert (await admin.get("/admin/keys")).status_code == 401


async def test_some_keys_cannot_be(service: Service) -> None:
    admin = service.client()
    for wrong in (
        {"tenant": "browser"},
        {"tenant": ""},
        {"tenant": "../x"},
        {"tenant": "shop\n"},
        {"tenant": "x" * 65},
        {"name": " "},
        {"name": "x" * 129},
        {"scope": "root"},
        {"key": "ppd_mine"},
    ):
        body = {"name": "a", "tenant": "shop", **wrong}
        answer = await admin.post("/admin/keys", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), wrong
    assert len((await admin.get("/admin/keys")).json()["results"]) == 1


async def test_the_docs_name_the_code_of_a_refused_client(service: Service) -> None:
    page = (await service.bare().get("/docs")).text
    assert 'id="error-admin_only"' in page
    assert "/admin/keys" in page
