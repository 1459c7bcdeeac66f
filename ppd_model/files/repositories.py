"""Where published weights lie on this machine: in a local folder, or in the hub's cache.

A local folder holds one folder for each repository, named like the repository without its owner
(``stable-cascade-prior/prior/config.json``), and the lock that ``ppd models pull`` wrote. What the
lock lists is checked before it is used.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError

from ppd_model.files.artifact import ArtifactError, refuse_other, sha256_of
from ppd_model.files.hub import Hub, HuggingFaceHub, belongs, fetch_part, wanted_dtype
from ppd_model.files.lock import LOCK_FILE, LockedRepository, read_lock
from ppd_model.files.safetensor_files import WeightFiles, choose_weight_file
from ppd_model.presets import Preset, PublishedPart

CONFIG = "config.json"


@dataclass(frozen=True)
class Repository:
    """One repository on this machine.

    ``commit`` is "" where it is not known: in a folder that ``ppd models pull`` did not make.
    ``locked`` is None there, and in the hub's cache.
    """

    hub_id: str
    path: Path
    commit: str = ""
    locked: LockedRepository | None = None

    def folder(self, part: PublishedPart) -> Path:
        return self.path / part.folder

    def weights(self, part: PublishedPart, dtype: torch.dtype) -> WeightFiles:
        """The part's weights. Raises FileNotFoundError naming what was looked for."""
        return WeightFiles.find(self.folder(part), part.stem, wanted_dtype(part, dtype))

    def files(self, part: PublishedPart, dtype: torch.dtype) -> tuple[Path, ...]:
        """All files of the part: small ones, index and weights."""
        folder = self.folder(part)
        small = sorted(
            path
            for path in (folder.iterdir() if folder.is_dir() else ())
            if path.is_file() and path.name != LOCK_FILE and belongs(path.name, part)
        )
        return (*small, *(self.weights(part, dtype).all_files if part.stem else ()))

    def sha256(self, part: PublishedPart, dtype: torch.dtype) -> str:
        """One sha256 over the part's files, by name and content.

        Raises ArtifactError for a file that is not what the lock says, or that it does not list.
        """
        hashes = {path.name: self._checked_sha256(path) for path in self.files(part, dtype)}
        return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()

    def config(self, part: PublishedPart) -> dict[str, Any]:
        """The part's ``config.json``. Raises FileNotFoundError, or ArtifactError if unreadable."""
        path = self.folder(part) / CONFIG
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ArtifactError(f"{path}: not a configuration: {error}") from error
        if not isinstance(content, dict):
            raise ArtifactError(f"{path}: not a configuration: a {type(content).__name__}")
        return content

    def _checked_sha256(self, path: Path) -> str:
        digest = sha256_of(path)
        if self.locked is not None:
            name = path.relative_to(self.path).as_posix()
            if name not in self.locked.files:
                raise ArtifactError(f"{path}: not among the files that were pulled")
            refuse_other("sha256", path, found=digest, expected=self.locked.files[name].sha256)
        return digest


def locate(
    preset: Preset, part: str, weights_dir: Path | None, dtype: torch.dtype, hub: Hub | None = None
) -> Repository:
    """The repository that holds a part: in ``weights_dir``, or, for None, from the hub.

    ``weights_dir`` may also be the repository itself. Raises ValueError for a part that was not
    published, and FileNotFoundError that says what to pull.
    """
    if part not in preset.published:
        raise ValueError(f"{preset.name} has no published {part}")
    published = preset.published[part]
    if weights_dir is None:
        return _in_cache(preset, published, dtype, hub or HuggingFaceHub())
    hub_id = published.repository
    path = weights_dir / hub_id.split("/")[-1]
    if path.is_dir():
        locked = read_lock(weights_dir).repositories.get(hub_id)
        return Repository(hub_id, path, locked.commit if locked else "", locked)
    if _holds(weights_dir, published, dtype):
        return Repository(hub_id, weights_dir)
    raise FileNotFoundError(
        f"no weights of {hub_id} at {path}: `ppd models pull {preset.name} --dir {weights_dir}` "
        "fetches them"
    )


def _holds(path: Path, part: PublishedPart, dtype: torch.dtype) -> bool:
    folder = path / part.folder
    if not folder.is_dir():
        return False
    names = {file.name for file in folder.iterdir()}
    return choose_weight_file(names, part.stem, dtype) is not None if part.stem else True


def _in_cache(preset: Preset, part: PublishedPart, dtype: torch.dtype, hub: Hub) -> Repository:
    """The repository in the hub's cache; the part is fetched unless HF_HUB_OFFLINE forbids it."""
    hub_id, revision = part.repository, preset.revisions[part.repository]
    if not constants.HF_HUB_OFFLINE:
        listing = hub.listing(hub_id, revision)
        paths = [path for _, path in fetch_part(hub, listing, revision, part, dtype, None)]
        depth = 2 if part.folder else 1
        snapshot = paths[0].parents[depth - 1]
        if snapshot.name != listing.commit:
            raise ArtifactError(f"{hub_id}: {snapshot} fetched, expected commit {listing.commit}")
        return Repository(hub_id, snapshot, listing.commit)
    try:
        snapshot = Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except IncompleteSnapshotError as error:  # as it should be: only some files are wanted
        snapshot = Path(error.snapshot_path)
    except LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{hub_id} at {revision} is not in the hub's cache, and HF_HUB_OFFLINE is set"
        ) from error
    return Repository(hub_id, snapshot, snapshot.name)
