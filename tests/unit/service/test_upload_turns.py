"""Who waits while pictures are read, and who is refused; whose share of the gate is how large."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from service.actions.gate import Gate, Shares, place_of
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


class Desk:
    """Pictures that are read until they are let go, in the order in which they were begun."""

    def __init__(self) -> None:
        self.gate = Gate(2**20, 32)
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
