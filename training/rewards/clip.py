"""CLIP as scorers use it: pictures and prompts to unit vectors of one space.

Legend: B rows, D embedding, H W sides in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from training.rewards.open_clip_keys import is_open_clip, to_transformers
from training.rewards.reward import Pictures
from training.rewards.weights import give_weights, read_tensors

Framing = Literal["crop", "pad"]
"""A picture that is not square: its middle square, or all of it between black bars."""

VIT_H_14: dict[str, Any] = {
    "projection_dim": 1024,
    "text_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "hidden_act": "gelu",
    },
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
        "hidden_act": "gelu",
    },
}
"""OpenCLIP's ViT-H/14, also that of HPSv2 and PickScore."""

VIT_L_14: dict[str, Any] = {
    "projection_dim": 768,
    "text_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
    },
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
        "hidden_act": "quick_gelu",
    },
}
"""OpenAI's ViT-L/14."""

_NARROW = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def narrow(size: dict[str, Any]) -> dict[str, Any]:
    """The same files with layers a few values wide, for rehearsals and tests on random weights."""
    text = {"vocab_size": 8, "max_position_embeddings": 16}
    return {
        "projection_dim": size["projection_dim"] // 64,
        "text_config": size["text_config"] | _NARROW | text,
        "vision_config": size["vision_config"] | _NARROW | {"image_size": 28},
    }


MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
TOKENIZER_FILE = "tokenizer.json"
START, END = "<|startoftext|>", "<|endoftext|>"
OLD_BUFFERS = (
    "text_model.embeddings.position_ids",
    "vision_model.embeddings.position_ids",
)
"""0, 1, 2, ...: in files that older versions of transformers wrote."""


class ClipEncoder:
    """A CLIPModel with its tokenizer."""

    def __init__(
        self, model: CLIPModel, tokenizer: PreTrainedTokenizerBase | None, framing: Framing = "crop"
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.framing = framing

    @torch.inference_mode()
    def images(self, images_BHW3: Pictures) -> Tensor:
        """Unit vectors of uint8 pictures, B x D, float32."""
        side_px = int(self.model.config.vision_config.image_size)
        pixels_B3HW = torch.stack([frame(image, side_px, self.framing) for image in images_BHW3])
        pixels_B3HW = pixels_B3HW.to(self.model.device, self.model.dtype)
        features_BD: Tensor = self.model.get_image_features(pixel_values=pixels_B3HW).pooler_output
        return normalize(features_BD.float(), dim=-1)

    @torch.inference_mode()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors of prompts, B x D, float32; what does not fit 77 tokens is cut."""
        if self.tokenizer is None:
            raise ValueError("this scorer was loaded without a tokenizer: it reads pictures only")
        ids_BS = self.tokenizer(
            list(prompts),
            split_special_tokens=True,  # what somebody typed is text
            padding="max_length",
            max_length=self.model.config.text_config.max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        # Attention looks back only and the state at the first end token is read: what pads the
        # row behind it changes nothing.
        features_BD: Tensor = self.model.get_text_features(
            input_ids=ids_BS.to(self.model.device)
        ).pooler_output
        return normalize(features_BD.float(), dim=-1)

    @property
    def logit_scale(self) -> float:
        """The factor before the softmax that the model was trained with."""
        return float(self.model.logit_scale.exp())


def build_clip(size: dict[str, Any], tokenizer: PreTrainedTokenizerBase | None) -> CLIPModel:
    """A CLIPModel of that size on the meta device: names and shapes, and no memory."""
    text: dict[str, Any] = dict(size["text_config"])
    # The end token is where the text is read off; 49407 is CLIP's.
    end = text["vocab_size"] - 1 if tokenizer is None else tokenizer.eos_token_id
    text |= {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end}
    with torch.device("meta"):
        return CLIPModel(CLIPConfig(**(size | {"text_config": text})))


def load_clip(
    path: Path,
    size: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    framing: Framing = "crop",
) -> ClipEncoder:
    """A CLIP from one file under transformers' or open_clip's names.

    Raises FileNotFoundError, ArtifactError for a file that does not hold exactly this model, and
    ValueError for a tokenizer with another number of tokens.
    """
    if tokenizer is not None and len(tokenizer) != size["text_config"]["vocab_size"]:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens, the model reads "
            f"{size['text_config']['vocab_size']}"
        )
    tensors = read_tensors(path)
    if is_open_clip(tensors):
        tensors = to_transformers(tensors, path)
    tensors = {key: value for key, value in tensors.items() if key not in OLD_BUFFERS}
    model = build_clip(size, tokenizer)
    give_weights(model, tensors, path, dtype)
    for part in (model.text_model.embeddings, model.vision_model.embeddings):
        part.position_ids = torch.arange(part.position_embedding.num_embeddings)[None]
    model.to(device)
    return ClipEncoder(model, tokenizer, framing)


def load_clip_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """CLIP's tokenizer from its tokenizer.json. Raises FileNotFoundError when there is none."""
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer at {path}")
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path), bos_token=START, eos_token=END, pad_token=END, unk_token=END
    )


def frame(image_HW3: Pictures, side_px: int, framing: Framing) -> Tensor:
    """The picture as CLIP sees it: scaled (bicubic), square, normalised; 3 x side x side."""
    image = Image.fromarray(image_HW3)
    edge = min(image.size) if framing == "crop" else max(image.size)
    width, height = (max(1, round(length * side_px / edge)) for length in image.size)
    scaled = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side_px) // 2, (height - side_px) // 2
    # Outside of the picture, `crop` gives black.
    square = scaled.crop((left, top, left + side_px, top + side_px))
    pixels_HW3 = np.asarray(square, dtype=np.float32) / 255
    normal_HW3 = (pixels_HW3 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(normal_HW3).permute(2, 0, 1)
