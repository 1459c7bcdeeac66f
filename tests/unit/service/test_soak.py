"""What the soak takes for wrong."""

from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.soak.__main__ import Watch
from tests.soak.book import Book


@pytest.mark.parametrize(
    ("answer", "is_wrong"),
    [
        (httpx.Response(200), False),
        (httpx.Response(422), False),
        (httpx.Response(503, headers={"Retry-After": "5"}), False),
        (httpx.Response(503), True),
        (httpx.Response(500, headers={"Retry-After": "5"}), True),
    ],
)
def test_5xx_is_wrong_unless_it_says_when_to_come_again(
    answer: httpx.Response, is_wrong: bool
) -> None:
    book = Book()
    book.answered(answer, "GET /")
    assert bool(book.wrong) == is_wrong


@pytest.mark.parametrize(("grows_by_mib", "is_wrong"), [(0.0, False), (1.0, True)])
def test_memory_that_grows_after_the_warm_up_is_wrong(grows_by_mib: float, is_wrong: bool) -> None:
    book = Book()
    served: Any = SimpleNamespace(programs=[])
    watch = Watch(book, served)
    samples = [(10.0 * i, 100 + grows_by_mib * i) for i in range(60)]
    watch.seen["the service", 1] = samples
    watch.judge({})
    assert bool(book.wrong) == is_wrong
