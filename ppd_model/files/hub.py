"""Published repositories on the hub: what they hold, and fetching the files of a part."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Protocol

import torch
from huggingface_hub import HfApi, hf_hub_download

from ppd_model.files.safetensor_files import (
    choose_weight_file,
    is_index,
    read_index,
    weight_file_names,
)
from ppd_model.presets import PublishedPart


@dataclass(frozen=True)
class Listing:
    """A repository at one commit: path -> size in bytes."""

    hub_id: str
    commit: str
    sizes: Mapping[str, int]


class Hub(Protocol):
    """Where published repositories are fetched from."""

    def listing(self, hub_id: str, revision: str) -> Listing:
        """What the repository holds at a branch, tag or commit."""

    def fetch(self, hub_id: str, revision: str, name: str, folder: Path | None) -> Path:
        """A file of the repository in ``folder``, or, for None, in the hub's cache."""


class HuggingFaceHub:
    """The hub itself. HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE hold."""

    def listing(self, hub_id: str, revision: str) -> Listing:
        """Raises OSError when the hub cannot be reached or has no such revision."""
        try:
            info = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
        except (OSError, ValueError):
            raise
        except Exception as error:  # the client's HTTP library has errors of its own
            raise ConnectionError(f"{hub_id} cannot be looked up: {error}") from error
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or []}
        return Listing(hub_id, str(info.sha), sizes)

    def fetch(self, hub_id: str, revision: str, name: str, folder: Path | None) -> Path:
        """Goes on with what was fetched before. Raises OSError when the hub cannot be reached."""
        return Path(hf_hub_download(hub_id, name, revision=revision, local_dir=folder))


def fetch_part(
    hub: Hub,
    listing: Listing,
    revision: str,
    part: PublishedPart,
    dtype: torch.dtype,
    folder: Path | None,
) -> Iterator[tuple[str, Path]]:
    """Fetch the files of a part one by one: small ones, weights, and the shards of an index.

    Raises FileNotFoundError when the repository has no weights for the part.
    """
    for name in part_files(listing.sizes, part, dtype):
        path = hub.fetch(listing.hub_id, revision, name, folder)
        yield name, path
        if is_index(name):
            for shard in sorted(set(read_index(path).values())):
                inside = (PurePosixPath(name).parent / shard).as_posix()
                yield inside, hub.fetch(listing.hub_id, revision, inside, folder)


def part_files(names: Collection[str], part: PublishedPart, dtype: torch.dtype) -> list[str]:
    """Of a repository's paths, a part's small files and its weights (or their index).

    Raises FileNotFoundError when there are no weights for the part, or no files at all.
    """
    folder = PurePosixPath(part.folder)
    own = {PurePosixPath(name).name for name in names if PurePosixPath(name).parent == folder}
    chosen = sorted(name for name in own if belongs(name, part))
    if part.stem:
        wanted = wanted_dtype(part, dtype)
        weights = choose_weight_file(own, part.stem, wanted)
        if weights is None:
            looked = ", ".join(weight_file_names(part.stem, wanted))
            raise FileNotFoundError(f"{part.repository}: none of {looked} in {folder}/")
        chosen.append(weights)
    if not chosen:
        raise FileNotFoundError(f"{part.repository}: no {folder}/ with {part.beside}")
    return [(folder / name).as_posix() for name in chosen]


def wanted_dtype(part: PublishedPart, dtype: torch.dtype) -> torch.dtype:
    """The dtype whose file is wanted for a part of a model that runs as ``dtype``."""
    return torch.float32 if part.full_precision else dtype


def belongs(name: str, part: PublishedPart) -> bool:
    """Whether a file of the part's folder is one of its small files; an index of shards is none."""
    return not is_index(name) and any(fnmatch(name, pattern) for pattern in part.beside)
