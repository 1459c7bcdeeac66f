"""Published safetensors: one file or shards, plain or a variant, read strictly and without waste.

A module is built on the meta device, where it takes no memory, and is then given the file's own
tensors, one after the other, so that never more than one copy of the weights is held. Where a
tensor lies in the file decides nothing: see ``aligned``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ppd_model.files.artifact import (
    ArtifactError,
    refuse_non_finite,
    refuse_other_keys,
    shapes_of,
)

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float64": torch.float64,
}
BF16 = "bf16"
INDEX = ".safetensors.index"
ALIGNMENT = 64
"""Bytes at whose multiples torch's own tensors begin, on the CPU."""


def named_dtype(name: str, known: Collection[str], what: str) -> torch.dtype:
    """The dtype of that name. Raises ValueError for one that `what` does not run in."""
    if name not in known:
        raise ValueError(f"dtype {name!r}: {what} runs in {' or '.join(known)}")
    return DTYPES[name]


def weight_file_names(stem: str, dtype: torch.dtype) -> list[str]:
    """Names under which weights are published, the most wanted first.

    A variant stands before the ending, and in an index before or after ``.safetensors.index``.
    In bfloat16 the variant is wanted, at half the size; else the plain file.
    """
    plain = [f"{stem}.safetensors", f"{stem}{INDEX}.json"]
    variant = [
        f"{stem}.{BF16}.safetensors",
        f"{stem}{INDEX}.{BF16}.json",
        f"{stem}.{BF16}{INDEX}.json",
    ]
    return variant + plain if dtype == torch.bfloat16 else plain + variant


def choose_weight_file(names: Collection[str], stem: str, dtype: torch.dtype) -> str | None:
    """The name to read among those that there are; None when there is none."""
    return next((name for name in weight_file_names(stem, dtype) if name in names), None)


def is_index(name: str) -> bool:
    """Whether the file lists shards instead of holding weights."""
    return INDEX in name and name.endswith(".json")


def read_index(path: Path) -> dict[str, str]:
    """Key -> name of the shard that holds it. Raises ArtifactError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        shards = {str(key): str(name) for key, name in content["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: not an index of shards: {error!r}") from error
    outside = sorted({name for name in shards.values() if Path(name).name != name})
    if outside or not shards:
        raise ArtifactError(f"{path}: not an index of shards beside it: {outside[:3]}")
    return shards


@dataclass(frozen=True)
class WeightFiles:
    """The safetensors files that together hold one module's weights.

    ``index`` is the file that lists them, where there is one.
    """

    files: tuple[Path, ...]
    index: Path | None = None

    @classmethod
    def find(cls, folder: Path, stem: str, dtype: torch.dtype = torch.float32) -> WeightFiles:
        """The weights called ``stem`` in ``folder``.

        Raises FileNotFoundError that names the files looked for, or the shard that is missing.
        """
        present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        name = choose_weight_file(present, stem, dtype)
        if name is None:
            looked = ", ".join(weight_file_names(stem, dtype))
            raise FileNotFoundError(f"no weights in {folder}: looked for {looked}")
        if not is_index(name):
            return cls((folder / name,))
        shards = sorted(set(read_index(folder / name).values()))
        for shard in shards:
            if shard not in present:
                raise FileNotFoundError(f"{folder / shard} is missing; {name} lists it")
        return cls(tuple(folder / shard for shard in shards), folder / name)

    @property
    def all_files(self) -> tuple[Path, ...]:
        """The index, if any, and the files with weights."""
        return self.files if self.index is None else (self.index, *self.files)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Key -> shape, from the headers alone.

        Raises ArtifactError for a damaged file, for a key in two shards, and for shards that do
        not hold exactly what their index says.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for path in self.files:
            with _open(path) as file:
                for key in file.keys():  # noqa: SIM118
                    if key in shapes:
                        raise ArtifactError(f"{path}: {key} is in another shard, too")
                    shapes[key] = tuple(file.get_slice(key).get_shape())
        if self.index is not None:
            listed = read_index(self.index).keys()
            if listed != shapes.keys():
                lost, unlisted = sorted(listed - shapes.keys()), sorted(shapes.keys() - listed)
                raise ArtifactError(
                    f"{self.index}: {len(lost)} listed keys in no shard {lost[:3]}, "
                    f"{len(unlisted)} keys not listed {unlisted[:3]}"
                )
        return shapes

    def tensors(self, dtype: torch.dtype, device: str = "cpu") -> Iterator[tuple[str, Tensor]]:
        """Every key and its tensor; floating ones as ``dtype``.

        Raises ArtifactError for NaN or infinity, in the file or made by ``dtype``.
        """
        for path in self.files:
            with _open(path, device) as file:
                for key in file.keys():  # noqa: SIM118
                    tensor = file.get_tensor(key)
                    if tensor.is_floating_point():
                        tensor = tensor.to(dtype)
                    refuse_non_finite(path, {key: tensor})
                    yield key, tensor


def assign_weights(
    module: nn.Module,
    weights: WeightFiles,
    *,
    dtype: torch.dtype,
    device: str = "cpu",
    ignore: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Give ``module``, built on the meta device, the weights of the files.

    Floating weights are kept as ``dtype``. ``ignore`` names keys, with their shapes, that older
    files hold and the module computes. Raises ArtifactError unless the other keys and shapes are
    exactly the module's; nothing has been read then.
    """
    found = weights.shapes()
    for key, shape in (ignore or {}).items():
        if found.get(key) == shape:
            del found[key]
    refuse_other_keys(f"{weights.all_files[0]}", shapes_of(module.state_dict()), found)
    tensors = {
        key: aligned(tensor) for key, tensor in weights.tensors(dtype, device) if key in found
    }
    module.load_state_dict(tensors, strict=True, assign=True)


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, or its copy if on the CPU it begins where torch would not let it begin.

    Products of few rows round otherwise over weights at another address, and in a file tensors
    begin anywhere: the same weights would give other bits whole, in shards and from memory.
    """
    if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT:
        return tensor.clone()
    return tensor


def align(module: nn.Module) -> None:
    """``aligned`` for everything that a module holds, one after the other."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = aligned(tensor.data)


def refuse_meta(module: nn.Module) -> None:
    """An invariant: after loading nothing is left without a value."""
    left = [
        name
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
        if tensor.is_meta
    ]
    assert not left, f"{type(module).__name__} was loaded without {left}"


@contextmanager
def _open(path: Path, device: str = "cpu") -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt", device=device) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: not a readable safetensors file: {error}") from error
