"""Fetch what a preset needs into a folder, and write down exactly what was fetched."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch

from ppd_model.files.artifact import ArtifactError, sha256_of
from ppd_model.files.hub import Hub, Listing, fetch_part, part_files
from ppd_model.files.lock import Lock, LockedFile, LockedRepository, read_lock, write_lock
from ppd_model.files.safetensor_files import is_index
from ppd_model.presets import Preset, PublishedPart

LICENCE_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "README.md")


def pull(
    preset: Preset,
    folder: Path,
    hub: Hub,
    *,
    dtype: torch.dtype = torch.bfloat16,
    parts: Collection[str] = (),
    revisions: Mapping[str, str] | None = None,
    on_file: Callable[[str, int], None] | None = None,
) -> Lock:
    """Fetch the preset's parts (``parts`` of them, or all) and lock them.

    Every repository is resolved to one commit first, so that all its files belong together;
    ``revisions`` asks for others than the preset's. Files that are there already are fetched
    again only if they differ. ``on_file(path, bytes)`` follows. Raises ValueError for an unknown
    part or repository and too little space, and OSError when the hub cannot be reached.
    """
    chosen = _parts(preset, parts)
    asked = preset.revisions | dict(revisions or {})
    for hub_id in asked:
        if hub_id not in preset.revisions:
            raise ValueError(f"{preset.name} uses no {hub_id}; it uses {list(preset.revisions)}")
    wanted: dict[str, list[PublishedPart]] = {}
    for part in chosen:
        wanted.setdefault(part.repository, []).append(part)
    listings = {hub_id: hub.listing(hub_id, asked[hub_id]) for hub_id in wanted}
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_full_disk(folder, wanted, listings, dtype)
    for hub_id, listing in listings.items():
        target = folder / hub_id.split("/")[-1]
        files = {
            name: _fetched(path, target, name, on_file)
            for part in wanted[hub_id]
            for name, path in fetch_part(hub, listing, listing.commit, part, dtype, target)
        }
        for name in LICENCE_FILES:
            if name in listing.sizes:
                path = hub.fetch(hub_id, listing.commit, name, target)
                files[name] = _fetched(path, target, name, on_file)
        _lock(folder, hub_id, LockedRepository(asked[hub_id], listing.commit, files))
    return read_lock(folder)


def _parts(preset: Preset, names: Collection[str]) -> list[PublishedPart]:
    unknown = sorted(set(names) - preset.published.keys())
    if unknown or not preset.published:
        known = list(preset.published) or "none: its weights are shipped"
        raise ValueError(f"{preset.name} has no published parts {unknown}; it has {known}")
    return [preset.published[name] for name in (names or preset.published)]


def _fetched(
    path: Path, target: Path, name: str, on_file: Callable[[str, int], None] | None
) -> LockedFile:
    if path.resolve() != (target / name).resolve():
        raise ArtifactError(f"{name} was fetched to {path}, expected {target / name}")
    size_bytes = path.stat().st_size
    if on_file is not None:
        on_file(f"{target.name}/{name}", size_bytes)
    return LockedFile(sha256_of(path), size_bytes)


def _lock(folder: Path, hub_id: str, pulled: LockedRepository) -> None:
    """Add to the lock; files of the same commit that were pulled before stay listed."""
    before = dict(read_lock(folder).repositories)
    known = before.get(hub_id)
    if known is not None and known.commit == pulled.commit:
        files = {**known.files, **pulled.files}
        pulled = LockedRepository(pulled.revision, pulled.commit, files)
    write_lock(folder, Lock(before | {hub_id: pulled}))


def _refuse_full_disk(
    folder: Path,
    wanted: Mapping[str, list[PublishedPart]],
    listings: Mapping[str, Listing],
    dtype: torch.dtype,
) -> None:
    """Raises ValueError when what is still to be fetched does not fit."""
    needed = 0
    for hub_id, parts in wanted.items():
        sizes = listings[hub_id].sizes
        for part in parts:
            for name in _with_shards(part_files(sizes, part, dtype), sizes, part):
                path = folder / hub_id.split("/")[-1] / name
                here = path.stat().st_size if path.is_file() else 0
                needed += max(0, sizes[name] - here)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(f"{needed:,} bytes to fetch, {free:,} free at {folder}")


def _with_shards(names: list[str], sizes: Mapping[str, int], part: PublishedPart) -> list[str]:
    """An index is not read yet: every shard that could be one of its own counts."""
    if not any(is_index(name) for name in names):
        return names
    prefix = f"{part.folder}/{part.stem}" if part.folder else part.stem
    return names + [name for name in sizes if name.startswith(prefix) and "-of-" in name]
