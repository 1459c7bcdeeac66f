"""An S3-compatible store holds a picture whole or not at all, and never keeps anybody waiting."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service.core.errors import StorageFull
from service.infra.pictures.object_store import ObjectImageStore
from tests.s3_server import PAGE, Bucket, s3_server
from tests.servers import free_port

pytestmark = pytest.mark.anyio

NOW = datetime.now(UTC)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with s3_server() as server:
        yield server


def store_of(bucket: Bucket, timeout_s: float = 10.0, **changed: str) -> ObjectImageStore:
    config = {**bucket.config, **changed}
    return ObjectImageStore("s3://pictures/test", timeout_s, config=config)


async def test_what_is_put_is_got_and_gone_after_delete(bucket: Bucket) -> None:
    store = store_of(bucket)
    await store.put("abc/1-0.png", b"one")
    await store.put("abc/1-1.png", b"")
    assert bucket.objects == {"test/abc/1-0.png": b"one", "test/abc/1-1.png": b""}
    assert await store.get("abc/1-0.png") == b"one"
    await store.delete(["abc/1-0.png", "abc/1-1.png", "abc/none.png"])
    await store.delete([])
    assert bucket.objects == {}
    with pytest.raises(FileNotFoundError):
        await store.get("abc/1-0.png")


async def test_a_large_picture_is_one_request_too(bucket: Bucket) -> None:
    data = b"x" * 12_000_000
    await store_of(bucket).put("abc/1-0.png", data)
    assert [command for command, _ in bucket.requests] == ["PUT"]
    assert await store_of(bucket).get("abc/1-0.png") == data


async def test_many_keys_are_deleted_a_thousand_at_a_time(bucket: Bucket) -> None:
    keys = [f"abc/{i}.png" for i in range(2001)]
    bucket.objects.update({f"test/{key}": b"x" for key in keys})
    await store_of(bucket).delete(keys)
    assert bucket.objects == {}
    assert [command for command, _ in bucket.requests] == ["POST"] * 3


@pytest.mark.parametrize("fault", ["500", "reset", "slow"])
async def test_one_fault_is_outlived(bucket: Bucket, fault: Any) -> None:
    bucket.objects["test/abc/1-0.png"] = b"one"
    bucket.stored_at["test/abc/1-0.png"] = NOW
    bucket.faults.append(fault)
    bucket.released.set()  # slow, but not too slow
    store = store_of(bucket)
    assert await store.get("abc/1-0.png") == b"one"
    bucket.faults.append(fault)
    await store.put("abc/1-1.png", b"two")
    bucket.faults.append(fault)
    await store.delete(["abc/1-0.png"])
    assert bucket.keys == {"abc/1-1.png"}


@pytest.mark.parametrize("fault", ["500", "reset"])
async def test_writing_outlives_a_store_that_is_started_anew(bucket: Bucket, fault: Any) -> None:
    bucket.fault = fault
    writing = asyncio.create_task(store_of(bucket).put("abc/1-1.png", b"two"))
    await asyncio.sleep(2)
    assert not writing.done()
    bucket.fault = None
    await writing
    assert bucket.keys == {"abc/1-1.png"}


@pytest.mark.parametrize("fault", ["500", "reset", "slow"])
async def test_a_store_that_stays_away_is_an_error_in_time(bucket: Bucket, fault: Any) -> None:
    bucket.objects["test/abc/1-0.png"] = b"one"
    bucket.fault = fault
    store = store_of(bucket, timeout_s=1.0)
    for ask in (
        store.put("abc/1-1.png", b"two"),
        store.get("abc/1-0.png"),
        store.delete(["abc/1-0.png"]),
        anext(store.stored_before(NOW)),
        store.full(),
    ):
        began = time.monotonic()
        with pytest.raises(OSError, match="the image store"):
            await ask
        assert time.monotonic() - began < 5
    assert bucket.keys == {"abc/1-0.png"}


async def test_writing_that_is_tried_again_ends_in_time_too(bucket: Bucket) -> None:
    bucket.faults.extend(["500"] * 4 + ["slow"] * 4)  # obstore repeats a try three times
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="the image store"):
        await store_of(bucket, timeout_s=2.0).put("abc/1-1.png", b"two")
    assert time.monotonic() - began < 2.7


async def test_nobody_at_the_address_is_an_error(bucket: Bucket) -> None:
    store = store_of(bucket, endpoint=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(OSError, match="the image store"):
        await store.put("abc/1-0.png", b"one")
    with pytest.raises(OSError, match="the image store"):
        await store.full()


async def test_an_answer_that_breaks_off_is_no_picture(bucket: Bucket) -> None:
    await store_of(bucket).put("abc/1-0.png", b"one" * 1000)
    bucket.fault = "cut"
    with pytest.raises(OSError, match="the image store"):
        await store_of(bucket, timeout_s=1.0).get("abc/1-0.png")


async def test_a_store_without_room_says_so(bucket: Bucket) -> None:
    bucket.fault = "507"
    with pytest.raises(StorageFull):
        await store_of(bucket).put("abc/1-0.png", b"one")
    assert bucket.objects == {}


async def test_wrong_credentials_and_a_wrong_bucket_are_errors(bucket: Bucket) -> None:
    wrong = store_of(bucket, secret_access_key="guessed")
    other = ObjectImageStore("s3://elsewhere", 10.0, config=bucket.config)
    for store in (wrong, other):
        with pytest.raises(OSError, match="the image store"):
            await store.put("abc/1-0.png", b"one")
        with pytest.raises(OSError, match="the image store") as raised:
            await store.full()
        assert "guessed" not in str(raised.value)
    assert bucket.objects == {}


async def test_many_who_ask_for_room_ask_the_store_once(bucket: Bucket) -> None:
    store = store_of(bucket)
    assert not any(await asyncio.gather(*(store.full() for _ in range(50))))
    assert len(bucket.requests) == 1


async def test_a_store_that_is_back_is_seen(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.infra.pictures.object_store._PROBE_EVERY_S", 0.0)
    bucket.fault = "500"
    store = store_of(bucket)
    with pytest.raises(OSError, match="the image store"):
        await store.full()
    bucket.fault = None
    assert not await store.full()


async def test_a_sweep_takes_old_pictures_without_rows_and_nothing_else(bucket: Bucket) -> None:
    store = store_of(bucket)
    old = [f"job{i}/1-0.png" for i in range(PAGE * 2 + 5)]
    for key in (*old, "new/1-0.png", "adapters/abc.safetensors"):
        bucket.objects[f"test/{key}"] = b"x"
        bucket.age(key, NOW - timedelta(days=2))
    bucket.age("new/1-0.png", NOW)
    bucket.objects["other/1-0.png"] = b"of another prefix"
    bucket.stored_at["other/1-0.png"] = NOW - timedelta(days=2)
    async for keys in store.stored_before(NOW - timedelta(days=1)):
        assert set(keys) <= set(old)
        await store.delete([key for key in keys if key not in (old[0], old[-1])])
    assert set(bucket.objects) == {
        "test/new/1-0.png",
        "test/adapters/abc.safetensors",
        f"test/{old[0]}",
        f"test/{old[-1]}",
        "other/1-0.png",
    }


@pytest.mark.parametrize("key", ["../x.png", "/etc/x.png", "a//x.png", "x", "", "A.png", "a?b.png"])
async def test_keys_stay_below_the_prefix(bucket: Bucket, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        await store_of(bucket).put(key, b"x")
    assert bucket.requests == []
