"""How a queued job comes to a worker: the line between the row and who runs it."""

from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession


class JobDelivery(Protocol):
    """Tells workers of queued jobs. A ticket says that there is one of a kind, not which.

    Whoever takes a ticket claims the row whose turn it is, so tickets carry no order, one too many
    does no harm, and people are served in turn however many processes there are.
    """

    async def enqueue(self, session: AsyncSession, kind: str, count: int) -> None:
        """Put `count` tickets out (none below 1), in the transaction that queues the jobs."""


class InProcessDelivery:
    """The worker of this process looks at the rows by itself when the bell rings."""

    async def enqueue(self, session: AsyncSession, kind: str, count: int) -> None:
        """Nothing: the row is enough."""
