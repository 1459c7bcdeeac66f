"""How many event streams this process holds open, and for whom."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.core.errors import ServiceError
from service.core.fairness import share

_RETRY_AFTER = {"Retry-After": "5"}


class OpenStreams:
    """Places for at most `limit` streams, of which one caller holds its share, at most `cap`."""

    def __init__(self, limit: int, cap: int) -> None:
        self._limit = limit
        self._cap = cap
        self._open: Counter[str] = Counter()

    def count(self) -> int:
        return self._open.total()

    @contextmanager
    def hold(self, caller: str) -> Iterator[None]:
        """Hold a place; raise 503 when all are taken, 429 when the caller has its share of them."""
        taken = self._open.total()
        if taken >= self._limit:
            raise ServiceError(503, "streams_full", headers=_RETRY_AFTER)
        if self._open[caller] >= share(self._limit, taken, self._cap):
            raise ServiceError(429, "too_many_streams", headers=_RETRY_AFTER)
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]
