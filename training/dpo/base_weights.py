"""The frozen base that an adapter is trained on: from this project's file, or as published."""

from __future__ import annotations

from pathlib import Path

import torch

from ppd_model.files.artifact import sha256_of
from ppd_model.files.repositories import locate
from ppd_model.nets.stage_c import StageC, load_published_stage_c, load_stage_c
from ppd_model.presets import Preset
from ppd_model.published import check_config

PART = "stage_c"


def load_base(
    preset: Preset, path: Path, dtype: torch.dtype, device: torch.device
) -> tuple[StageC, str]:
    """The base as `dtype` with a fresh float32 adapter, on `device`, and the files' sha256.

    `path` is a file for a preset whose weights are this project's; for a published one the folder
    that `ppd models pull` fills. Raises FileNotFoundError or ArtifactError for anything else.
    """
    if PART not in preset.published:
        stage_c = load_stage_c(preset, path)
        # diffusers' own `to` warns of modules to keep in float32, of which it then lists none
        torch.nn.Module.to(stage_c.unet, dtype)
        return stage_c.to(device), sha256_of(path)
    repository, part = locate(preset, PART, path, dtype), preset.published[PART]
    check_config(preset, PART, repository)
    digest = repository.sha256(part, dtype)
    weights = repository.weights(part, dtype)
    stage_c = load_published_stage_c(preset, weights, dtype=dtype, device=str(device))
    return stage_c, digest
