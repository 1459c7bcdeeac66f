"""Adapters' bytes: kept in the image store for all workers, copied to each machine that needs them.

An adapter's version is the beginning of its sha256, so a version is one content for ever.
"""

import asyncio
import hashlib
from pathlib import Path

from service.core.ports import AdapterFile, ImageStore
from service.infra.sql.database import Database
from service.infra.sql.tables import Adapter
from service.infra.whole_files import write_whole

SHORT_DIGEST = 12


def version_of(sha256: str) -> str:
    """What answers call `adapter_version`."""
    return sha256[:SHORT_DIGEST]


async def keep(
    database: Database, images: ImageStore, data: bytes, *, base_model: str, encoder_id: str
) -> Adapter:
    """Put an adapter's bytes where every worker finds them, then say so in its row.

    Raises ValueError when another adapter has this version; OSError when there is no room.
    """
    sha256 = hashlib.sha256(data).hexdigest()
    row = Adapter(
        version=version_of(sha256),
        sha256=sha256,
        key=f"adapters/{sha256}.safetensors",
        base_model=base_model,
        encoder_id=encoder_id,
        size_bytes=len(data),
    )
    await images.put(row.key, data)
    async with database.write() as store:
        kept = await store.adapters.add(row)
    if kept.sha256 != sha256:
        raise ValueError(f"another adapter of sha256 {kept.sha256} has version {kept.version}")
    return kept


class AdapterCopies:
    """`DIR/<version>.safetensors` on this machine, each made when it is first asked for."""

    def __init__(self, folder: Path, images: ImageStore) -> None:
        self._folder = folder
        self._images = images
        self._turn = asyncio.Lock()

    async def fetch(self, adapter: Adapter) -> AdapterFile:
        """The adapter as a file here. What was here before is not read: loading checks it.

        Raises OSError when the bytes cannot be had, ValueError when they are not the adapter's.
        """
        file = self._file(adapter)
        async with self._turn:
            if not await asyncio.to_thread(file.path.is_file):
                await self._copy(adapter, file.path)
        return file

    async def repair(self, adapter: Adapter) -> bool:
        """Copy it anew if the file here has changed; false when it is as it was."""
        file = self._file(adapter)
        async with self._turn:
            try:
                if await asyncio.to_thread(file_sha256, file.path) == adapter.sha256:
                    return False
            except FileNotFoundError:
                pass
            await self._copy(adapter, file.path)
        return True

    async def forget(self, version: str) -> None:
        """Remove the copy here of an adapter that is kept no more."""
        path = self._path(version)
        await asyncio.to_thread(path.unlink, missing_ok=True)

    def _file(self, adapter: Adapter) -> AdapterFile:
        return AdapterFile(adapter.version, self._path(adapter.version), adapter.sha256)

    def _path(self, version: str) -> Path:
        return self._folder / f"{version}.safetensors"

    async def _copy(self, adapter: Adapter, path: Path) -> None:
        data = await self._images.get(adapter.key)
        found = hashlib.sha256(data).hexdigest()
        if found != adapter.sha256:
            raise ValueError(f"{adapter.key} has sha256 {found}: add the adapter again")
        await asyncio.to_thread(write_whole, path, data)


def file_sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
