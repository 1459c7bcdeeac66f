"""Published weight files of scorers, read without running what a pickle may hold, and strictly."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ppd_model.files.artifact import (
    ArtifactError,
    refuse_non_finite,
    refuse_other_keys,
    shapes_of,
)


def first_file(folder: Path, names: Sequence[str]) -> Path:
    """The first of these files that the folder holds. Raises FileNotFoundError that lists them."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder}: none of {', '.join(names)} is there")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A file's tensors by name: safetensors, or a torch file of tensors alone.

    A torch file may keep its tensors under "state_dict". Raises FileNotFoundError, and
    ArtifactError for a file that cannot be read so.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ArtifactError(f"{path}: not a readable safetensors file: {error}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ArtifactError(f"{path}: not a torch file of tensors alone: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: holds {type(content).__name__}, expected tensors by name")
    other = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if other or not content:
        raise ArtifactError(f"{path}: {other[:3] or 'nothing'} where tensors were expected")
    return {str(key): value for key, value in content.items()}


def give_weights(
    module: nn.Module, tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype
) -> None:
    """Give a module that was built on the meta device these tensors, as `dtype`.

    Raises ArtifactError, naming file and keys, unless the keys are exactly the module's, each of
    its shape, and every value is finite.
    """
    refuse_other_keys(str(path), shapes_of(module.state_dict()), shapes_of(tensors))
    refuse_non_finite(path, tensors)
    module.load_state_dict({key: value.to(dtype) for key, value in tensors.items()}, assign=True)
