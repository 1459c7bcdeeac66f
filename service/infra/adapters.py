"""Adapters put into service: files in the data folder, and the name of the one that is served."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

POINTER = "active.json"
SHORT_DIGEST = 12


@dataclass(frozen=True)
class KeptAdapter:
    """A file in the folder; `version` is what answers call `adapter_version`."""

    version: str
    path: Path
    active: bool


class AdapterFolder:
    """`DIR/<version>.safetensors`, and `DIR/active.json` naming one of them by its sha256.

    Files are named after their content and never changed, so going back is activating an earlier
    one again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def active(self) -> Path | None:
        """The adapter to serve; None means the one that is shipped with the weights.

        Raises ValueError when the file that was activated is missing or has changed.
        """
        sha256 = self._active_sha256()
        if sha256 is None:
            return None
        path = self._path(sha256)
        if not path.is_file():
            raise ValueError(f"the active adapter {path} is missing; activate it again")
        found = file_sha256(path)
        if found != sha256:
            raise ValueError(f"{path} has sha256 {found}; {sha256} was activated")
        return path

    def activate(self, source: Path) -> str:
        """Copy an adapter here and make it the active one; returns its version."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        sha256 = file_sha256(source)
        kept = self._path(sha256)
        if not kept.is_file() or file_sha256(kept) != sha256:
            fresh = kept.with_suffix(".new")
            shutil.copyfile(source, fresh)
            fresh.replace(kept)
        record = {"sha256": sha256, "activated_at": datetime.now(UTC).isoformat()}
        fresh = self._folder / f"{POINTER}.new"
        with fresh.open("w") as file:
            json.dump(record, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._folder / POINTER)
        return sha256[:SHORT_DIGEST]

    def deactivate(self) -> bool:
        """Go back to the shipped adapter; False when none was active. Files stay."""
        pointer = self._folder / POINTER
        if not pointer.exists():
            return False
        pointer.unlink()
        return True

    def kept(self) -> list[KeptAdapter]:
        """Every adapter here, oldest first."""
        sha256 = self._active_sha256()
        paths = sorted(self._folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
        return [
            KeptAdapter(path.stem, path, sha256 is not None and path == self._path(sha256))
            for path in paths
        ]

    def find(self, version: str) -> Path | None:
        """The file of a version that is kept here."""
        return next((one.path for one in self.kept() if one.version == version), None)

    def _path(self, sha256: str) -> Path:
        return self._folder / f"{sha256[:SHORT_DIGEST]}.safetensors"

    def _active_sha256(self) -> str | None:
        pointer = self._folder / POINTER
        if not pointer.exists():
            return None
        try:
            sha256 = json.loads(pointer.read_text())["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{pointer} cannot be read: {error}") from error
        return str(sha256)


def file_sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
