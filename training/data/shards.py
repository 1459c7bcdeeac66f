"""A folder of safetensors shards with a manifest: written one at a time, resumable, verified.

manifest.json holds what the shards were made with (`provenance`), the sha256 of each finished
file, and whether all of them are there. While several processes write, each finished file has its
sha256 in a small file beside it; `finish` gathers them into the manifest. Reading is lazy: rows are
copied out of the mapped files, so that a folder may be larger than the memory.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ppd_model.files.artifact import sha256_of
from training.jobs.configuration import differences
from training.jobs.files import replacing, write_json

MANIFEST = "manifest.json"
DIGEST = ".sha256"
REUSE = "; another --output_dir, with --reuse this folder, keeps what was made of the other files"


class ShardFolder:
    """Writes shards; what is already there and intact is not made again.

    Raises ValueError when the folder holds shards that were made with something else, or, without
    `resume`, when it holds any. Of several processes one opens the folder first, the others after
    it with `resume`; no two write the same file.
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
            self._save()
            return
        found = read_manifest(folder)
        if not resume:
            raise ValueError(f"{folder} already holds shards; pass --resume or choose another")
        now = json.loads(json.dumps(provenance))
        if differing := differences(found["provenance"], now):
            lifted = "" if differences(found["provenance"], now, ["files"]) else REUSE
            raise ValueError(f"{folder} was made with something else: {differing}{lifted}")
        self._manifest["shards"] = found["shards"]

    def missing(
        self, kind: str, total: int, size: int, process: int = 0, processes: int = 1
    ) -> Iterator[tuple[str, slice]]:
        """Names KIND-NUMBER.safetensors, and members, of this process's shards that are not there.

        `total` things are written, `size` of them in a shard; a bar says how far it is.
        """
        own = range(process, -(-total // size), processes)
        for shard in tqdm(own, desc=kind, unit="shard", mininterval=5):
            name = f"{kind}-{shard:05d}.safetensors"
            if not self.has(name):
                yield name, slice(shard * size, min((shard + 1) * size, total))

    def has(self, name: str) -> bool:
        """Whether that file is finished and unchanged."""
        path, digest = self.folder / name, self._digest_path(name)
        recorded = (
            digest.read_text().strip() if digest.exists() else self._manifest["shards"].get(name)
        )
        return path.exists() and recorded == sha256_of(path)

    def write(self, name: str, tensors: Mapping[str, Tensor | NDArray[Any]]) -> None:
        """Write one shard and record it; a crash leaves either all of it or none."""
        with self._recording(name) as unfinished:
            stored = {key: torch.as_tensor(of).contiguous() for key, of in tensors.items()}
            save_file(stored, unfinished)

    def write_json(self, name: str, value: Any) -> None:
        """Write one json file and record it, like a shard."""
        with self._recording(name) as unfinished:
            unfinished.write_text(json.dumps(value, indent=0, ensure_ascii=False) + "\n")

    def finish(self) -> None:
        """Record that every shard is there, those of other processes included."""
        digests = sorted(self.folder.glob(f"*{DIGEST}"))
        for path in digests:
            name = path.name.removesuffix(DIGEST)
            self._manifest["shards"][name] = path.read_text().strip()
        self._manifest["shards"] = dict(sorted(self._manifest["shards"].items()))
        self._manifest["complete"] = True
        self._save()
        for path in digests:
            path.unlink()

    @contextmanager
    def _recording(self, name: str) -> Iterator[Path]:
        digest_path = self._digest_path(name)
        with replacing(digest_path) as beside, replacing(self.folder / name) as unfinished:
            yield unfinished
            beside.write_text(sha256_of(unfinished) + "\n")

    def _digest_path(self, name: str) -> Path:
        return self.folder / (name + DIGEST)

    def _save(self) -> None:
        write_json(self.folder / MANIFEST, self._manifest)


class ShardedRows:
    """One tensor, cut by rows over several shards, of which only the rows asked for are read.

    The files are mapped, not loaded: what a batch does not touch takes no memory, and what it did
    touch the system may take back. Raises ValueError when the shards' rows differ in shape.
    """

    def __init__(self, paths: Sequence[Path], key: str) -> None:
        self._parts = [mapped(path, key) for path in paths]
        shapes = {tuple(part.shape[1:]) for part in self._parts}
        if len(shapes) != 1:
            raise ValueError(f"{key} has rows of different shapes: {sorted(shapes)}")
        self._first_row_S = [0, *accumulate(len(part) for part in self._parts)]
        self.shape = torch.Size((self._first_row_S[-1], *shapes.pop()))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows_B: Tensor) -> Tensor:
        """A copy of the rows of these numbers. Raises IndexError for one that is not there."""
        return torch.stack([self._row(row) for row in rows_B.tolist()])

    def _row(self, row: int) -> Tensor:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        shard = bisect_right(self._first_row_S, row) - 1
        return self._parts[shard][row - self._first_row_S[shard]]


def mapped(path: Path, key: str) -> Tensor:
    """A tensor whose storage is the mapped file."""
    with safe_open(path, framework="pt") as file:
        tensor: Tensor = file.get_tensor(key)
    return tensor


def read_manifest(folder: Path, *, finished: bool = False) -> dict[str, Any]:
    """The manifest. Raises ValueError when there is none, or a finished one is asked for."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{folder} holds no {MANIFEST}; run training.precompute first") from error
    if finished and not manifest["complete"]:
        raise ValueError(f"{folder} is not finished; run its job again with --resume")
    return manifest


def verified(folder: Path, prefix: str) -> list[Path]:
    """The files whose names start so, in order. Raises ValueError when one is not as recorded."""
    manifest = read_manifest(folder)
    names = sorted(name for name in manifest["shards"] if name.startswith(prefix))
    if not names:
        raise ValueError(f"{folder} holds no shard named {prefix}*")
    for name in names:
        path = folder / name
        found = sha256_of(path) if path.exists() else "no such file"
        if found != manifest["shards"][name]:
            raise ValueError(f"{path}: sha256 {manifest['shards'][name]} expected, {found} found")
    return [folder / name for name in names]


def read_shards(folder: Path, prefix: str) -> list[dict[str, Tensor]]:
    """What those files hold, by name. Raises ValueError as `verified`."""
    return [load_file(path) for path in verified(folder, prefix)]


def read_lists(folder: Path, prefix: str) -> list[Any]:
    """The lists of those json files, joined. Raises ValueError as `verified`."""
    paths = verified(folder, prefix)
    return [each for path in paths for each in json.loads(path.read_text(encoding="utf-8"))]
