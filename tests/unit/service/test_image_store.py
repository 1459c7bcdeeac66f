"""A file is there whole or not at all, and keys cannot leave the folder."""

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.core.errors import StorageFull
from service.infra.pictures.folder_store import FolderImageStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def paths_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


async def test_a_deleted_upload_leaves_no_folder_of_its_person(tmp_path: Path) -> None:
    store = FolderImageStore(tmp_path)
    await store.put("uploads/ann/a-1.png", b"one")
    await store.put("uploads/bob/b-1.png", b"two")
    await store.delete(["uploads/ann/a-1.png"])
    assert paths_in(tmp_path) == {"uploads", "uploads/bob", "uploads/bob/b-1.png"}
    await store.delete(["uploads/bob/b-1.png"])
    assert paths_in(tmp_path) == set()


async def test_what_is_put_is_got_and_gone_after_delete(tmp_path: Path) -> None:
    store = FolderImageStore(tmp_path)
    await store.put("abc/1-0.png", b"one")
    await store.put("abc/1-1.png", b"two")
    assert await store.get("abc/1-0.png") == b"one"
    assert paths_in(tmp_path) == {"abc", "abc/1-0.png", "abc/1-1.png"}
    await store.delete(["abc/1-0.png", "abc/1-1.png", "abc/none.png"])
    assert paths_in(tmp_path) == set()
    with pytest.raises(FileNotFoundError):
        await store.get("abc/1-0.png")


async def test_a_write_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        await FolderImageStore(tmp_path).put("abc/1-0.png", b"one")
    assert paths_in(tmp_path) == {"abc"}


async def test_a_store_leaves_the_room_that_it_was_told_to_leave(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    store = FolderImageStore(tmp_path / "new", min_free_bytes=free * 2)
    assert await store.full()
    with pytest.raises(StorageFull):
        await store.put("abc/1-0.png", b"one")
    assert paths_in(tmp_path) == {"new"}
    assert not await FolderImageStore(tmp_path / "new", min_free_bytes=free // 2).full()


@pytest.mark.parametrize(
    "key", ["../x.png", "/etc/x.png", "a/../x.png", "a//x.png", "x", "", "A.png", "a/.x.png"]
)
async def test_keys_stay_in_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="not a key"):
        await FolderImageStore(tmp_path).get(key)


async def test_old_pictures_are_listed_and_what_was_half_written_goes(tmp_path: Path) -> None:
    store = FolderImageStore(tmp_path)
    await store.put("abc/1-0.png", b"one")
    await store.put("def/1-0.png", b"two")
    (tmp_path / "abc" / ".part-x").write_bytes(b"half")
    (tmp_path / "adapter.safetensors").write_bytes(b"no picture")
    assert await keys_of_before(store, datetime.now(UTC) - timedelta(hours=1)) == []
    old = await keys_of_before(store, datetime.now(UTC) + timedelta(hours=1))
    assert sorted(old) == ["abc/1-0.png", "def/1-0.png"]
    await store.delete(["def/1-0.png"])
    assert paths_in(tmp_path) == {"abc", "abc/1-0.png", "adapter.safetensors"}
    assert await keys_of_before(FolderImageStore(tmp_path / "none"), datetime.now(UTC)) == []


async def keys_of_before(store: FolderImageStore, before: datetime) -> list[str]:
    return [key async for keys in store.stored_before(before) for key in keys]


async def test_a_sweep_goes_on_over_many_pictures_of_many_jobs(tmp_path: Path) -> None:
    store = FolderImageStore(tmp_path)
    for i in range(1100):
        path = tmp_path / f"job{i // 2}" / f"1-{i % 2}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")

    kept = ("job7/1-0.png", "job540/1-1.png")
    async for keys in store.stored_before(datetime.now(UTC) + timedelta(hours=1)):
        assert len(keys) <= 500
        await store.delete([key for key in keys if key not in kept])
    assert paths_in(tmp_path) == {"job7", "job7/1-0.png", "job540", "job540/1-1.png"}


async def test_adapters_lie_beside_pictures_and_outlive_every_sweep(tmp_path: Path) -> None:
    store = FolderImageStore(tmp_path)
    key = f"adapters/{'a' * 64}.safetensors"
    await store.put(key, b"weights")

    assert await keys_of_before(store, datetime.now(UTC) + timedelta(hours=1)) == []
    assert await store.get(key) == b"weights"
    for wrong in ("adapters/../up.safetensors", "/adapters/a.safetensors", "adapters//a"):
        with pytest.raises(ValueError, match="not a key"):
            await store.put(wrong, b"weights")


async def test_a_folder_that_is_taken_away_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderImageStore(tmp_path)
    make = tempfile.mkstemp
    calls = []

    def late(*, dir: Path, prefix: str) -> tuple[int, str]:
        calls.append(dir)
        if len(calls) == 1:
            dir.rmdir()  # as a delete of the folder's last picture does
        return make(dir=dir, prefix=prefix)

    monkeypatch.setattr("tempfile.mkstemp", late)
    await store.put("uploads/a.png", b"one")
    assert await store.get("uploads/a.png") == b"one"
    assert len(calls) == 2
