"""The text encoder of mini, trained before Stage C: captions against pictures.

Trained jointly with Stage C, a small text encoder neglects the subject of a caption. So it learns
first, contrastively against small pictures as CLIP does (captions of the same content are all
right answers), with two further demands: the pooled text must name subject and setting, and each
token's feature, which Stage C attends to, must still tell its word.

``python -m training.pretrain.text_encoder --config training/configs/mini_text_encoder.yaml``
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ppd_model.nets.text_encoder import (
    TextEncoder,
    build_text_model,
    save_word_tokenizer,
    word_tokenizer,
)
from ppd_model.presets import get_preset
from training.jobs.command_line import run_job
from training.pretrain.pictures import HELD_OUT, draw_indices, to_tensor
from training.pretrain.training_loop import LoopConfig, load_averaged, run
from training.world.captions import SETTING_PHRASES, SUBJECT_WORDS, caption, vocabulary
from training.world.scene import CONTENTS, SETTINGS, SUBJECTS
from training.world.store import PictureStore


class TextEncoderConfig(LoopConfig):
    """The loop's options, and the text encoder's own."""

    world: Path
    """Pictures that training.world.store painted."""
    temperature: float = 0.1
    """Of the contrastive loss."""
    unknown_share: float = 0.05
    """Share of words replaced by an unknown one, so that ``[UNK]`` is read as nothing much."""


PICTURE_CHANNELS = (32, 64, 96)


class PictureTower(nn.Sequential):
    """Three strided convolutions and a linear map: pictures of 32 x 32 to the text's space."""

    def __init__(self, width: int) -> None:
        layers: list[nn.Module] = []
        channels = 3
        for wider in PICTURE_CHANNELS:
            layers += [nn.Conv2d(channels, wider, kernel_size=3, stride=2, padding=1), nn.GELU()]
            channels = wider
        side = 32 // 2 ** len(PICTURE_CHANNELS)
        super().__init__(*layers, nn.Flatten(), nn.Linear(channels * side * side, width))

    @torch.inference_mode()
    def read(self, images_BHW3: NDArray[np.uint8]) -> Tensor:
        """Unit vectors of uint8 pictures of 128 x 128, B x D."""
        vectors_BD: Tensor = self(_small(images_BHW3))
        return nn.functional.normalize(vectors_BD, dim=-1)


class _Reader(nn.Module):
    """Picture side and read-outs: used in training only."""

    def __init__(self, width: int, words: int) -> None:
        super().__init__()
        self.picture = PictureTower(width)
        self.content = nn.Linear(width, len(SUBJECTS) + len(SETTINGS))
        self.word = nn.Linear(width, words)


class TextEncoderJob:
    """Contrast, naming, and word identity."""

    def __init__(self, config: TextEncoderConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.store = PictureStore(config.world)
        self.encoder = new_text_encoder()
        save_word_tokenizer(self.encoder.tokenizer, config.out / "text_tokenizer.json")
        self.content_word_ids = torch.tensor(_content_word_ids(self.encoder))
        width = self.encoder.model.config.projection_dim
        self.reader = _Reader(width, len(self.encoder.tokenizer))
        self.modules: Mapping[str, nn.Module] = {
            "text_encoder": self.encoder.model,
            "reader": self.reader,
        }

    def loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        indices = draw_indices(len(self.store) - HELD_OUT, self.config.batch, generator)
        content = torch.from_numpy(self.store.content[indices])
        ids, mask = self.encoder.tokenize(_captions(self.store.content[indices], generator))
        features = self.encoder.features(self._with_unknown_words(ids, generator), mask)
        text = features.pooled_B1D[:, 0]
        picture = self.reader.picture(_small(self.store.pictures[indices]))
        similarity = nn.functional.normalize(text) @ nn.functional.normalize(picture).T
        same = (content[:, None] == content[None, :]).float()
        target = same / same.sum(dim=1, keepdim=True)
        logits = similarity / self.config.temperature
        cross_entropy = nn.functional.cross_entropy
        contrast = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
        subject, setting = self.reader.content(text).split([len(SUBJECTS), len(SETTINGS)], dim=1)
        naming = cross_entropy(subject, content // len(SETTINGS)) + cross_entropy(
            setting, content % len(SETTINGS)
        )
        said = self.reader.word(features.tokens_BSD)
        words = cross_entropy(said[mask.bool()], ids[mask.bool()])
        numbers = {"contrast": contrast.item(), "naming": naming.item(), "words": words.item()}
        return contrast + naming + words, numbers

    def measure(self, averaged: Mapping[str, Any]) -> dict[str, float]:
        """How often the pooled text names subject and setting, and picks its picture's content."""
        generator = torch.Generator().manual_seed(1)
        content_N = self.store.content[-480:]
        encoder = TextEncoder(averaged["text_encoder"], self.encoder.tokenizer)
        text = encoder.encode(_captions(content_N, generator)).pooled_B1D[:, 0]
        with torch.no_grad():
            said = averaged["reader"].content(text)
            picture = averaged["reader"].picture(_small(self.store.pictures[-480:]))
        nearest = (nn.functional.normalize(text) @ nn.functional.normalize(picture).T).argmax(1)
        content = torch.from_numpy(content_N)
        return {
            "subject": float((said[:, :8].argmax(1) == content // len(SETTINGS)).float().mean()),
            "setting": float((said[:, 8:].argmax(1) == content % len(SETTINGS)).float().mean()),
            "retrieval": float((content[nearest] == content).float().mean()),
        }

    def grid(self, averaged: Mapping[str, Any]) -> NDArray[np.uint8]:
        """Similarity of one caption of every content (rows) with every other, as grey levels."""
        generator = torch.Generator().manual_seed(2)
        encoder = TextEncoder(averaged["text_encoder"], self.encoder.tokenizer)
        captions = _captions(np.arange(CONTENTS), generator)
        text = nn.functional.normalize(encoder.encode(captions).pooled_B1D[:, 0])
        grey = ((text @ text.T).clamp(0, 1) * 255).to(torch.uint8).numpy()
        return np.repeat(np.repeat(grey, 8, 0), 8, 1)[..., None].repeat(3, axis=2)

    def _with_unknown_words(self, ids_BS: Tensor, generator: torch.Generator) -> Tensor:
        tokenizer = self.encoder.tokenizer
        common = torch.rand(ids_BS.shape, generator=generator) < self.config.unknown_share
        special = torch.isin(ids_BS, torch.tensor(tokenizer.all_special_ids))
        content_words = torch.isin(ids_BS, self.content_word_ids)
        return ids_BS.masked_fill(common & ~special & ~content_words, tokenizer.unk_token_id)


def new_text_encoder() -> TextEncoder:
    """mini's text encoder, untrained, with the world's vocabulary."""
    preset = get_preset("mini")
    tokenizer = word_tokenizer(vocabulary(), preset.text_encoder["max_position_embeddings"])
    return TextEncoder(build_text_model(preset, tokenizer), tokenizer)


def trained_text_encoder(out: Path) -> TextEncoder:
    """The averaged text encoder of a run of this job."""
    encoder = new_text_encoder()
    load_averaged(out, "text_encoder", encoder.model)
    return encoder


def _captions(content_N: NDArray[np.int64], generator: torch.Generator) -> list[str]:
    seed = int(torch.randint(2**31, (), generator=generator))
    rng = np.random.default_rng(seed)
    return [caption(int(c) // len(SETTINGS), int(c) % len(SETTINGS), rng) for c in content_N]


def _content_word_ids(encoder: TextEncoder) -> list[int]:
    groups = (*SUBJECT_WORDS.values(), *SETTING_PHRASES.values())
    return sorted({i for words in groups for word in words for i in encoder.tokenizer.encode(word)})


def _small(pictures: NDArray[np.uint8]) -> Tensor:
    return nn.functional.avg_pool2d(to_tensor(pictures), 4)


def main(config: TextEncoderConfig, resume: bool) -> None:
    config.out.mkdir(parents=True, exist_ok=True)
    run(TextEncoderJob(config), config, resume)


if __name__ == "__main__":
    run_job(main, TextEncoderConfig, __doc__)
