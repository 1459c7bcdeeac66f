"""Sessions, their cookie, where their changes may come from, and the headers that protect pages."""

import re
from typing import Any

import pytest

from service.settings import Settings
from tests.api_calls import BODIES, annes
from tests.integration.conftest import Start
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


async def test_over_https_the_cookie_is_secure_and_bound_to_the_host(start: Start) -> None:
    service: Service = await start(trusted_proxies="127.0.0.1")
    client = service.bare(headers={"X-Forwarded-Proto": "https", "Sec-Fetch-Site": "same-origin"})
    page = await client.get("/")
    cookie = page.headers["set-cookie"]
    assert cookie.startswith("__Host-ppd_session=")
    assert "Secure" in cookie
    assert "Path=/" in cookie
    assert "Domain" not in cookie
    value = cookie.split(";")[0].split("=", 1)[1]
    sent = {"Cookie": f"__Host-ppd_session={value}"}
    user_id = page.text.split('name="ppd-user" content="')[1].split('"')[0]
    assert (await client.get(f"/users/{user_id}/quiz", headers=sent)).status_code == 200
    plain = {"Cookie": f"ppd_session={value}"}  # which a neighbour of the host could have set
    assert (await client.get(f"/users/{user_id}/quiz", headers=plain)).status_code == 401
    await client.post(
        f"/users/{user_id}/preferences",
        json=BODIES["POST /users/{user_id}/preferences"],
        headers=sent,
    )
    gone = await client.delete(f"/users/{user_id}", headers=sent)
    assert gone.status_code == 200
    assert gone.headers["set-cookie"].startswith('__Host-ppd_session=""')
    assert "Secure" in gone.headers["set-cookie"]


async def test_only_a_trusted_proxy_says_that_it_is_https(start: Start) -> None:
    service: Service = await start(trusted_proxies="10.0.0.0/8, 192.168.1.1")
    page = await service.bare(headers={"X-Forwarded-Proto": "https"}).get("/")
    assert page.headers["set-cookie"].startswith("ppd_session=")
    assert "Secure" not in page.headers["set-cookie"]


@pytest.mark.parametrize("proxies", ["*", "proxy", "10.0.0.0/40", "10.0.0.1,", "10.0.0.1;x"])
def test_proxies_are_addresses_or_networks(proxies: str) -> None:
    with pytest.raises(ValueError, match=r"such as 10\.0\.0\.0/8"):
        Settings(trusted_proxies=proxies)


async def test_behind_tls_an_origin_is_https_too(service: Service) -> None:
    browser, user_id = await service.session()
    del browser.headers["Sec-Fetch-Site"]
    origin = {"Origin": service.url.replace("http://", "https://")}
    body = BODIES["POST /users/{user_id}/preferences"]
    answer = await browser.post(f"/users/{user_id}/preferences", json=body, headers=origin)
    assert answer.status_code == 403


async def test_no_page_of_another_site_may_read_or_frame_anything(service: Service) -> None:
    client = service.client()
    evil = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    for path in (
        "/",
        "/pairs",
        "/openapi.json",
        "/v1/models",
        "/nowhere",
        "/static/js/shared/dom.js",
    ):
        answer = await client.get(path, headers=evil)
        assert not [name for name in answer.headers if name.startswith("access-control")], path
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        asked = {**evil, "Access-Control-Request-Method": "POST"}
        preflight = await client.options(path, headers=asked)
        assert preflight.status_code in (404, 405), path
        assert not [name for name in preflight.headers if name.startswith("access-control")]


async def test_the_policy_lets_no_inline_script_and_no_other_site_in(service: Service) -> None:
    for path in ("/", "/studio", "/docs"):
        page = await service.bare().get(path)
        policy = dict(
            directive.strip().split(" ", 1)
            for directive in page.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'self'"
        assert policy["object-src"] == policy["base-uri"] == "'none'"
        assert policy["frame-ancestors"] == "'none'"
        assert policy["form-action"] == "'self'"
        assert not {"script-src", "style-src", "connect-src"} & set(policy)
        assert not re.search(r"<script(?![^>]*\bsrc=\"/)|\son\w+=|\sstyle=|<style", page.text), path


async def held(service: Service) -> dict[str, Any]:
    """All that is held about Ann, but for when it was looked at."""
    return dict((await service.client().get("/users/ann/export")).json())
