"""Bytes that no client would send, to every route that reads a body, and to the socket itself."""

import asyncio
import contextlib
import json

import httpx
import pytest

from tests.api_calls import annes, code_of, protected
from tests.running_service import Service

pytestmark = pytest.mark.anyio

BODIES: dict[str, bytes] = {
    "nothing": b"",
    "half": b'{"prompt":"a',
    "comma": b'{"prompt":"a",}',
    "array": b'[{"prompt":"a"}]',
    "null": b"null",
    "utf-8 cut": b'{"prompt":"\xf0\x9f\x92"}',
    "utf-8 wrong": b'{"prompt":"\xc0\xaf"}',
    "utf-16": '{"prompt":"a"}'.encode("utf-16"),
    "bom": b'\xef\xbb\xbf{"prompt":"a"}',
    "nan": b'{"prompt":"a","strength":NaN}',
    "infinity": b'{"prompt":"a","strength":-Infinity}',
    "1e999": b'{"prompt":"a","strength":1e999}',
    "surrogate": b'{"prompt":"\\ud800","name":"\\udfff"}',
    "surrogate name": b'{"\\ud800":"a"}',
    "nul": b'{"prompt":"a\\u0000b","text":"\\u0000","name":"\\u0000"}',
    "raw nul": b'{"prompt":"a\x00b"}',
    "long integer": b'{"prompt":"a","seed":' + b"9" * 5000 + b"}",
    "2**64": b'{"prompt":"a","seed":18446744073709551616}',
    "deep": b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "twice": b'{"prompt":"a","prompt":"b","name":"a","name":"b","text":"a","text":"b"}',
    "many": b'{"prompt":[' + b"0," * 200_000 + b"0]}",
    "all bytes": bytes(range(256)),
    "form": b"prompt=a",
}
TYPES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json", "\x7f")


def assert_refused(answer: httpx.Response, what: object) -> None:
    assert 400 <= answer.status_code < 500, (what, answer.status_code, answer.text[:200])
    assert code_of(answer), what
    assert len(answer.content) < 10_000, what


async def test_every_route_that_reads_a_body_refuses_what_is_none(service: Service) -> None:
    client = service.client()
    ids = await annes(service, client, "ann")
    before = (await client.get("/users/ann/export")).json()
    reading = [call for call in protected(service) if call.route.body_field is not None]
    assert len(reading) >= 5
    for call in reading:
        url = call.path.format(**ids)
        for name, content in BODIES.items():
            answer = await client.request(
                call.method, url, content=content, headers={"Content-Type": "application/json"}
            )
            assert_refused(answer, (call.name, name))
        for content_type in TYPES:
            answer = await client.request(
                call.method, url, content=b"{}", headers={"Content-Type": content_type}
            )
            assert (answer.status_code, code_of(answer)) == (415, "unsupported_media_type")
    assert (await client.get("/users/ann/export")).json() == before


async def test_a_body_where_none_is_read_changes_nothing(service: Service) -> None:
    client = service.client()
    ids = await annes(service, client, "ann")
    for call in protected(service):
        if call.method == "GET":
            url = call.path.format(**ids)
            answer = await client.request("GET", url, content=BODIES["deep"])
            assert answer.status_code == 200, call.name


async def test_thousands_of_ranges_cost_nothing(service: Service) -> None:
    client = service.client()
    ids = await annes(service, client, "ann")
    ranges = "bytes=" + ",".join(f"{i}-{i}" for i in range(3000))
    for path in (
        "/pairs/images/pair-00-a.webp",
        "/static/js/shared/dom.js",
        f"/images/{ids['image_id']}",
    ):
        whole = await client.get(path)
        answer = await client.get(path, headers={"Range": ranges})
        assert answer.status_code in (200, 206, 400, 416), path
        assert len(answer.content) <= 4 * len(whole.content) + 1000, path


def raw_requests(key: str) -> dict[str, bytes]:
    """What goes over the wire; the answer is 4xx, or the connection is closed."""
    head = (
        f"POST /generate HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/json\r\n"
    ).encode()
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n"
    get = b"GET /pairs HTTP/1.1\r\nHost: localhost\r\n"
    body = json.dumps({"prompt": "a"}).encode()
    return {
        "chunk size is no number": chunked + b"zz\r\n" + body + b"\r\n0\r\n\r\n",
        "chunk is negative": chunked + b"-5\r\nabc\r\n0\r\n\r\n",
        "chunk is endless": chunked + b"f" * 40 + b"\r\n" + body,
        "chunk is short": chunked + b"3\r\n" + body + b"\r\n0\r\n\r\n",
        "chunks without an end": chunked + b"5\r\nab",
        "two lengths": head + b"Content-Length: 3\r\nContent-Length: 14\r\n\r\n" + body,
        "length and chunks": head
        + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "length is negative": head + b"Content-Length: -1\r\n\r\n" + body,
        "length is no number": head + b"Content-Length: abc\r\n\r\n" + body,
        "length is enormous": head + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n" + body,
        "length is too short": head + b"Content-Length: 3\r\n\r\n" + body,
        "one huge header": get + b"X-Large: " + b"a" * 1_000_000 + b"\r\n\r\n",
        "many headers": get + b"".join(b"X-%d: a\r\n" % i for i in range(50_000)) + b"\r\n",
        "huge path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "header without colon": get + b"nonsense\r\n\r\n",
        "header with NUL": get + b"X-A: a\x00b\r\n\r\n",
        "header is folded": get + b"X-A: a\r\n b\r\n\r\n",
        "header is not ascii": get + b"Authorization: Bearer \xff\xfe\r\n\r\n",
        "header splits": get + b"X-Request-ID: a\rSet-Cookie: b=c\r\n\r\n",
        "no host": b"GET /pairs HTTP/1.1\r\n\r\n",
        "two hosts": b"GET /pairs HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "path with NUL": b"GET /pairs\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "path with bad percents": b"GET /images/%zz%f0%9f%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "path with surrogates": b"GET /users/%ed%a0%80/quiz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "query of bytes": b"GET /pairs?limit=%ff&cursor=%00&%ed%a0 HTTP/1.1\r\nHost: [::1]\r\n\r\n",
        "another address": b"GET http://evil.example/pairs HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "connect": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "trace": b"TRACE /pairs HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "method of its own": b"\x01\x02 /pairs HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "another protocol": b"GET /pairs HTTP/9.9\r\nHost: x\r\n\r\n",
        "http 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "tls": bytes.fromhex("16030100a5010000a10303") + bytes(range(160)),
        "zeros": b"\0" * 4096,
        "cookie bombs": get + b"Cookie: " + b"ppd_session=a; " * 3000 + b"\r\n\r\n",
        "cookie of bytes": get + b'Cookie: ppd_session="\\377\\000\xff"\r\n\r\n',
        "prefer bombs": head + b"Prefer: " + b"wait=1," * 5000 + b"\r\n\r\n",
    }


async def test_what_is_no_request_is_refused_and_the_service_goes_on(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    port = int(service.url.rsplit(":", 1)[1])
    for name, sent in raw_requests(service.key).items():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):
            writer.write(sent)
            await writer.drain()
            writer.write_eof()
        got = b""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                while more := await reader.read(65536):
                    got += more
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        first = got.split(b"\r\n")[0]
        assert not got or b" 4" in first[8:11], (name, first)
        assert b"set-cookie" not in got.lower(), name
    assert (await service.client().get("/pairs")).status_code == 200
    assert "Exception in ASGI" not in caplog.text
    assert service.runtime.generated == []
