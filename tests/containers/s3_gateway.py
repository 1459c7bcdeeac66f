"""The stand-in for the S3 gateway of docker-compose.yml: tests/s3_server.py over a folder.

`python -m tests.containers.s3_gateway --port :7070 posix FOLDER`; a bucket is a folder in it.
"""

import argparse
import os
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

from tests.s3_server import Bucket, serve


class Objects(MutableMapping[str, bytes]):
    """Each in a file of its own, which is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, key: str) -> Path:
        return self._folder / quote(key, safe="")

    def __getitem__(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, data: bytes) -> None:
        part = self._path(key).with_suffix(f".{os.urandom(8).hex()}.part")
        part.write_bytes(data)
        part.rename(self._path(key))

    def __delitem__(self, key: str) -> None:
        try:
            self._path(key).unlink()
        except FileNotFoundError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        return (unquote(name) for name in os.listdir(self._folder) if not name.endswith(".part"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class StoredAt(MutableMapping[str, datetime]):
    """When each was stored, as its file says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getitem__(self, key: str) -> datetime:
        modified = (self._folder / quote(key, safe="")).stat().st_mtime
        return datetime.fromtimestamp(modified, UTC)

    def __setitem__(self, key: str, at: datetime) -> None:
        """It is so already."""

    def __delitem__(self, key: str) -> None:
        """With its file."""

    def __iter__(self) -> Iterator[str]:
        return iter(Objects(self._folder))

    def __len__(self) -> int:
        return len(Objects(self._folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", required=True)
    parser.add_argument("backend", choices=["posix"])
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    (bucket_dir,) = (path for path in given.folder.iterdir() if path.is_dir())
    port = int(given.port.removeprefix(":"))
    bucket = Bucket(
        port,
        name=bucket_dir.name,
        access_key_id=os.environ["ROOT_ACCESS_KEY"],
        secret_access_key=os.environ["ROOT_SECRET_KEY"],
        health=os.environ["VGW_HEALTH"],
        objects=Objects(bucket_dir),
        stored_at=StoredAt(bucket_dir),
    )
    serve(bucket, "0.0.0.0")


if __name__ == "__main__":
    main()
