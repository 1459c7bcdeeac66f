"""Names under which the service answers, what links are made of, and whose word counts."""

import pytest

from service.api.http.hosts import Hosts, host_of
from service.settings import Settings
from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example"])
async def test_another_name_that_points_here_gets_neither_page_nor_session(
    service: Service, host: str
) -> None:
    for path in ("/", "/studio", "/pairs", "/static/js/shared/dom.js"):
        answer = await service.client(headers={"Host": host}).get(path)
        assert (answer.status_code, answer.json()["code"]) == (421, "unknown_host"), path
        assert "set-cookie" not in answer.headers
    ready = await service.bare(headers={"Host": host}).get("/health/live")
    assert ready.status_code == 200


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.:1", "127.0.0.1:8000", "[::1]:8000"])
async def test_on_loopback_every_name_of_this_machine_is_answered(
    service: Service, host: str
) -> None:
    assert (await service.bare(headers={"Host": host}).get("/")).status_code == 200


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, ("localhost", "127.0.0.1", "::1", "0.0.0.0")),
        ({"host": "0.0.0.0"}, ()),
        ({"allowed_hosts": "*"}, ()),
        ({"allowed_hosts": "a.example, *.b.example"}, ("a.example", "*.b.example")),
        (
            {"allowed_hosts": "A.example:8443,b.example.,[::1]:80"},
            ("a.example", "b.example", "::1"),
        ),
        ({"allowed_hosts": "*.c.example.:80, FE80::1"}, ("*.c.example", "fe80::1")),
        (
            {"public_url": "https://pictures.example:444/"},
            ("localhost", "127.0.0.1", "::1", "0.0.0.0", "pictures.example"),
        ),
        ({"host": "0.0.0.0", "allowed_hosts": "a", "public_url": "http://b"}, ("a", "b")),
    ],
)
def test_names_come_from_where_it_listens_and_from_the_settings(
    given: dict[str, str], names: tuple[str, ...]
) -> None:
    assert Settings(**given).answered_hosts == names


@pytest.mark.parametrize("names", ["*.", "*..", "a..b", "https://a", "a:b", "a:80:80", "[::1", "."])
def test_what_no_host_can_match_is_refused_at_the_start(names: str) -> None:
    with pytest.raises(ValueError, match="expected \\* or names"):
        Settings(allowed_hosts=names)


def test_a_star_stands_for_all_names_below() -> None:
    hosts = Hosts(("*.b.example",))
    assert hosts.answers([(b"host", b"a.b.example:1")], "/")
    assert not hosts.answers([(b"host", b"b.example")], "/")
    assert not hosts.answers([(b"host", b"ab.example")], "/")
    assert not hosts.answers([], "/")
    assert not hosts.answers([(b"host", b"a.b.example"), (b"host", b"a.b.example")], "/")


def test_a_host_is_read_without_port_brackets_and_root() -> None:
    assert [host_of(text) for text in ("A.b.:1", "[::1]:2", "[::1]", "x", "")] == [
        "a.b", "::1", "::1", "x", ""
    ]  # fmt: skip


async def test_links_that_leave_the_service_are_made_of_its_public_address(start: Start) -> None:
    service: Service = await start(public_url="https://pictures.example/")
    made = await service.client().post(
        "/v1/images/generations", json={"prompt": "a fox", "response_format": "url", "steps": 2}
    )
    assert made.json()["data"][0]["url"].startswith("https://pictures.example/images/")
    browser, user_id = await service.session()
    del browser.headers["Sec-Fetch-Site"]
    for origin, status in (("https://pictures.example", 404), ("https://evil.example", 403)):
        answer = await browser.delete(f"/users/{user_id}", headers={"Origin": origin})
        assert answer.status_code == status, origin


async def test_nobody_says_for_whom_it_asks_unless_it_is_a_proxy_of_ours(start: Start) -> None:
    service: Service = await start(rate_limit_address="3/hour")
    for i in range(4):
        answer = await service.bare(headers={"X-Forwarded-For": f"10.0.0.{i}"}).get("/")
    assert answer.status_code == 429
    behind: Service = await start(rate_limit_address="3/hour", trusted_proxies="127.0.0.1")
    for i in range(5):
        answer = await behind.bare(headers={"X-Forwarded-For": f"10.0.0.{i}"}).get("/")
        assert answer.status_code == 200
