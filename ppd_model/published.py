"""The generator of a published preset: every part from where it was published.

Weights are trusted for their shapes and names, which must be exactly the preset's; of the
configuration files beside them only what shapes do not show is compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ppd_model.files.artifact import ArtifactError
from ppd_model.files.repositories import Repository, locate
from ppd_model.files.safetensor_files import named_dtype
from ppd_model.nets.decoder import Decoder, load_published_decoder
from ppd_model.nets.stage_c import StageC, load_published_stage_c
from ppd_model.nets.text_encoder import TextEncoder, load_published_text_encoder
from ppd_model.presets import Preset

DTYPES = ("float32", "bfloat16")
BASE_PARTS = ("stage_c", "text_encoder", "tokenizer", "stage_b", "stage_a")

HIDDEN_BY_SHAPES = {
    "stage_c": ("num_attention_heads", "self_attn"),
    "stage_b": ("num_attention_heads", "self_attn"),
    "stage_a": ("scale_factor",),
}


@dataclass(frozen=True)
class Generator:
    """What a pipeline is made of. ``sha256`` is one for all files that were read."""

    text_encoder: TextEncoder
    stage_c: StageC
    decoder: Decoder
    sha256: str


def generator_dtype(name: str | None, device: str) -> torch.dtype:
    """The dtype of that name; for None, bfloat16 on a GPU and float32 elsewhere.

    Raises ValueError for others: Stage C overflows in float16.
    """
    if name is None:
        return torch.bfloat16 if device.startswith("cuda") else torch.float32
    return named_dtype(name, DTYPES, "the generator")


def load_generator(
    preset: Preset, weights_dir: Path | None, *, dtype: torch.dtype, device: str = "cpu"
) -> Generator:
    """All parts of the base, straight to ``device``; Stage A in float32, the others as ``dtype``.

    Raises FileNotFoundError for what is missing, and ArtifactError for a file that is not what
    was pulled or holds other keys, shapes or settings than the preset's, naming them.
    """
    repositories = {part: locate(preset, part, weights_dir, dtype) for part in BASE_PARTS}
    digests = [repositories[part].sha256(preset.published[part], dtype) for part in BASE_PARTS]
    for part in HIDDEN_BY_SHAPES:
        check_config(preset, part, repositories[part])

    def weights(part: str) -> Any:
        return repositories[part].weights(preset.published[part], dtype)

    text_encoder = load_published_text_encoder(
        preset,
        repositories["text_encoder"].config(preset.published["text_encoder"]),
        weights("text_encoder"),
        repositories["tokenizer"].folder(preset.published["tokenizer"]),
        dtype=dtype,
        device=device,
    )
    stage_c = load_published_stage_c(preset, weights("stage_c"), dtype=dtype, device=device)
    decoder = load_published_decoder(
        preset, weights("stage_b"), weights("stage_a"), dtype=dtype, device=device
    )
    joint = hashlib.sha256("".join(digests).encode()).hexdigest()
    return Generator(text_encoder, stage_c, decoder, joint)


def check_config(preset: Preset, part: str, repository: Repository) -> None:
    """Raises ArtifactError where the published configuration contradicts the preset."""
    config = repository.config(preset.published[part])
    expected: Mapping[str, Any] = getattr(preset, part)
    for name in HIDDEN_BY_SHAPES[part]:
        found = config.get(name, expected[name])
        if _comparable(name, found, expected) != _comparable(name, expected[name], expected):
            path = repository.folder(preset.published[part])
            raise ArtifactError(f"{path}: {name} is {found!r}, expected {expected[name]!r}")


def _comparable(name: str, value: Any, expected: Mapping[str, Any]) -> Any:
    """Lists as tuples; one value for each level; heads only of the levels that attend."""
    levels = expected.get("block_types_per_layer")
    if levels is None:
        return value
    per_level = tuple(value) if isinstance(value, list | tuple) else (value,) * len(levels)
    if name != "num_attention_heads" or len(per_level) != len(levels):
        return per_level
    attends = ["SDCascadeAttnBlock" in level for level in levels]
    return tuple(heads for heads, here in zip(per_level, attends, strict=True) if here)
