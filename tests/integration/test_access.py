"""Sessions, their cookie, where their changes may come from, and the headers that protect pages."""

import re
from typing import Any

import pytest

from tests.api_calls import BODIES, annes
from tests.running_service import Service

pytestmark = pytest.mark.anyio


async def test_a_key_wins_over_a_session(service: Service) -> None:
    browser, _ = await service.session()
    answer = await browser.get("/pairs", headers={"Authorization": "Bearer nonsense"})
    assert answer.status_code == 401


async def test_another_tenants_user_of_the_same_name_is_somebody_else(service: Service) -> None:
    await annes(service, service.client(), "ann")
    before = await held(service)
    client = service.client(await service.new_key("other"))
    quiz = (await client.get("/users/ann/quiz")).json()
    assert (quiz["answered"], quiz["needed"]) == (0, 4)
    job = await service.generate(client, user_id="ann")
    assert job["result"]["personalization_applied"] is False
    assert await held(service) == before


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
    body = BODIES["POST /users/{user_id}/preferences"]
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
