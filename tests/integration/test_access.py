"""Nobody reaches what is not theirs: every route of the schema, every kind of stranger."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.infra.secrets import key_sha256
from tests.running_service import Service

pytestmark = pytest.mark.anyio

PUBLIC = {
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("get", "/pairs/images/{file}"),
    ("get", "/vocabulary"),
}
GENERIC = {("get", "/pairs")}
"""Needs a key, but is the same for everybody."""

NEW_TO_THE_CALLER = {
    ("get", "/users/{user_id}/quiz"),
    ("post", "/users/{user_id}/preferences"),
    ("post", "/generate"),
}
"""User ids are a tenant's own: for another tenant these begin a user of its own."""

ADMIN = "/admin/"
"""Paths of the service as a whole; `test_adapters` says who may use them."""

BODIES: dict[tuple[str, str], Any] = {
    ("post", "/users/{user_id}/preferences"): {"choices": [{"pair_id": "pair-00", "preferred": 0}]},
    ("put", "/users/{user_id}/profile"): {"text": "I like fog."},
    ("post", "/generate"): {"prompt": "a fox", "user_id": "ann"},
}


async def operations(service: Service) -> list[tuple[str, str]]:
    schema = (await service.bare().get("/openapi.json")).json()
    found = [(method, path) for path, item in schema["paths"].items() for method in item]
    assert len(found) >= 16
    return found


def protected(found: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    for operation in found:
        if operation not in PUBLIC:
            yield operation


async def call(
    client: httpx.AsyncClient, operation: tuple[str, str], ids: dict[str, str]
) -> httpx.Response:
    method, path = operation
    filled = re.sub(r"{(\w+)}", lambda match: ids[match[1]], path)
    body = BODIES.get(operation)
    return await client.request(method, filled, **({"json": body} if body else {}))


async def annes(service: Service) -> dict[str, str]:
    """Ann, of the default tenant, with a profile, a job and a picture."""
    client = service.client()
    await service.answer(client, "ann")
    job = await service.generate(client, user_id="ann")
    image = job["result"]["images"][0]["url"].split("/")[-1]
    return {"user_id": "ann", "job_id": job["id"], "image_id": image, "version": "0" * 12}


async def test_every_route_but_the_public_ones_wants_a_key(service: Service) -> None:
    ids = await annes(service)
    revoked = await service.new_key("default")
    async with service.database.write() as store:
        (row,) = [k for k in await store.keys.all() if k.key_sha256 == key_sha256(revoked)]
        assert await store.keys.revoke(row.pk)
    strangers = {
        "no key": service.bare(),
        "revoked": service.client(revoked),
        "wrong": service.client("ppd_" + "A" * 43),
        "basic": service.bare(headers={"Authorization": "Basic cHBkOnBwZA=="}),
        "forged session": service.bare(
            headers={"Cookie": "ppd_session=Im1lLTEi.aaaaaa.bbbb", "Sec-Fetch-Site": "same-origin"}
        ),
    }
    for operation in protected(await operations(service)):
        for who, client in strangers.items():
            answer = await call(client, operation, ids)
            assert answer.status_code == 401, (operation, who)
            assert answer.json()["code"] == "unauthorized"
            assert "Bearer" in answer.headers["www-authenticate"]


async def test_a_key_wins_over_a_session(service: Service) -> None:
    browser, _ = await service.session()
    answer = await browser.get("/pairs", headers={"Authorization": "Bearer nonsense"})
    assert answer.status_code == 401


async def test_what_is_another_tenants_is_404(service: Service) -> None:
    ids = await annes(service)
    before = await held(service)
    client = service.client(await service.new_key("other"))
    for operation in protected(await operations(service)):
        if operation in GENERIC | NEW_TO_THE_CALLER:
            continue
        if operation[1].startswith(ADMIN):
            assert (await call(client, operation, ids)).json()["code"] == "admin_only", operation
            continue
        answer = await call(client, operation, ids)
        assert answer.status_code == 404, operation
        assert answer.json()["code"].endswith("_not_found")
    assert await held(service) == before


async def test_another_tenants_user_of_the_same_name_is_somebody_else(service: Service) -> None:
    await annes(service)
    before = await held(service)
    client = service.client(await service.new_key("other"))
    quiz = (await client.get("/users/ann/quiz")).json()
    assert (quiz["answered"], quiz["needed"]) == (0, 4)
    job = await service.generate(client, user_id="ann")
    assert job["result"]["personalization_applied"] is False
    assert await held(service) == before


async def test_a_browser_session_reaches_its_own_user_only(service: Service) -> None:
    owner, user_id = await service.session()
    await service.answer(owner, user_id)
    job = await service.generate(owner, user_id=user_id)
    base = await service.generate(owner)
    stranger, other_id = await service.session()
    assert user_id != other_id
    for made in (job, base):
        url = made["result"]["images"][0]["url"]
        ids = {"user_id": user_id, "job_id": made["id"], "image_id": url.split("/")[-1]}
        for operation in protected(await operations(service)):
            if operation in GENERIC or operation[1].startswith(ADMIN):
                continue
            if operation == ("post", "/generate"):
                answer = await stranger.post(
                    "/generate", json={"prompt": "a fox", "user_id": user_id}
                )
            else:
                answer = await call(stranger, operation, ids)
            assert answer.status_code == 404, operation
        assert (await owner.get(url)).status_code == 200
        assert (await owner.get(f"/jobs/{made['id']}/events")).status_code == 200
    blend = {"prompt": "a fox", "blend": [{"user_id": user_id, "weight": 1.0}]}
    assert (await stranger.post("/generate", json=blend)).status_code == 404


async def test_a_session_does_not_reach_a_tenants_users(service: Service) -> None:
    ids = await annes(service)
    browser, _ = await service.session()
    for operation in protected(await operations(service)):
        if operation not in GENERIC and not operation[1].startswith(ADMIN):
            answer = await call(browser, operation, ids)
            assert answer.status_code == 404, operation


async def test_the_cookie_is_http_only_and_stays_the_same(service: Service) -> None:
    client = service.bare()
    first = await client.get("/")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    again = await client.get("/studio")
    assert "set-cookie" not in again.headers
    assert first.text.split("ppd-user")[1][:40] == again.text.split("ppd-user")[1][:40]


ORIGINS: list[tuple[dict[str, str], bool]] = [
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "none"}, False),
    ({"Origin": "https://evil.example"}, False),
    ({"Origin": "null"}, False),
    ({}, False),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "SELF"}, False),
    ({"Origin": "SELF"}, True),
]


async def test_a_sessions_changes_come_from_its_own_pages(service: Service) -> None:
    browser, user_id = await service.session()
    del browser.headers["Sec-Fetch-Site"]
    body = BODIES["post", "/users/{user_id}/preferences"]
    for headers, passes in ORIGINS:
        sent = {name: value.replace("SELF", service.url) for name, value in headers.items()}
        answer = await browser.post(f"/users/{user_id}/preferences", json=body, headers=sent)
        assert answer.status_code == (202 if passes else 403), headers
        if not passes:
            assert answer.json()["code"] == "forbidden_origin"
            assert (await browser.delete(f"/users/{user_id}", headers=sent)).status_code == 403
        assert (await browser.get(f"/users/{user_id}/quiz", headers=sent)).status_code == 200


async def test_pages_and_errors_carry_the_protecting_headers(service: Service) -> None:
    client = service.bare()
    for path in ("/", "/studio", "/docs", "/nowhere", "/pairs", "/static/none.js"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        assert "access-control-allow-origin" not in headers
        assert re.fullmatch(r"[0-9a-f]{16}", headers["x-request-id"])


async def held(service: Service) -> dict[str, Any]:
    """All that is held about Ann, but for when it was looked at."""
    return dict((await service.client().get("/users/ann/export")).json())
