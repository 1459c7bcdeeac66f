"""Check published weights on this machine without loading them: files, sha256, keys, shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
)

from ppd_model.files.artifact import ArtifactError, refuse_other_keys, shapes_of
from ppd_model.files.repositories import Repository, locate
from ppd_model.nets.compressor import build_compressor
from ppd_model.nets.decoder import build_decoder
from ppd_model.nets.previewer import build_previewer
from ppd_model.nets.stage_c import build_unet
from ppd_model.presets import Preset
from ppd_model.published import HIDDEN_BY_SHAPES, check_config

Shapes = dict[str, tuple[int, ...]]

# LLaVA-OneVision's published keys, and what the library calls them now.
_VLM_NAMES = (
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^vision_tower\.vision_model\.", "model.vision_tower."),
    (r"^(vision_tower|multi_modal_projector|image_newline)", r"model.\1"),
)


@dataclass(frozen=True)
class Verified:
    """One part that is as it should be. ``commit`` is "" where no lock says which it is."""

    part: str
    keys: int
    parameters: int
    size_bytes: int
    commit: str


def verify_part(
    preset: Preset, part: str, folder: Path, dtype: torch.dtype, *, hashes: bool = True
) -> Verified:
    """Check that the files are there, are what was pulled, and hold the preset's keys and shapes.

    Without ``hashes`` contents are not read, headers alone. Raises FileNotFoundError, or
    ArtifactError that names the file and what is wrong with it.
    """
    published = preset.published[part]
    repository = locate(preset, part, folder, dtype)
    files = repository.files(published, dtype)
    if not files:
        raise FileNotFoundError(f"no files of {part} in {repository.folder(published)}")
    if hashes:
        repository.sha256(published, dtype)
    expected: Shapes = {}
    if published.stem:
        found = repository.weights(published, dtype).shapes()
        expected = expected_shapes(preset, part, repository)
        if part == "vlm":
            found = {_vlm_name(key): shape for key, shape in found.items()}
            _drop_tied(expected, found, repository.config(published))
        elif part == "text_encoder":
            found.pop("text_model.embeddings.position_ids", None)
        name = str(repository.weights(published, dtype).all_files[0])
        refuse_other_keys(name, expected, found)
    if part in HIDDEN_BY_SHAPES:
        check_config(preset, part, repository)
    if part == "vlm":
        _refuse_other_width(preset, repository)
    return Verified(
        part,
        len(expected),
        sum(math.prod(shape) for shape in expected.values()),
        sum(path.stat().st_size for path in files),
        repository.commit,
    )


def expected_shapes(preset: Preset, part: str, repository: Repository | None = None) -> Shapes:
    """Key -> shape of a part at the preset's size, found on the meta device.

    The VLM's size is that of the configuration in ``repository``.
    """
    makers: dict[str, Callable[[], nn.Module]] = {
        "stage_c": lambda: build_unet(preset),
        "stage_b": lambda: build_decoder(preset).stage_b,
        "stage_a": lambda: build_decoder(preset).stage_a,
        "text_encoder": lambda: CLIPTextModelWithProjection(CLIPTextConfig(**preset.text_encoder)),
        "compressor": lambda: build_compressor(preset),
        "previewer": lambda: build_previewer(preset),
        "vlm": lambda: LlavaOnevisionForConditionalGeneration(_vlm_config(preset, repository)),
    }
    if part not in makers:
        raise ValueError(f"{part} has no weights; known: {', '.join(makers)}")
    with torch.device("meta"):
        return shapes_of(makers[part]().state_dict())


def _vlm_config(preset: Preset, repository: Repository | None) -> LlavaOnevisionConfig:
    if repository is None:
        raise ValueError("the VLM's size is in its repository")
    return LlavaOnevisionConfig.from_dict(repository.config(preset.published["vlm"]))


def _refuse_other_width(preset: Preset, repository: Repository) -> None:
    """Raises ArtifactError for a VLM whose embeddings are not as wide as the preset's adapters."""
    width = _vlm_config(preset, repository).text_config.hidden_size
    if width != preset.user_emb_dim:
        folder = repository.folder(preset.published["vlm"])
        raise ArtifactError(
            f"{folder}: the VLM's hidden size is {width}, preset {preset.name} expects "
            f"{preset.user_emb_dim}"
        )


def _vlm_name(published: str) -> str:
    for pattern, replacement in _VLM_NAMES:
        renamed = re.sub(pattern, replacement, published)
        if renamed != published:
            return renamed
    return published


def _drop_tied(expected: Shapes, found: Shapes, config: dict[str, object]) -> None:
    """Where output weights are the input weights, they may be left out of the file."""
    text = config.get("text_config")
    tied = config.get("tie_word_embeddings") or (
        isinstance(text, dict) and text.get("tie_word_embeddings")
    )
    if tied and "lm_head.weight" not in found:
        expected.pop("lm_head.weight", None)
