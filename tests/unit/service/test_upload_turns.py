"""Who waits while large uploads are read."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.api import uploads
from service.api.schemas import PreferencesIn
from service.api.services import Services
from service.core.auth import Caller

pytestmark = pytest.mark.anyio

POOL = cast(Services, SimpleNamespace(pool={"p1": "a pair"}))
OWN = PreferencesIn.model_validate(
    {"choices": [{"caption": "mine", "images": ["AAAA", "AAAA"], "preferred": 0}]}
)
OF_THE_POOL = PreferencesIn.model_validate({"choices": [{"pair_id": "p1", "preferred": 0}]})


class SlowReader:
    """Reads nothing until it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.reading = 0

    def __call__(self, *about: Any) -> list[bytes]:
        self.reading += 1
        self.may.wait(20)
        return [b"", b""]


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowReader]:
    slow = SlowReader()
    monkeypatch.setattr(uploads, "read_apart", slow)
    yield slow
    slow.may.set()


def post(tenant: str, body: PreferencesIn = OWN) -> asyncio.Task[list[list[bytes]]]:
    return asyncio.create_task(uploads.clean_uploads(POOL, Caller(tenant), body))


async def soon(true: Callable[[], bool]) -> None:
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come about")


async def test_answers_about_the_pools_pairs_wait_for_no_uploads(reader: SlowReader) -> None:
    slow = [post("ann"), post("bob")]
    await soon(lambda: reader.reading == 2)
    assert await asyncio.wait_for(post("cat", OF_THE_POOL), 5) == [[]]
    reader.may.set()
    await asyncio.gather(*slow)


async def test_one_callers_uploads_take_one_place(reader: SlowReader) -> None:
    slow = [post("ann"), post("ann"), post("ann")]
    await soon(lambda: reader.reading == 1)
    slow.append(post("bob"))
    await soon(lambda: reader.reading == 2)
    assert not any(task.done() for task in slow)
    reader.may.set()
    assert await asyncio.gather(*slow) == [[[b"", b""]]] * 4
    assert reader.reading == 4


async def test_a_canceled_upload_keeps_its_place_while_it_is_read(reader: SlowReader) -> None:
    first, second = post("ann"), post("ann")
    await soon(lambda: reader.reading == 1)
    first.cancel()
    await asyncio.sleep(0.05)
    assert reader.reading == 1
    reader.may.set()
    await second
    assert reader.reading == 2
