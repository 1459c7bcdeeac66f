"""Work done ahead by threads, while who asked for it is busy with what came before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")


def done_ahead(
    work: Callable[[Item], Done], items: Iterable[Item], *, workers: int, ahead: int
) -> Iterator[Done]:
    """`work` on each item, in their order; `ahead` of them are begun before they are asked for.

    Threads are enough for what gives up the interpreter's lock, as decoding of pictures does.
    Items are taken when their turn comes, by who asks. Errors come where the result would.
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Done]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
