"""Pictures, and adapters, as files of a local folder."""

import asyncio
import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from service.core.errors import StorageFull

_TRIES = 10
_KEY = re.compile(r"[a-z0-9]+(/[a-z0-9-]+)*\.png|adapters/[0-9a-f]{64}\.safetensors")
_ADAPTERS = "adapters"


class FolderImageStore:
    """ImageStore under `root`. A file appears under its name only when all of it is written."""

    def __init__(self, root: Path, min_free_bytes: int = 0) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes

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
        """Whether the floor is reached."""
        return await asyncio.to_thread(self._room_after, 0) < 0

    async def get(self, key: str) -> bytes:
        """The bytes; raises FileNotFoundError."""
        return await asyncio.to_thread(self._path(key).read_bytes)

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove files and the folders that this empties."""
        await asyncio.to_thread(self._delete, [self._path(key) for key in keys])

    async def sweep(self, keep: Collection[str]) -> int:
        """Remove every picture whose key is not in `keep`; only while none is being written.

        Adapters stay: commands may be writing them beside a service that starts.
        """
        return await asyncio.to_thread(self._sweep, frozenset(keep))

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not a key of the image store")
        return self._root / key

    def _room_after(self, size_bytes: int) -> int:
        """Bytes above the floor once this many more are stored."""
        self._root.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._root).free - size_bytes - self._min_free_bytes

    def _put(self, path: Path, data: bytes) -> None:
        if self._room_after(len(data)) < 0:
            raise StorageFull(
                errno.ENOSPC, f"fewer than {self._min_free_bytes} bytes would be left"
            )
        handle, name = self._part(path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _part(self, folder: Path) -> tuple[int, str]:
        """A new file in `folder`, which `_delete` in another thread may be taking away."""
        for _ in range(_TRIES):
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                return tempfile.mkstemp(dir=folder, prefix=".part-")
        raise FileNotFoundError(f"{folder} goes away as fast as it is made")

    def _delete(self, paths: Sequence[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # not empty, or gone already
                path.parent.rmdir()

    def _sweep(self, keep: frozenset[str]) -> int:
        orphans = [
            path
            for path in self._root.rglob("*")
            if path.is_file()
            and path.relative_to(self._root).parts[0] != _ADAPTERS
            and path.relative_to(self._root).as_posix() not in keep
        ]
        self._delete(orphans)
        return len(orphans)
