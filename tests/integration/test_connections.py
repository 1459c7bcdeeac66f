"""Connections without a proxy in front: bounded, with deadlines, and told of in one line."""

import asyncio
import contextlib
import logging
import resource
from collections.abc import AsyncIterator

import pytest

from service.cli.connections import _ends_a_line_barely
from service.cli.server import _bounds
from service.infra import descriptors
from service.settings import Settings
from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = pytest.mark.anyio

GET = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def open_to(service: Service, sent: bytes = b"") -> AsyncIterator[Stream]:
    port = int(service.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    try:
        yield reader, writer
    finally:
        writer.close()


async def to_the_end(stream: Stream) -> bytes:
    """All that comes until the server hangs up."""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionResetError):
            return await stream[0].read()
    return b""


UNFINISHED = {
    "silent": (b"", b" 408 "),
    "half the headers": (b"GET / HTTP/1.1\r\nHost: local", b" 408 "),
    "half a body": (
        b"POST /generate HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer KEY\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        b" 408 ",
    ),
    "open chunks": (
        b"POST /generate HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer KEY\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
        b" 408 ",
    ),
    "a body that nobody reads": (
        b"POST /generate HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        b" 401 ",
    ),
    "half a second request": (GET + GET[:20], b" 200 "),
}


@pytest.mark.parametrize("what", UNFINISHED)
async def test_what_is_not_finished_in_time_is_ended(start: Start, what: str) -> None:
    service: Service = await start(headers_timeout_s=0.5, body_timeout_s=0.5)
    sent, answer = UNFINISHED[what]
    async with open_to(service, sent.replace(b"KEY", service.key.encode())) as stream:
        assert answer in (await to_the_end(stream)).partition(b"\r\n")[0] + b" "


async def test_a_connection_that_was_used_may_rest_and_be_used_again(start: Start) -> None:
    service: Service = await start(headers_timeout_s=0.5)
    async with open_to(service, GET) as (reader, writer):
        assert b"200" in await reader.readuntil(b"\r\n")
        await asyncio.sleep(3.0)  # that nothing comes is what is tested
        writer.write(GET)
        assert b"HTTP/1.1 200" in await reader.readuntil(b"OK")


async def test_who_comes_makes_the_one_go_that_has_been_idle_longest(start: Start) -> None:
    service: Service = await start(max_connections=6, max_connections_per_address=4)
    async with contextlib.AsyncExitStack() as held:
        idle = [await held.enter_async_context(open_to(service)) for _ in range(40)]
        async with open_to(service, GET) as (reader, _):
            assert b"200" in await reader.readuntil(b"\r\n")
        assert await to_the_end(idle[0]) == b""
        ends = [asyncio.create_task(to_the_end(stream)) for stream in idle]
        done, still_open = await asyncio.wait(ends, timeout=1.0)
        assert len(still_open) <= 4
        assert len(done) >= 36
        for end in still_open:
            end.cancel()


async def test_where_nobody_is_idle_one_more_is_refused_with_a_time(start: Start) -> None:
    service: Service = await start(max_connections=6, max_connections_per_address=2)
    service.runtime.gate.clear()
    async with contextlib.AsyncExitStack() as held:
        job = (await service.client().post("/generate", json={"prompt": "a fox"})).json()["id"]
        ask = (
            f"GET /jobs/{job}/events HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {service.key}\r\n\r\n"
        ).encode()
        for _ in range(2):
            stream = await held.enter_async_context(open_to(service, ask))
            await stream[0].readuntil(b"event:")
        async with open_to(service, GET) as refused:
            answer = await to_the_end(refused)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"Retry-After: 1" in answer
        service.runtime.gate.set()


async def test_a_client_that_takes_nothing_of_its_answer_is_let_go(start: Start) -> None:
    service: Service = await start(reading_timeout_s=0.5)
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connections = service.server.connections_open
    async with open_to(service) as (_, writer):
        writer.write(ask * 300)
        async with asyncio.timeout(20):
            while connections() > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def test_hundreds_of_connections_at_few_descriptors_are_a_line_of_the_log(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    service: Service = await start(max_connections=20)
    with caplog.at_level(logging.WARNING):
        async with contextlib.AsyncExitStack() as held:
            for _ in range(200):
                await held.enter_async_context(open_to(service))
            assert (await service.generate(service.client()))["status"] == "succeeded"
            await asyncio.sleep(1.5)  # for a look
    about = [record for record in caplog.records if "connections:" in record.getMessage()]
    assert len(about) == 1
    assert len(caplog.records) <= 3


def test_the_bound_leaves_descriptors_for_everything_else() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (400, hard))
        bounds = _bounds(Settings())
        assert 100 < bounds.connections < 400 - descriptors._KEPT_FREE
        assert bounds.of_address == bounds.connections // 2
        descriptors.raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 400
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("pieces", "bare"),
    [
        ([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n{\n}\n"], False),
        ([b"GET / HTTP/1.1\r", b"\nHost: x\r\n\r", b"\n{\n}"], False),
        ([b"GET / HTTP/1.1\r\n", b"H", b":", b"x", b"\r", b"\n", b"\r", b"\n{\n"], False),
        ([b"GET / HTTP/1.1\nHost: x\r\n\r\n"], True),
        ([b"GET / HTTP/1.1\r\nHost: x\r\n\n"], True),
        ([b"GET / HTTP/1.1", b"\n"], True),
    ],
)
def test_a_line_that_ends_in_lf_alone_is_seen_however_it_is_cut(
    pieces: list[bytes], bare: bool
) -> None:
    before, seen = b"", False
    for piece in pieces:
        seen = seen or _ends_a_line_barely(before, piece)
        before = (before + piece)[-3:]
    assert seen is bare


AMBIGUOUS = {
    "two lengths": GET.replace(
        b"GET", b"POST"
    )[:-2] + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "lines that end in LF": GET.replace(b"\r\n", b"\n"),
    "one that does": GET.replace(b"\r\nHost", b"\nHost"),
}  # fmt: skip


@pytest.mark.parametrize("what", AMBIGUOUS)
async def test_what_a_proxy_may_read_as_another_request_is_400_and_the_last(
    service: Service, what: str
) -> None:
    async with open_to(service, AMBIGUOUS[what] + GET) as stream:
        answers = await to_the_end(stream)
    assert answers.startswith(b"HTTP/1.1 400")
    assert answers.count(b"HTTP/1.1") == 1


HALF = (
    b"POST /generate HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"
)


@pytest.mark.parametrize("apart", [False, True])
async def test_a_body_that_cannot_be_read_has_one_answer_and_is_no_error_of_ours(
    service: Service, caplog: pytest.LogCaptureFixture, apart: bool
) -> None:
    async with open_to(service, HALF if apart else HALF + b"no size\r\n") as (reader, writer):
        if apart:  # the answer is there before the rest of the body is
            async with asyncio.timeout(20):
                assert b" 401 " in await reader.readuntil(b"\r\n\r\n")
            writer.write(b"no size\r\n")
        rest = await to_the_end((reader, writer))
    assert rest.count(b"HTTP/1.1 ") == (0 if apart else 1)
    assert apart or b" 400 " in rest
    assert [seen for seen in caplog.records if seen.levelno >= logging.ERROR] == []
