"""What is asked at the same moment is carried out together."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")

CarryOut = Callable[[Sequence[Ask]], Awaitable[Sequence[Answer | Exception]]]
"""Gives one answer, or the error, of each that was asked, in their order."""


class InGroups(Generic[Ask, Answer]):
    """One group after another: whatever came while one was carried out is the next.

    There is no timer. Who comes while nothing is carried out is a group alone, at once; the busier
    the process is, the larger groups become. It belongs to one event loop.
    """

    def __init__(self, carry_out: CarryOut[Ask, Answer], most: int) -> None:
        """`most`: larger groups are not made."""
        self._carry_out = carry_out
        self._most = most
        self._waiting: deque[tuple[Ask, asyncio.Future[Answer]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def ask(self, ask: Ask) -> Answer:
        """The answer; raises the error of this one, or what the whole group ended with.

        Who stops waiting before its group begins has asked nothing. Later it is carried out all the
        same: the others of the group depend on it.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((ask, answer))
        if self._running is None:
            # In no request's context: what a group says is not about the one that began it.
            self._running = asyncio.create_task(self._run(), context=Context())
        return await answer

    async def _run(self) -> None:
        try:
            while group := self._next():
                await self._answer(group)
        finally:
            self._running = None
            for _, answer in self._waiting:  # none, unless the loop ends
                answer.cancel()

    def _next(self) -> list[tuple[Ask, asyncio.Future[Answer]]]:
        group: list[tuple[Ask, asyncio.Future[Answer]]] = []
        while self._waiting and len(group) < self._most:
            one = self._waiting.popleft()
            if not one[1].done():
                group.append(one)
        return group

    async def _answer(self, group: Sequence[tuple[Ask, asyncio.Future[Answer]]]) -> None:
        try:
            outcomes = await self._carry_out([ask for ask, _ in group])
            assert len(outcomes) == len(group), "an outcome for each"
        except Exception as error:
            outcomes = [error] * len(group)
        except asyncio.CancelledError:
            for _, answer in group:
                answer.cancel()
            raise
        for (_, answer), outcome in zip(group, outcomes, strict=True):
            if answer.done():
                continue  # nobody waits for it any more
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
