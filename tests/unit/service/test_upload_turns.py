"""Who waits while pictures are read, and who is refused; whose share of the gate is how large."""

import asyncio
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from service.actions.gate import Gate, Shares, place_of
from service.api.uploads import _read_in_turn
from service.core.auth import Caller
from service.core.errors import ServiceError
from service.core.turns import Path, path_of

LARGE, SMALL = 4_000_000, 10_000


def taken(shares: Shares, path: Path, amount: int = 1) -> int:
    """How often somebody gets so much before they are refused; 99 where they never are."""
    for i in range(99):
        try:
            shares.take(path, amount)
        except ServiceError:
            return i
    return 99


def test_a_tenant_gets_half_and_its_greedy_person_half_of_that() -> None:
    shares = Shares(32)
    assert taken(shares, path_of("a", None, "x")) == 8
    assert taken(shares, path_of("a", None, "y")) == 4
    assert taken(shares, path_of("b", None, "x")) == 5
    with pytest.raises(ServiceError) as refused:
        shares.take(path_of("a", None, "x"), 1)
    assert (refused.value.status, refused.value.code) == (429, "too_much_at_once")
    assert refused.value.headers["Retry-After"]
    assert taken(shares, path_of("c", None, "x")) >= 1


def test_sessions_share_by_address_and_leave_room_for_keys() -> None:
    shares = Shares(32)
    here = [taken(shares, path_of("browser", "here", f"s{i}")) for i in range(60)]
    assert sum(here) <= 8
    assert taken(shares, path_of("browser", "there", "visitor")) >= 1
    for i in range(60):
        taken(shares, path_of("browser", f"address {i}", "s"))
    assert shares.held <= 24
    assert taken(shares, path_of("a", None, "x")) >= 1


def test_what_is_full_is_503_and_what_is_given_back_can_be_taken_again() -> None:
    shares = Shares(10)
    shares.take(path_of("a", None, "x"), 8)
    with pytest.raises(ServiceError) as refused:
        shares.take(path_of("b", None, "x"), 3)
    assert (refused.value.status, refused.value.code) == (503, "busy")
    shares.give_back(path_of("a", None, "x"), 8)
    assert shares.held == 0
    shares.take(path_of("b", None, "x"), 10)


def test_a_place_is_a_sessions_own_and_of_a_key_the_persons() -> None:
    assert place_of(Caller("t"), "ann") == ("t", "", "ann")
    assert place_of(Caller("browser", "me", lane="here"), "ann") == ("browser", "here", "me")


def test_room_for_a_body_lapses_when_the_body_does_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.actions.gate._GRACE_S", 0.05)
    monkeypatch.setattr("service.actions.gate._WHOLE_WITHIN_S", 0.5)
    slow, other = ("a", "", "x"), ("b", "", "y")

    async def so(desk: Desk) -> None:
        with desk.gate.holding_bytes(slow) as stalled:
            stalled.expect(900)
            stalled.came(90)  # a tenth: enough for another twentieth of a second
            with desk.gate.holding_bytes(other) as held, pytest.raises(ServiceError):
                held.expect(900)
            await asyncio.sleep(0.2)
            with desk.gate.holding_bytes(other) as held:
                held.expect(900)
                with pytest.raises(ServiceError) as refused:
                    stalled.came(200)  # it holds what has come, and there is no room for more
                assert refused.value.code in ("busy", "too_much_at_once")
                held.came(900)
                await asyncio.sleep(0.1)
                assert held.bytes == 900, "what is whole is held until it is answered"
        assert desk.gate._bodies.held == 0

    asyncio.run(so(Desk(1000)))


def test_nothing_more_of_a_body_is_never_refused() -> None:
    gate = Gate(body_bytes=1000, requests=1)
    with gate.holding_bytes(("a", "", "x")) as first, gate.holding_bytes(("b", "", "y")) as other:
        first.came(400)
        with gate.holding_bytes(("a", "", "z")) as second:
            second.came(200)
            other.came(300)
            second.came(0)  # its end, or that the client has gone
            assert second.bytes == 200


def test_what_was_begun_for_a_request_that_goes_away_is_closed() -> None:
    begun, closed = threading.Event(), threading.Event()

    class Begun:
        def close(self) -> None:
            closed.set()

    class Slow:
        def begin(self, *_: object) -> Begun:
            begun.wait(10)
            return Begun()

    async def so() -> None:
        services = SimpleNamespace(readers=Slow())
        reading = asyncio.create_task(_read_in_turn(services, ("a", "", "x"), [b""]))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        reading.cancel()
        await asyncio.sleep(0.05)
        reading.cancel()
        begun.set()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await asyncio.to_thread(closed.wait, 10)

    asyncio.run(so())


class Desk:
    """Pictures that are read until they are let go, in the order in which they were begun."""

    def __init__(self, body_bytes: int = 2**20) -> None:
        self.gate = Gate(body_bytes, 32)
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def bring(self, name: str, path: Path, pixels: int) -> asyncio.Task[None]:
        async def read() -> None:
            async with self.gate.turn(path, pixels):
                self.begun.append(name)
                await self._ends[name].wait()

        self._ends[name] = asyncio.Event()
        self._tasks.append(asyncio.create_task(read()))
        await settled()
        return self._tasks[-1]

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await settled()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def in_a_loop(test: Callable[[Desk], Any]) -> None:
    asyncio.run(test(Desk()))


def test_small_pictures_wait_for_no_large_one() -> None:
    async def so(desk: Desk) -> None:
        for i in range(4):
            await desk.bring(f"large {i}", ("a", "", f"{i}"), LARGE)
        await desk.bring("small", ("b", "", "x"), SMALL)
        assert desk.begun == ["large 0", "small"]
        await desk.bring("second small", ("c", "", "x"), SMALL)
        assert desk.begun == ["large 0", "small"]
        await desk.end("small")
        assert desk.begun == ["large 0", "small", "second small"]
        await desk.end("second small")
        await desk.end("large 0")
        assert desk.begun[3:] == ["large 1"]

    in_a_loop(so)


def test_pictures_of_many_ids_come_round_by_tenant_and_by_pixels() -> None:
    async def so(desk: Desk) -> None:
        for i in range(6):
            await desk.bring(f"a{i}", ("a", "", f"{i}"), LARGE)
        await desk.bring("b", ("b", "", "x"), LARGE)
        await desk.bring("session", ("browser", "here", "y"), LARGE)
        for _ in range(4):
            await desk.end(desk.begun[-1])
        assert desk.begun[:4] == ["a0", "b", "session", "a1"]

    in_a_loop(so)


def test_who_goes_away_while_waiting_holds_nobody_up() -> None:
    async def so(desk: Desk) -> None:
        await desk.bring("first", ("a", "", "x"), LARGE)
        gone = await desk.bring("gone", ("a", "", "x"), LARGE)
        await desk.bring("last", ("a", "", "x"), LARGE)
        gone.cancel()
        await settled()
        await desk.end("first")
        assert desk.begun == ["first", "last"]

    in_a_loop(so)
