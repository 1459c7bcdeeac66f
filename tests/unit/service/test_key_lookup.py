"""Keys are believed for a moment, and none that was revoked here."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.api.key_lookup import KeyLookup
from service.infra.secrets import key_sha256
from service.infra.sql import migrate
from service.infra.sql.database import Database

pytestmark = pytest.mark.anyio

KEY = "ppd_" + "a" * 43


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class SlowAnswer(Database):
    """Holds an answer back on its way, and counts the questions."""

    asked = 0
    on_its_way = asyncio.Event()
    arrives = asyncio.Event()

    @asynccontextmanager
    async def read(self, **options: Any) -> AsyncIterator[Any]:
        self.asked += 1
        async with super().read(**options) as store:
            yield store
        self.on_its_way.set()
        await self.arrives.wait()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SlowAnswer]:
    migrate.upgrade(f"sqlite:///{tmp_path / 'ppd.db'}")
    database = SlowAnswer(f"sqlite+aiosqlite:///{tmp_path / 'ppd.db'}")
    database.on_its_way, database.arrives = asyncio.Event(), asyncio.Event()
    database.arrives.set()
    async with database.write() as store:
        await store.keys.add("shop", "test", key_sha256(KEY), "client")
    yield database
    await database.close()


async def test_a_key_is_looked_up_once_in_a_while_and_what_is_none_each_time(
    database: SlowAnswer,
) -> None:
    keys = KeyLookup(database, believed_s=60)
    for _ in range(3):
        caller = await keys.caller(KEY)
        assert caller is not None
        assert caller.tenant == "shop"
    assert database.asked == 1
    for _ in range(3):
        assert await keys.caller(KEY[:-1] + "b") is None
    assert database.asked == 4
    assert await KeyLookup(database, believed_s=0).caller(KEY) is not None


async def test_what_was_read_before_a_revocation_is_not_remembered_after_it(
    database: SlowAnswer,
) -> None:
    keys = KeyLookup(database, believed_s=60)
    database.arrives.clear()
    reading = asyncio.create_task(keys.caller(KEY))
    await database.on_its_way.wait()
    async with database.write() as store:
        caller_pk = (await store.keys.all())[0].pk
        assert await store.keys.revoke(caller_pk)
    keys.forget()
    database.arrives.set()
    assert await reading is not None  # it came before
    assert await keys.caller(KEY) is None
