"""Artifacts: tensors, what they are, and what they belong to, in one safetensors file.

An artifact refuses to be wrong (design decision 10). The header names its kind, configuration and
base model; loading checks the sha256, the kind, the ids, that every value is finite, and that the
file's keys are exactly the module's. ``safetensors`` itself accepts NaN and a flipped data byte.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

FORMAT = "ppd-artifact-1"
MANIFEST = "manifest.json"

BATCHES_SEEN = ".num_batches_tracked"
"""A batch norm's count of batches, which nothing reads in ``eval()``; torch's own strict loading
begins at 0 where a file lacks it."""

SHORT_DIGEST = 12
"""How many digits of a sha256 stand for a file in ids and versions."""


class ArtifactError(ValueError):
    """A file that must not be used, and why."""


@dataclass(frozen=True)
class ArtifactSpec:
    """What an artifact is.

    ``kind`` is the part ("stage_c", "adapter", ...), ``config`` what rebuilds its module,
    ``base_model`` the id of the model it belongs to, ``extra`` further ids ("encoder_id", the
    step, the run).
    """

    kind: str
    config: dict[str, Any]
    base_model: str
    extra: dict[str, str] = field(default_factory=dict)


def save_artifact(
    path: Path,
    tensors: Mapping[str, Tensor],
    spec: ArtifactSpec,
    dtype: torch.dtype | None = None,
) -> str:
    """Write ``path`` in one step and return its sha256.

    Floating tensors are stored as ``dtype`` where one is given. Raises ArtifactError for no
    tensors and for a value that is not finite, also one that ``dtype`` cannot hold; OSError where
    the disk is full, with nothing left behind.
    """
    if not tensors:
        raise ArtifactError(f"{path}: nothing to save")
    stored = {
        name: _storable(tensor, dtype if tensor.is_floating_point() else None)
        for name, tensor in tensors.items()
    }
    refuse_non_finite(path, stored)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    try:
        save_file(stored, unfinished, metadata={"format": FORMAT, "spec": json.dumps(asdict(spec))})
        _order_metadata(unfinished)
        digest = sha256_of(unfinished)
        os.replace(unfinished, path)
    except SafetensorError as error:
        raise OSError(f"{path} could not be written: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return digest


def _order_metadata(path: Path) -> None:
    """Sort the header's metadata in place.

    safetensors writes them in an order that varies, and with it the sha256 of equal weights. The
    header keeps its length.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size, f"{path}: a header of {len(text)} bytes in the place of {size}"
        file.seek(8)
        file.write(text.ljust(size))


def load_artifact(
    path: Path,
    *,
    kind: str,
    sha256: str | None = None,
    base_model: str | None = None,
    encoder_id: str | None = None,
) -> tuple[dict[str, Tensor], ArtifactSpec]:
    """The tensors, as stored, and the spec.

    Raises FileNotFoundError for a missing file, and ArtifactError, naming what was found and what
    was expected, for a file that is damaged, is of another kind, belongs to another base model or
    another user encoder (each checked where given), or holds NaN or infinity.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {kind} weights at {path}")
    if sha256 is not None:
        refuse_other("sha256", path, found=sha256_of(path), expected=sha256)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: not a readable safetensors file: {error}") from error
    spec = _spec_of(path, metadata)
    refuse_other("kind", path, found=spec.kind, expected=kind)
    if base_model is not None:
        refuse_other("base model", path, found=spec.base_model, expected=base_model)
    if encoder_id is not None:
        refuse_other(
            "user encoder", path, found=spec.extra.get("encoder_id", "none"), expected=encoder_id
        )
    if not tensors:
        raise ArtifactError(f"{path}: holds no tensors")
    refuse_non_finite(path, tensors)
    return tensors, spec


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy ``tensors`` into ``module``, keeping the module's dtype and device.

    Raises ArtifactError unless the keys are the same both ways and more than none, every shape is
    the same, and every value is finite.
    """
    name = type(module).__name__
    own = module.state_dict()
    refuse_other_keys(name, shapes_of(own), shapes_of(tensors))
    refuse_non_finite(name, tensors)
    module.load_state_dict(dict(tensors), strict=True)


def refuse_other_keys(
    name: str, own: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> None:
    """Raises ArtifactError unless ``found`` has exactly the keys and shapes of ``own``.

    Counts of batches may be missing.
    """
    missing = sorted(key for key in own.keys() - found.keys() if not key.endswith(BATCHES_SEEN))
    unknown = sorted(found.keys() - own.keys())
    if missing or unknown:
        raise ArtifactError(
            f"{name}: {len(missing)} keys missing {missing[:3]}, "
            f"{len(unknown)} keys unknown {unknown[:3]}"
        )
    if not own:
        raise ArtifactError(f"{name}: has no weights to load")
    for key, shape in found.items():
        if shape != own[key]:
            raise ArtifactError(f"{name}: {key} has shape {shape}, expected {own[key]}")


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def refuse_non_finite(name: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises ArtifactError that names a tensor with NaN or infinity."""
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"{name}: {key} holds NaN or infinity")


def write_manifest(directory: Path) -> dict[str, str]:
    """Write ``manifest.json`` for every safetensors and json file; returns name -> sha256."""
    names = _listed_names(directory)
    if not names:
        raise ArtifactError(f"{directory}: no artifacts to list")
    digests = {name: sha256_of(directory / name) for name in names}
    text = json.dumps({"format": FORMAT, "sha256": digests}, indent=2, sort_keys=True)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return digests


def verify_manifest(directory: Path) -> dict[str, str]:
    """Name -> sha256 of every file, each one checked.

    Raises FileNotFoundError without a manifest, and ArtifactError for a manifest that cannot be
    read, a listed file that is missing or has another sha256, and a file that is not listed.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {directory}: {path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digests = {str(name): str(digest) for name, digest in content["sha256"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: not a manifest: {error!r}") from error
    unlisted = sorted(set(_listed_names(directory)) - digests.keys())
    if unlisted:
        raise ArtifactError(f"{directory}: files that the manifest does not list: {unlisted}")
    for name, digest in digests.items():
        if not (directory / name).is_file():
            raise ArtifactError(f"{directory}: {name} is listed in the manifest and missing")
        refuse_other("sha256", directory / name, sha256_of(directory / name), digest)
    return digests


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed_names(directory: Path) -> list[str]:
    return sorted(
        path.name
        for path in directory.iterdir()
        if path.suffix in (".safetensors", ".json") and path.name != MANIFEST
    )


def _storable(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    kept = tensor.detach().to(device="cpu", dtype=dtype or tensor.dtype, copy=True)
    return kept.contiguous()


def _spec_of(path: Path, metadata: Mapping[str, str]) -> ArtifactSpec:
    refuse_other("format", path, found=metadata.get("format", "none"), expected=FORMAT)
    try:
        return ArtifactSpec(**json.loads(metadata["spec"]))
    except (KeyError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path}: the header holds no readable spec: {error!r}") from error


def refuse_other(what: str, path: Path, found: str, expected: str) -> None:
    """Raises ArtifactError with both values unless they are the same."""
    if found != expected:
        raise ArtifactError(f"{path}: {what} is {found!r}, expected {expected!r}")
