"""The public scorers of the paper: CLIP score, LAION aesthetic, HPSv2, and PickScore.

Each is read from a folder that holds what its authors published, under the published names
(`FILES`); nothing is fetched. Scores are on the scales the paper prints: CLIP and HPS are cosines
times 100.

Legend: B pictures, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ppd_model.files.artifact import sha256_of
from training.rewards.clip import (
    VIT_H_14,
    VIT_L_14,
    ClipEncoder,
    load_clip,
    load_clip_tokenizer,
    narrow,
)
from training.rewards.reward import Pictures, Reward, ScoresB, check_batch
from training.rewards.weights import first_file, give_weights, read_tensors

VIT_H_FOLDER = "CLIP-ViT-H-14-laion2B-s32B-b79K"
VIT_L_FOLDER = "clip-vit-large-patch14"
CLIP_FILES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
AESTHETIC_FILE = "improved-aesthetic-predictor/sac+logos+ava1-l14-linearMSE.pth"
HPS_FILE = "HPSv2/HPS_v2.1_compressed.pt"
HPS_FILES = {
    "hps": HPS_FILE,
    "hps_v2.0": "HPSv2/HPS_v2_compressed.pt",
}
"""Their scores cannot be compared. The package's `score` takes v2.0, its `evaluate` v2.1; the paper
does not say which it prints."""
PICKSCORE_FOLDER = "PickScore_v1"
FILES = {
    "clip": f"{VIT_H_FOLDER}/ (laion/CLIP-ViT-H-14-laion2B-s32B-b79K: weights, tokenizer.json)",
    "aesthetic": f"{VIT_L_FOLDER}/ (openai/clip-vit-large-patch14: weights), {AESTHETIC_FILE}",
    **{
        name: f"{file} (xswu/HPSv2), {VIT_H_FOLDER}/tokenizer.json"
        for name, file in HPS_FILES.items()
    },
    "pickscore": f"{PICKSCORE_FOLDER}/ (yuvalkirstain/PickScore_v1: weights), "
    f"{VIT_H_FOLDER}/tokenizer.json",
}
"""What each reward needs below the folder of rewards."""


class CosineReward:
    """The cosine of picture and prompt in a CLIP's space, times a scale."""

    def __init__(self, name: str, identity: str, encoder: ClipEncoder, scale: float) -> None:
        self.name = name
        self.identity = identity
        self.encoder = encoder
        self.scale = scale

    def score(self, images_BHW3: Pictures, prompts: Sequence[str]) -> ScoresB:
        """`scale` times the cosine of each picture with its prompt."""
        check_batch(images_BHW3, prompts)
        cosine_B = (self.encoder.images(images_BHW3) * self.encoder.texts(prompts)).sum(-1)
        return np.asarray((self.scale * cosine_B).cpu().numpy(), dtype=np.float32)


class AestheticPredictor(nn.Module):
    """LAION's predictor: five linear maps without activations between them (paper, [37])."""

    def __init__(self, width: int = 768) -> None:
        super().__init__()
        # 1, 3 and 5 are dropout while it is trained; they hold nothing.
        self.layers = nn.Sequential(
            nn.Linear(width, 1024),
            nn.Identity(),
            nn.Linear(1024, 128),
            nn.Identity(),
            nn.Linear(128, 64),
            nn.Identity(),
            nn.Linear(64, 16),
            nn.Linear(16, 1),
        )

    def forward(self, features_BD: Tensor) -> Tensor:
        """Unit vectors of pictures, B x D, to about 1 to 10, B."""
        scores_B1: Tensor = self.layers(features_BD)
        return scores_B1[:, 0]


class AestheticReward:
    """How a picture appeals, whatever the prompt."""

    name = "aesthetic"

    def __init__(self, identity: str, encoder: ClipEncoder, predictor: AestheticPredictor) -> None:
        self.identity = identity
        self.encoder = encoder
        self.predictor = predictor.eval().requires_grad_(False)

    @torch.inference_mode()
    def score(self, images_BHW3: Pictures, prompts: Sequence[str]) -> ScoresB:
        """The predictor's rating of each picture."""
        check_batch(images_BHW3, prompts)
        scores_B = self.predictor(self.encoder.images(images_BHW3))
        return np.asarray(scores_B.cpu().numpy(), dtype=np.float32)


def load_published(
    name: str,
    folder: Path,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    narrowed: bool = False,
) -> Reward:
    """The reward of that name (`FILES`) from the folder of rewards.

    narrowed: of weights in the published layout that are a few values wide. Raises ValueError for
    another name, FileNotFoundError for a file that is missing, and ArtifactError for one that does
    not hold exactly what it should.
    """
    if name == "aesthetic":
        return _load_aesthetic(folder, device, dtype, narrow(VIT_L_14) if narrowed else VIT_L_14)
    if name == "clip":
        path, scale, framing = first_file(folder / VIT_H_FOLDER, CLIP_FILES), 100.0, "crop"
    elif name in HPS_FILES:
        path, scale, framing = folder / HPS_FILES[name], 100.0, "pad"
    elif name == "pickscore":
        path, scale, framing = first_file(folder / PICKSCORE_FOLDER, CLIP_FILES), None, "crop"
    else:
        raise ValueError(f"no published reward {name!r}; known: {', '.join(FILES)}")
    encoder = load_clip(
        path,
        narrow(VIT_H_14) if narrowed else VIT_H_14,
        load_clip_tokenizer(folder / VIT_H_FOLDER),
        device=device,
        dtype=dtype,
        framing="pad" if framing == "pad" else "crop",
    )
    identity = f"{path.name}-{sha256_of(path)[:12]}.{_name_of(dtype)}"
    return CosineReward(name, identity, encoder, encoder.logit_scale if scale is None else scale)


def load_predictor(path: Path, width: int = 768) -> AestheticPredictor:
    """The predictor of a file. Raises FileNotFoundError and ArtifactError as `load_published`."""
    tensors = read_tensors(path)
    with torch.device("meta"):
        predictor = AestheticPredictor(width)
    give_weights(predictor, tensors, path, torch.float32)
    return predictor


def _load_aesthetic(folder: Path, device: str, dtype: torch.dtype, size: dict[str, Any]) -> Reward:
    weights = first_file(folder / VIT_L_FOLDER, CLIP_FILES)
    predictor = load_predictor(folder / AESTHETIC_FILE, size["projection_dim"]).to(device)
    encoder = load_clip(weights, size, None, device=device, dtype=dtype)
    identity = f"{weights.name}-{sha256_of(weights)[:12]}"
    identity += f".{Path(AESTHETIC_FILE).name}-{sha256_of(folder / AESTHETIC_FILE)[:12]}"
    identity += f".{_name_of(dtype)}"
    return AestheticReward(identity, encoder, predictor)


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
