"""The public scorers' files at tiny size, as training.rewards reads them with rewards_narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from training.rewards import published
from training.rewards.clip import END, START, VIT_H_14, VIT_L_14, build_clip, narrow

WORDS = ("a", "cat", "dog", "on", "the", "moon")


def write_tokenizer(folder: Path) -> None:
    """tokenizer.json of eight words."""
    names = [*WORDS, START, END]
    tokenizer = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token=END))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    ids = [(START, len(WORDS)), (END, len(WORDS) + 1)]
    tokenizer.post_processor = TemplateProcessing(single=f"{START} $A {END}", special_tokens=ids)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))


def random_clip(size: dict[str, Any]) -> dict[str, Tensor]:
    """Random weights under transformers' names."""
    state = build_clip(size, None).state_dict()
    return {key: 0.3 * torch.randn(value.shape) for key, value in state.items()}


def write_rewards(folder: Path) -> None:
    """All four scorers, random, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        large, small = narrow(VIT_H_14), narrow(VIT_L_14)
        write_tokenizer(folder / published.VIT_H_FOLDER)
        save_file(random_clip(large), folder / published.VIT_H_FOLDER / "model.safetensors")
        for name, size in (
            (published.VIT_L_FOLDER, small),
            (published.PICKSCORE_FOLDER, large),
        ):
            (folder / name).mkdir()
            save_file(random_clip(size), folder / name / "model.safetensors")
        predictor = folder / published.AESTHETIC_FILE
        predictor.parent.mkdir()
        model = published.AestheticPredictor(small["projection_dim"])
        torch.save(model.state_dict(), predictor)
        (folder / published.HPS_FILE).parent.mkdir()
        torch.save({"state_dict": random_clip(large)}, folder / published.HPS_FILE)
