"""The world's rewards: mini's own text-picture alignment, and measured looks.

Alignment is what CLIP score is for the published models: the cosine, times 100, of the caption and
the picture in the space in which mini's text encoder was trained against pictures. Stage C's own
denoising error would be another measure of fit, but it would let the model that is trained judge
itself; and the content classifier is the judge of content elsewhere, so it must stay unoptimised.

Looks are read within the content that the prompt names, in standard deviations.

Legend: B pictures.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from ppd_model.nets.text_encoder import TextEncoder
from training.pretrain.text_encoder import PictureTower
from training.rewards.reward import Pictures, ScoresB, check_batch
from training.world.captions import SETTING_PHRASES, SUBJECT_WORDS
from training.world.looks import Standardizer, measure_all
from training.world.scene import LOOKS, SETTINGS, SUBJECTS, content_id


class AlignmentReward:
    """100 times the cosine of picture and caption, by mini's own text encoder."""

    name = "alignment"

    def __init__(self, identity: str, encoder: TextEncoder, tower: PictureTower) -> None:
        self.identity = identity
        self.encoder = encoder
        self.tower = tower

    @torch.inference_mode()
    def score(self, images_BHW3: Pictures, prompts: Sequence[str]) -> ScoresB:
        """How well each picture fits its prompt."""
        check_batch(images_BHW3, prompts)
        text_BD = normalize(self.encoder.encode(prompts).pooled_B1D[:, 0], dim=-1)
        cosine_B = (self.tower.read(images_BHW3) * text_BD).sum(-1)
        return np.asarray((100 * cosine_B).numpy(), dtype=np.float32)


class MeasuredLooks:
    """Looks of pictures, within the contents that their prompts name.

    Remembers the last batch: measuring takes milliseconds for each picture, and two rewards that
    ask about the same pictures ask one after the other.
    """

    def __init__(self, standardizer: Standardizer) -> None:
        self.standardizer = standardizer
        self._digest = b""
        self._statistics = np.empty((0, 0), dtype=np.float32)

    def __call__(self, images_BHW3: Pictures, prompts: Sequence[str]) -> NDArray[np.float32]:
        """B x L. Raises ValueError for a prompt that names no content."""
        content_B = contents_named(prompts)
        digest = hashlib.sha256(images_BHW3.tobytes()).digest()
        if digest != self._digest or len(images_BHW3) != len(self._statistics):
            self._statistics = measure_all(images_BHW3)
            self._digest = digest
        return self.standardizer.apply(self._statistics, content_B)


class LookReward:
    """One of the world's looks, in standard deviations within the content that is asked for."""

    def __init__(self, look: str, identity: str, measured: MeasuredLooks) -> None:
        if look not in LOOKS:
            raise ValueError(f"no look {look!r}; known: {', '.join(LOOKS)}")
        self.name = look
        self.identity = identity
        self.measured = measured

    def score(self, images_BHW3: Pictures, prompts: Sequence[str]) -> ScoresB:
        """The look of each picture. Raises ValueError for a prompt that names no content."""
        check_batch(images_BHW3, prompts)
        return self.measured(images_BHW3, prompts)[:, LOOKS.index(self.name)]


def contents_named(prompts: Sequence[str]) -> NDArray[np.int64]:
    """The content id that each prompt names. Raises ValueError as `content_named`."""
    return np.array([content_named(prompt) for prompt in prompts], dtype=np.int64)


@lru_cache(maxsize=4096)
def content_named(prompt: str) -> int:
    """The content, 0 to 47, that a caption of the world names.

    Raises ValueError unless it names exactly one subject and one setting.
    """
    subject = _only(_SUBJECTS, prompt, "subject")
    setting = _only(_SETTINGS, prompt, "setting")
    return content_id(SUBJECTS.index(subject), SETTINGS.index(setting))


def _patterns(phrases: Mapping[str, tuple[str, ...]]) -> dict[str, re.Pattern[str]]:
    return {
        name: re.compile(rf"\b(?:{'|'.join(map(re.escape, ways))})\b")
        for name, ways in phrases.items()
    }


_SUBJECTS = _patterns(SUBJECT_WORDS)
_SETTINGS = _patterns(SETTING_PHRASES)


def _only(patterns: Mapping[str, re.Pattern[str]], prompt: str, what: str) -> str:
    found = [name for name, pattern in patterns.items() if pattern.search(prompt.lower())]
    if len(found) != 1:
        raise ValueError(f"prompt {prompt!r} names {found or 'no ' + what}, expected one {what}")
    return found[0]
