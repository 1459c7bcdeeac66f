"""Pictures in an S3-compatible store, by obstore."""

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar, cast

import obstore
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from ppd_model.pictures.writing import KINDS
from service.core.errors import StorageFull
from service.infra.pictures.keys import check_key, format_of, is_picture

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

_RETRIES = 3
_PAUSE_S = 0.5
_CONNECT_TIMEOUT = timedelta(seconds=2)
_DELETE_BATCH = 1000
_LIST_BATCH = 500
_PROBE_TIMEOUT_S = 2.0
_PROBE_EVERY_S = 5.0
_PROBE_PREFIX = "answers"
_NO_ROOM = ("507 Insufficient Storage", "QuotaExceeded", "XMinioStorageFull")

_T = TypeVar("_T")


class ObjectImageStore:
    """ImageStore in a bucket. An object appears when all of it has arrived, or not at all.

    Everything is tried again, writing until `timeout_s` are over, since what is to be written took
    longer to make, all else a few times. It ends after `timeout_s` with an OSError.
    """

    def __init__(self, url: str, timeout_s: float, *, config: dict[str, str]) -> None:
        """`config`: endpoint, region and credentials by obstore's names; AWS_* counts for others.

        Opens no connection.
        """
        self._timeout_s = timeout_s
        options: ClientConfig = {
            "connect_timeout": _CONNECT_TIMEOUT,
            "timeout": timedelta(seconds=timeout_s),
            "allow_http": config.get("endpoint", "").startswith("http://"),
        }
        retries: RetryConfig = {
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=timeout_s),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=1),
                "base": 2,
            },
        }
        known = cast("S3Config", config)
        self._store = S3Store.from_url(
            url, client_options=options, retry_config=retries, config=known
        )
        self._probe_store = S3Store.from_url(
            url, client_options=options, retry_config={**retries, "max_retries": 0}, config=known
        )
        self._probe: asyncio.Task[None] | None = None
        self._probed_at = float("-inf")

    async def put(self, key: str, data: bytes) -> None:
        """One request with the length and the checksum of all of it; a store that fails for want of
        anything but room is asked again."""
        path = check_key(key)
        until_s = time.monotonic() + self._timeout_s
        while True:
            try:
                return await self._put(path, data, until_s - time.monotonic())
            except (StorageFull, TimeoutError):
                raise
            except OSError:
                if time.monotonic() + _PAUSE_S > until_s:
                    raise
            await asyncio.sleep(_PAUSE_S)

    async def _put(self, path: str, data: bytes, within_s: float) -> None:
        with _as_os_errors(path):
            async with asyncio.timeout(within_s):
                await obstore.put_async(
                    self._store,
                    path,
                    data,
                    attributes={"Content-Type": _media_type(path)},
                    use_multipart=False,
                )

    async def full(self) -> bool:
        """Never; raises OSError when the store does not answer, within two seconds.

        Its answer counts for five seconds, and whoever asks meanwhile shares it.
        """
        if self._probe is None or (
            self._probe.done() and time.monotonic() - self._probed_at > _PROBE_EVERY_S
        ):
            self._probed_at = time.monotonic()
            self._probe = asyncio.create_task(self._answers())
        await asyncio.shield(self._probe)
        return False

    async def get(self, key: str) -> bytes:
        path = check_key(key)
        with _as_os_errors(key):
            return await self._in_time(self._read(path))

    async def delete(self, keys: Sequence[str]) -> None:
        """Many per request; raises OSError when some may be left."""
        paths = [check_key(key) for key in keys]
        for start in range(0, len(paths), _DELETE_BATCH):
            batch = paths[start : start + _DELETE_BATCH]
            try:
                await self._delete(batch)
            except OSError:  # obstore repeats no POST whose connection broke; this one is harmless
                await self._delete(batch)

    async def stored_before(self, before: datetime) -> AsyncIterator[list[str]]:
        pages = obstore.list(self._store, chunk_size=_LIST_BATCH)
        while True:
            with _as_os_errors("the list of keys"):
                page = await self._in_time(anext(pages, None))
            if not page:
                return
            keys = [one["path"] for one in page if one["last_modified"] < before]
            if old := [key for key in keys if is_picture(key)]:
                yield old

    async def _answers(self) -> None:
        """Whether the bucket is there and the credentials count: the list of nothing."""
        with _as_os_errors("the bucket"):
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                await anext(obstore.list(self._probe_store, _PROBE_PREFIX), None)

    async def _delete(self, batch: list[str]) -> None:
        with _as_os_errors(f"{len(batch)} keys"):
            await self._in_time(obstore.delete_async(self._store, batch))

    async def _read(self, path: str) -> bytes:
        found = await obstore.get_async(self._store, path)
        return bytes(await found.bytes_async())

    async def _in_time(self, work: Awaitable[_T]) -> _T:
        async with asyncio.timeout(self._timeout_s):
            return await work


@contextmanager
def _as_os_errors(what: str) -> Iterator[None]:
    """Raise what Python raises for files, so that nobody else knows of obstore."""
    try:
        yield
    except (NotFoundError, FileNotFoundError) as error:
        raise FileNotFoundError(errno.ENOENT, "the image store has no such object", what) from error
    except TimeoutError as error:
        raise TimeoutError(errno.ETIMEDOUT, "the image store is too slow", what) from error
    except (BaseError, OSError) as error:
        if any(sign in str(error) for sign in _NO_ROOM):
            raise StorageFull(errno.ENOSPC, "the image store is full") from error
        raise OSError(errno.EIO, f"the image store failed: {type(error).__name__}", what) from error


def _media_type(key: str) -> str:
    return KINDS[format_of(key)].media_type if is_picture(key) else "application/octet-stream"
