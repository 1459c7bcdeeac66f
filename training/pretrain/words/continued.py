"""The VLM that is continued: its weights under a tokenizer that knows more words.

Legend: V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

from ppd_model import prompts
from ppd_model.files.artifact import load_artifact, load_strict
from ppd_model.presets import get_preset
from ppd_model.user_encoder import TOKENIZER_FILE, VLM_FILE, small_tokenizer
from training.pretrain.vlm.examples import tokenizer_sentences
from training.pretrain.words import statements

SENTENCES = 4000
STATEMENTS_EACH = 6


def sentences(seed: int) -> Iterator[str]:
    """What the tokenizer is learned from: the VLM's own sentences, and people's statements."""
    rng = np.random.default_rng((seed, 7))
    yield from tokenizer_sentences(SENTENCES, seed)
    for _ in range(STATEMENTS_EACH * SENTENCES):
        yield f" {statements.typed(rng).text}"


def continued_model(folder: Path, tokenizer_path: Path) -> LlavaOnevisionForConditionalGeneration:
    """The VLM of that folder with a row for each token of the new tokenizer.

    A token that the old tokenizer has keeps its rows; a new one starts at the mean of the old
    tokens that spell it.
    """
    base_model = get_preset("mini").base_model
    tensors, spec = load_artifact(folder / VLM_FILE, kind="vlm", base_model=base_model)
    old, new = small_tokenizer(folder / TOKENIZER_FILE), small_tokenizer(tokenizer_path)
    spelled = spelled_by(old, new)
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.stack([tensors[name][ids].mean(dim=0) for ids in spelled])
    model_config = dict(spec.config["model"])
    model_config["text_config"] = {
        **model_config["text_config"],
        "vocab_size": len(spelled),
        "eos_token_id": new.eos_token_id,
        "pad_token_id": new.pad_token_id,
    }
    model_config["image_token_index"] = new.convert_tokens_to_ids(prompts.IMAGE_TOKEN)
    model_config["video_token_index"] = new.convert_tokens_to_ids("<video>")
    model = LlavaOnevisionForConditionalGeneration(LlavaOnevisionConfig(**model_config))
    load_strict(model, {name: tensor.float() for name, tensor in tensors.items()})
    return model


def spelled_by(old: Any, new: Any) -> list[list[int]]:
    """For each token of the new tokenizer, the old tokens that stand for it."""
    known = old.get_vocab()
    spelled = []
    for token in new.convert_ids_to_tokens(list(range(len(new)))):
        if token in known:
            spelled.append([known[token]])
        else:
            text = new.convert_tokens_to_string([token])
            spelled.append(old(text)["input_ids"])
    return spelled


def parameters_of(model: LlavaOnevisionForConditionalGeneration) -> nn.ModuleDict:
    """What is trained: the language model and its head; how pictures come in stays."""
    model.requires_grad_(False)
    trained = nn.ModuleDict({"language": model.model.language_model, "lm_head": model.lm_head})
    trained.requires_grad_(True)
    return trained
