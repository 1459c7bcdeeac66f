"""Weights under open_clip's names, as transformers' CLIPModel names them.

open_clip keeps query, key and value of a block in one matrix, and its projections the other way
round; everything else differs in name only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ppd_model.files.artifact import ArtifactError

MARK = "visual.conv1.weight"
"""A key that every open_clip vision transformer has, and no CLIPModel."""

_SAME = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TURNED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
_TOWERS = {"": "text_model", "visual.": "vision_model"}
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_BLOCK = re.compile(r"(visual\.|)transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)")


def is_open_clip(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names are open_clip's."""
    return MARK in tensors


def to_transformers(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The same weights under CLIPModel's names.

    Raises ArtifactError that names every key (up to three) that open_clip does not have.
    """
    renamed: dict[str, Tensor] = {}
    unknown: list[str] = []
    for key, value in tensors.items():
        block = _BLOCK.fullmatch(key)
        if key in _SAME:
            renamed[_SAME[key]] = value
        elif key in _TURNED:
            renamed[_TURNED[key]] = value.T.contiguous()
        elif block is None:
            unknown.append(key)
        else:
            tower, number, part, kind = block.groups()
            prefix = f"{_TOWERS[tower]}.encoder.layers.{number}"
            if part in _IN_BLOCK:
                renamed[f"{prefix}.{_IN_BLOCK[part]}.{kind}"] = value
            elif part == "attn.in_proj":
                for name, piece in zip(("q", "k", "v"), value.chunk(3), strict=True):
                    renamed[f"{prefix}.self_attn.{name}_proj.{kind}"] = piece.contiguous()
            else:
                unknown.append(key)
    if unknown:
        raise ArtifactError(f"{path}: {len(unknown)} keys unknown {sorted(unknown)[:3]}")
    return renamed
