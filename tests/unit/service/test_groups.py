"""What comes while a group is carried out is the next group; nobody pays for another one."""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar

import pytest

from service.core.groups import InGroups

pytestmark = pytest.mark.anyio

_whose: ContextVar[str] = ContextVar("whose", default="nobody's")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Carrier:
    """Doubles numbers; refuses 13, fails as a whole over 666, and holds every group at its gate."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.contexts: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, group: Sequence[int]) -> list[int | Exception]:
        self.groups.append(list(group))
        self.contexts.append(_whose.get())
        await self.gate.wait()
        if 666 in group:
            raise OSError("all of it")
        return [ValueError("not thirteen") if ask == 13 else ask * 2 for ask in group]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def asked(groups: InGroups[int, int], *asks: int) -> list["asyncio.Task[int]"]:
    """Ask all of these, in this order; returns when all of them wait."""
    tasks = [asyncio.create_task(groups.ask(ask)) for ask in asks]
    await asyncio.sleep(0)
    return tasks


async def test_one_who_comes_alone_is_a_group_at_once() -> None:
    carrier = Carrier()
    groups = InGroups(carrier, most=10)
    assert await groups.ask(1) == 2
    assert await groups.ask(2) == 4
    assert carrier.groups == [[1], [2]]


async def test_who_comes_while_a_group_is_carried_out_is_in_the_next_in_order() -> None:
    carrier = Carrier()
    groups = InGroups(carrier, most=10)
    carrier.gate.clear()
    first = await asked(groups, 1)
    await until(lambda: carrier.groups == [[1]])
    later = await asked(groups, 5, 3, 4)
    carrier.gate.set()
    assert await asyncio.gather(*first, *later) == [2, 10, 6, 8]
    assert carrier.groups == [[1], [5, 3, 4]]


async def test_a_group_is_no_larger_than_it_may_be() -> None:
    carrier = Carrier()
    groups = InGroups(carrier, most=2)
    assert await asyncio.gather(*await asked(groups, *range(5))) == [0, 2, 4, 6, 8]
    assert carrier.groups == [[0, 1], [2, 3], [4]]


async def test_a_refusal_is_of_the_one_who_is_refused() -> None:
    groups = InGroups(Carrier(), most=10)
    answers = await asyncio.gather(*await asked(groups, 1, 13, 3), return_exceptions=True)
    assert (answers[0], answers[2]) == (2, 6)
    assert isinstance(answers[1], ValueError)


async def test_a_group_that_fails_fails_for_all_of_it_and_the_next_does_not() -> None:
    carrier = Carrier()
    groups = InGroups(carrier, most=10)
    carrier.gate.clear()
    failing = await asked(groups, 1, 666)
    await until(lambda: carrier.groups == [[1, 666]])
    later = await asked(groups, 2)
    carrier.gate.set()
    errors = await asyncio.gather(*failing, return_exceptions=True)
    assert [type(error) for error in errors] == [OSError, OSError]
    assert await asyncio.gather(*later) == [4]


async def test_who_stops_waiting_takes_nobody_along() -> None:
    carrier = Carrier()
    groups = InGroups(carrier, most=10)
    carrier.gate.clear()
    first = await asked(groups, 1, 2)
    await until(lambda: carrier.groups == [[1, 2]])
    later = await asked(groups, 3, 4)
    first[0].cancel()
    later[0].cancel()
    await asyncio.sleep(0)
    carrier.gate.set()
    answers = await asyncio.gather(*first, *later, return_exceptions=True)
    assert [type(answers[0]), answers[1]] == [asyncio.CancelledError, 4]
    assert [type(answers[2]), answers[3]] == [asyncio.CancelledError, 8]
    assert carrier.groups == [[1, 2], [4]], "one who left before the group began is not in it"


async def test_a_group_is_in_no_ones_context() -> None:
    carrier = Carrier()
    _whose.set("the first one's")
    await InGroups(carrier, most=10).ask(1)
    assert carrier.contexts == ["nobody's"]


async def test_nobody_is_left_waiting_when_the_loop_ends() -> None:
    carrier = Carrier()
    groups = InGroups(carrier, most=10)
    carrier.gate.clear()
    waiting = await asked(groups, 1)
    await until(lambda: carrier.groups == [[1]])
    waiting += await asked(groups, 2)
    assert groups._running is not None
    groups._running.cancel()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 2
    carrier.gate.set()
    assert await groups.ask(3) == 6
