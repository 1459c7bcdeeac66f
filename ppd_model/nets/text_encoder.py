"""Prompts -> CLIP text tokens and pooled text, as Stable Cascade's own pipeline reads them.

Legend: B prompts, S tokens of one prompt, D embedding width.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import NFKC, Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ppd_model.files.artifact import ArtifactError, load_artifact, load_strict
from ppd_model.files.safetensor_files import WeightFiles, assign_weights, refuse_meta
from ppd_model.presets import Preset
from ppd_model.words import FRAMING_TOKENS, pictographs

# The end token must not be number 2: CLIPTextModel then pools at the largest id instead.
SPECIAL_TOKENS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]"}
END_TOKEN = {"eos_token": "[EOS]"}


@dataclass(frozen=True)
class TextFeatures:
    """``tokens_BSD``: last hidden states before the final norm; ``pooled_B1D``: projected end."""

    tokens_BSD: Tensor
    pooled_B1D: Tensor


class TextEncoder:
    """A CLIP text model and its tokenizer.

    Every prompt takes exactly ``max_tokens`` places: cut or padded, start and end included. What a
    person typed is text: a special token in it is read as the characters that it is written with.
    """

    def __init__(
        self, model: CLIPTextModelWithProjection, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        if len(tokenizer) != model.config.vocab_size:
            raise ArtifactError(
                f"tokenizer of {len(tokenizer)} tokens, "
                f"text model of {model.config.vocab_size}: they do not belong together"
            )
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._tokenizing = threading.Lock()
        self.max_tokens: int = model.config.max_position_embeddings

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """Features of the prompts, in the model's dtype and on its device, without gradient."""
        return self.features(*self.tokenize(prompts))

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, both B x S. What does not fit is cut: see ``unread``."""
        if not prompts:
            raise ValueError("no prompts to encode")
        batch = self._typed(
            list(prompts),
            padding="max_length",
            max_length=self.max_tokens,
            truncation=True,
            return_tensors="pt",
        )
        return batch.input_ids.to(self.model.device), batch.attention_mask.to(self.model.device)

    def features(self, ids_BS: Tensor, mask_BS: Tensor) -> TextFeatures:
        """Features of token ids; gradient flows where it is enabled."""
        output = self.model(ids_BS, attention_mask=mask_BS, output_hidden_states=True)
        return TextFeatures(output.hidden_states[-1], output.text_embeds.unsqueeze(1))

    def unknown_words(self, prompt: str) -> list[str]:
        """Words and pictographs of the prompt that are not known, in order, each once."""
        spans = self._spans(prompt)
        read = {place for _, start, end in spans for place in range(start, end)}
        unknown = [(s, e) for token, s, e in spans if token == self.tokenizer.unk_token_id]
        unknown += [(s, e) for s, e in pictographs(prompt) if read.isdisjoint(range(s, e))]
        return list(dict.fromkeys(prompt[start:end] for start, end in sorted(unknown)))

    def unread(self, prompt: str) -> str:
        """The end of the prompt that is cut off, or "" when all of it is read."""
        spans = self._spans(prompt)
        read = self._readable
        if len(spans) <= read:
            return ""
        _, start, _ = spans[read]
        return prompt[start:].strip()

    def tokens_read(self, prompt: str) -> int:
        """How many tokens of the prompt are read, start and end not counted."""
        return min(len(self._spans(prompt)), self._readable)

    @property
    def _readable(self) -> int:
        return self.max_tokens - FRAMING_TOKENS

    def _spans(self, prompt: str) -> list[tuple[int, int, int]]:
        """Token id, start and end in the prompt, of every token, cut or not."""
        batch = self._typed(
            prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [
            (token, start, end)
            for token, (start, end) in zip(batch.input_ids, batch.offset_mapping, strict=True)
        ]

    def _typed(self, texts: str | list[str], **how: Any) -> Any:
        """The tokens of what somebody typed: the one place where texts become tokens."""
        with self._tokenizing:  # how it pads, cuts and splits is a state of the tokenizer
            return self.tokenizer(texts, split_special_tokens=True, **how)


def word_tokenizer(words: Iterable[str], max_tokens: int) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each word, letter case and punctuation ignored.

    Other words become ``[UNK]``. The same words in any order give the same tokenizer.
    """
    vocabulary = [*SPECIAL_TOKENS.values(), *END_TOKEN.values()]
    vocabulary += sorted({word.lower() for word in words})
    ids = {word: number for number, word in enumerate(vocabulary)}
    start, end = SPECIAL_TOKENS["bos_token"], END_TOKEN["eos_token"]
    tokenizer = Tokenizer(WordLevel(ids, unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer = NormalizerSequence([NFKC(), Lowercase()])
    tokenizer.pre_tokenizer = Split(Regex(r"\W+"), behavior="removed")
    tokenizer.post_processor = TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, ids[start]), (end, ids[end])]
    )
    return _fast(tokenizer, max_tokens)


def load_word_tokenizer(path: Path, max_tokens: int) -> PreTrainedTokenizerFast:
    """The tokenizer that ``save_word_tokenizer`` wrote. Raises ArtifactError if unreadable."""
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer at {path}")
    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises a bare Exception
        raise ArtifactError(f"{path}: not a readable tokenizer: {error}") from error
    return _fast(tokenizer, max_tokens)


def save_word_tokenizer(tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """Write the tokenizer as one json file."""
    path.write_text(tokenizer.backend_tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")


def build_text_model(
    preset: Preset, tokenizer: PreTrainedTokenizerBase
) -> CLIPTextModelWithProjection:
    """The preset's text model for that tokenizer, without loaded weights."""
    tokens = dict(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = CLIPTextConfig(**preset.text_encoder | tokens)
    return CLIPTextModelWithProjection(config)


def load_text_encoder(
    preset: Preset, weights: Path, tokenizer: Path, *, sha256: str | None = None
) -> TextEncoder:
    """The text encoder of two files. Raises ArtifactError when they do not belong together."""
    words = load_word_tokenizer(tokenizer, preset.text_encoder["max_position_embeddings"])
    tensors, _ = load_artifact(
        weights, kind="text_encoder", sha256=sha256, base_model=preset.base_model
    )
    model = build_text_model(preset, words)
    load_strict(model, tensors)
    return TextEncoder(model, words)


def load_published_text_encoder(
    preset: Preset,
    config: Mapping[str, Any],
    weights: WeightFiles,
    tokenizer: Path,
    *,
    dtype: torch.dtype,
    device: str = "cpu",
) -> TextEncoder:
    """CLIP as it was published: its own configuration, which must agree with the preset's.

    Raises ArtifactError for another configuration, other keys or shapes, or a tokenizer that
    cannot be read or belongs to another model.
    """
    for name, expected in preset.text_encoder.items():
        if config.get(name, expected) != expected:
            raise ArtifactError(
                f"{weights.all_files[0]}: {name} is {config[name]!r}, expected {expected!r}"
            )
    full = CLIPTextConfig.from_dict({**config, **preset.text_encoder})
    with torch.device("meta"):
        model = CLIPTextModelWithProjection(full)
    places = model.text_model.embeddings.position_ids.shape
    assign_weights(
        model,
        weights,
        dtype=dtype,
        device=device,
        ignore={"text_model.embeddings.position_ids": tuple(places)},
    )
    model.text_model.embeddings.position_ids = torch.arange(places[1], device=device).expand(places)
    refuse_meta(model)
    return TextEncoder(model, load_published_tokenizer(tokenizer, full.max_position_embeddings))


def load_published_tokenizer(folder: Path, max_tokens: int) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder in the hub's layout. Raises FileNotFoundError or ArtifactError."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no tokenizer at {folder}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder}: not a readable tokenizer: {error}") from error
    tokenizer.model_max_length = max_tokens
    return tokenizer


def _fast(tokenizer: Tokenizer, max_tokens: int) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_tokens, **SPECIAL_TOKENS, **END_TOKEN
    )
