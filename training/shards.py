"""A folder of safetensors shards with a manifest: written one at a time, resumable, verified.

manifest.json holds what the shards were made with (`provenance`), the sha256 of each finished
shard, and whether all of them are there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ppd_model.checkpoint import sha256_of

MANIFEST = "manifest.json"


class ShardFolder:
    """Writes shards; what is already there and intact is not made again.

    Raises ValueError when the folder holds shards that were made with something else, or, without
    `resume`, when it holds any.
    """

    def __init__(self, folder: Path, provenance: dict[str, Any], resume: bool) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._manifest: dict[str, Any] = {
            "provenance": provenance,
            "complete": False,
            "shards": {},
        }
        if not (folder / MANIFEST).exists():
            return
        found = read_manifest(folder)
        if not resume:
            raise ValueError(f"{folder} already holds shards; pass --resume or choose another")
        differing = [
            f"{key}: {found['provenance'].get(key)!r} there, {value!r} now"
            for key, value in json.loads(json.dumps(provenance)).items()
            if found["provenance"].get(key) != value
        ]
        if differing:
            raise ValueError(f"{folder} was made with something else: {'; '.join(differing)}")
        self._manifest["shards"] = found["shards"]

    def has(self, name: str) -> bool:
        """Whether that shard is finished and unchanged."""
        path = self.folder / name
        return path.exists() and self._manifest["shards"].get(name) == sha256_of(path)

    def write(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Write one shard and record it; a crash leaves either all of it or none."""
        path = self.folder / name
        temporary = path.with_suffix(".tmp")
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary)
        temporary.replace(path)
        self._manifest["shards"][name] = sha256_of(path)
        self._save()

    def finish(self) -> None:
        """Record that every shard is there."""
        self._manifest["complete"] = True
        self._save()

    def _save(self) -> None:
        temporary = self.folder / (MANIFEST + ".tmp")
        temporary.write_text(json.dumps(self._manifest, indent=2) + "\n")
        temporary.replace(self.folder / MANIFEST)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest. Raises ValueError when there is none."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{folder} holds no {MANIFEST}; run training.precompute first") from error
    return manifest


def verified(folder: Path, manifest: dict[str, Any], prefix: str) -> list[Path]:
    """The shards whose names start so, in order. Raises ValueError when one is not as recorded."""
    names = sorted(name for name in manifest["shards"] if name.startswith(prefix))
    if not names:
        raise ValueError(f"{folder} holds no shard named {prefix}*")
    for name in names:
        path = folder / name
        found = sha256_of(path) if path.exists() else "no such file"
        if found != manifest["shards"][name]:
            raise ValueError(f"{path}: sha256 {manifest['shards'][name]} expected, {found} found")
    return [folder / name for name in names]
