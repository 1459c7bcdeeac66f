"""Pictures, and adapters, as files of a local folder."""

import asyncio
import contextlib
import errno
import math
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from service.core.errors import StorageFull
from service.infra.pictures.keys import check_key, is_picture
from service.infra.whole_files import PART, write_whole

_LIST_BATCH = 500
_LOOK_EVERY_S = 1.0


class FolderImageStore:
    """ImageStore under `root`. A file appears under its name only when all of it is written."""

    def __init__(self, root: Path, min_free_bytes: int = 0) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes
        self._was_full, self._looked_at_s = False, -math.inf

    async def put(self, key: str, data: bytes) -> None:
        """Write beside, flush, rename; refuses what would leave less room than the floor."""
        path = self._path(key)
        try:
            await asyncio.to_thread(self._put, path, data)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(error.errno, error.strerror) from error
            raise

    async def full(self) -> bool:
        """Whether the floor is reached, looked at once a second; `put` looks each time."""
        if time.monotonic() - self._looked_at_s > _LOOK_EVERY_S:
            self._looked_at_s = time.monotonic()
            self._was_full = await asyncio.to_thread(self._room_after, 0) < 0
        return self._was_full

    async def get(self, key: str) -> bytes:
        return await asyncio.to_thread(self._path(key).read_bytes)

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove files and the folders that this empties."""
        await asyncio.to_thread(self._delete, [self._path(key) for key in keys])

    async def stored_before(self, before: datetime) -> AsyncIterator[list[str]]:
        old = self._written_before(before)
        while keys := await asyncio.to_thread(lambda: list(islice(old, _LIST_BATCH))):
            yield keys

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _room_after(self, size_bytes: int) -> int:
        """Bytes above the floor once this many more are stored."""
        self._root.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._root).free - size_bytes - self._min_free_bytes

    def _put(self, path: Path, data: bytes) -> None:
        if self._room_after(len(data)) < 0:
            raise StorageFull(
                errno.ENOSPC, f"fewer than {self._min_free_bytes} bytes would be left"
            )
        write_whole(path, data)

    def _delete(self, paths: Sequence[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty, or gone already
                for folder in path.parents[: len(path.relative_to(self._root).parts) - 1]:
                    folder.rmdir()

    def _written_before(self, before: datetime) -> Iterator[str]:
        """Keys of pictures; removes parts of pictures."""
        for folder, _, names in os.walk(self._root):
            for name in names:
                path = Path(folder, name)
                key = path.relative_to(self._root).as_posix()
                if not is_picture(key) and not name.startswith(PART):
                    continue
                with contextlib.suppress(FileNotFoundError):  # a job has just ended with it
                    if datetime.fromtimestamp(path.stat().st_mtime, UTC) < before:
                        if is_picture(key):
                            yield key
                        else:
                            self._delete([path])
