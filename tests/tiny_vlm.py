"""A LLaVA-OneVision of a few thousand random weights, and one whose words are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from ppd_model import user_encoder
from ppd_model.types import LabelledPair
from ppd_model.user_encoder import UserEncoder
from training.pretrain.vlm.tokenizer import train_tokenizer

RESPONSE = "Pair 1: Image 1: dark. Image 2: bright.\n\nUser Profile: Prefers bright pictures."
SIDE_PX = 16


class Scripted(UserEncoder):
    """Says what it is told; everything after the generation is the real thing."""

    answers: Sequence[str] = (RESPONSE,)

    def _generate(self, inputs: dict[str, torch.Tensor], seeds: Sequence[int]) -> list[str]:
        rows = len(inputs["input_ids"])
        return [self.answers[row % len(self.answers)] for row in range(rows)]


def write_tokenizer(folder: Path) -> Path:
    path = folder / "vlm_tokenizer.json"
    train_tokenizer(["Prefers bright pictures.", "Avoids dark pictures.", "a house"], 300, path)
    return path


def make_model(tokenizer_path: Path, dim: int, std: float = 0.2) -> tuple:
    """Model and processor, always of the same random weights."""
    tokenizer = user_encoder.small_tokenizer(tokenizer_path)
    config = LlavaOnevisionConfig(
        vision_config=dict(
            model_type="siglip_vision_model",
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=SIDE_PX,
            patch_size=8,
            vision_use_head=False,
        ),
        text_config=dict(
            model_type="qwen2",
            vocab_size=len(tokenizer),
            hidden_size=dim,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            tie_word_embeddings=False,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[SIDE_PX, SIDE_PX]],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaOnevisionForConditionalGeneration(config)
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                torch.nn.init.normal_(parameter, std=std)
    processor = user_encoder.make_processor(
        tokenizer, user_encoder.small_image_processor(SIDE_PX), config
    )
    return model, processor


def make_encoder(
    tokenizer_path: Path,
    dim: int = 32,
    *,
    kind: type[UserEncoder] = UserEncoder,
    decoding: str = "greedy",
    variant: str = "paper",
) -> UserEncoder:
    model, processor = make_model(tokenizer_path, dim)
    return kind(
        model,
        processor,
        weights_id="tiny",
        prompt_variant=variant,
        decoding=decoding,
        max_new_tokens=12,
    )


def save_published(folder: Path, tokenizer_path: Path, dim: int, **how: object) -> None:
    """The model's folder as the hub has it; ``how`` goes to the library's saving."""
    model, processor = make_model(tokenizer_path, dim)
    model.save_pretrained(folder, **how)
    processor.tokenizer.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)


def picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    side_px = 20 + seed
    return Image.fromarray(rng.integers(0, 255, (side_px, 24, 3), dtype=np.uint8))


def four_choices(seed: int = 0, caption: str = "a house") -> list[LabelledPair]:
    return [
        LabelledPair(caption, picture(seed + 2 * i), picture(seed + 2 * i + 1), preferred=i % 2)
        for i in range(4)
    ]
