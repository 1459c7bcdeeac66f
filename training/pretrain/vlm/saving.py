"""The VLM's file, as ppd_model.user_encoder reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from ppd_model.files.artifact import ArtifactSpec, save_artifact, sha256_of
from ppd_model.presets import get_preset
from ppd_model.user_encoder import TOKENIZER_FILE, VLM_FILE


def save_vlm(
    folder: Path,
    model: LlavaOnevisionForConditionalGeneration,
    tokenizer_path: Path,
    read: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> str:
    """Write fp16 weights and the tokenizer; returns the weights' sha256.

    ``read`` is what its reader is told beside the model's configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TOKENIZER_FILE).write_bytes(tokenizer_path.read_bytes())
    spec = ArtifactSpec(
        kind="vlm",
        config={"model": model_config_dict(model.config), **read},
        base_model=get_preset("mini").base_model,
        extra={"tokenizer_sha256": sha256_of(tokenizer_path), **extra},
    )
    return save_artifact(folder / VLM_FILE, model.state_dict(), spec, dtype=torch.float16)


def model_config_dict(config: LlavaOnevisionConfig) -> dict[str, Any]:
    """What rebuilds the configuration: plain values that differ from the classes' defaults."""
    plain: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    for name in ("transformers_version", "architectures", "dtype"):
        plain.pop(name, None)
    return plain
