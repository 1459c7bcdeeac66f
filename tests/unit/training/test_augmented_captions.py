"""How much of an appended profile the text encoder reads, and what pictures lose by it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ppd_model.nets.text_encoder import TextEncoder, load_text_encoder
from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.presets import get_preset
from training.augmented_captions.__main__ import AugmentedConfig, compared, format_table, plot
from training.augmented_captions.pickapic import compared as compared_by_rewards
from training.augmented_captions.text import augmented, reading
from training.evaluate.painting import Prompt, Shown

PROFILE = "Prefers sunny scenes, warm golden tones and dark corners. Avoids thick outlines."


@pytest.fixture(scope="module")
def text_encoder() -> TextEncoder:
    return load_text_encoder(
        get_preset("mini"),
        MINI_WEIGHTS_DIR / "text_encoder.safetensors",
        MINI_WEIGHTS_DIR / "text_tokenizer.json",
    )


def test_minis_text_encoder_does_not_know_the_words_of_a_profile(
    text_encoder: TextEncoder,
) -> None:
    read = reading(text_encoder, ["a boat at the sea"], [PROFILE])
    assert read["known"] < 0.2
    assert read["understood"] < 0.5
    assert read["caption_cut"] == 0


def test_words_that_are_known_and_fit_are_read_whole(text_encoder: TextEncoder) -> None:
    read = reading(text_encoder, ["a boat"], ["a house at night"])
    assert (read["known"], read["reached"], read["understood"], read["cut"]) == (1, 1, 1, 0)


def test_what_does_not_fit_is_counted_as_not_reached(text_encoder: TextEncoder) -> None:
    read = reading(text_encoder, ["a boat"], ["night " * 40])
    assert read["cut"] == 1
    assert 0.3 < read["reached"] < 0.7


def test_the_profile_stands_behind_the_caption() -> None:
    assert augmented("a boat", "Prefers fog.") == "a boat. Prefers fog."


def shown(looks: np.ndarray, named: list[int]) -> Shown:
    pictures = np.zeros((len(looks), 2, 2, 3), np.uint8)
    return Shown(pictures, looks.astype(np.float32), np.array(named))


def test_wins_and_content_are_compared_with_the_plain_base(tmp_path: Path) -> None:
    prompts = [Prompt("x", content, content) for content in (0, 1, 2, 3)]
    taste_UL = np.array([[1, 0], [0, 1]], np.float32)
    base = shown(np.zeros((4, 2)), [0, 1, 2, 9])
    better = shown(np.array([[1, 0], [1, 0], [0, 1], [0, -1]]), [0, 9, 2, 3])
    config = AugmentedConfig(out=tmp_path, people=2, prompts=2)
    rows = compared({"base": base, "ppd": better}, prompts, taste_UL, config)
    assert rows["ppd"]["wins"]["mean"] == pytest.approx(3 / 4)
    assert rows["ppd"]["content_right"]["mean"] == pytest.approx(3 / 4)
    assert rows["ppd"]["content_kept"]["mean"] == pytest.approx(2 / 3)
    assert rows["base"]["content_kept"]["mean"] == 1
    assert "wins" not in rows["base"]
    report = {"rows": rows}
    assert "75.0%" in format_table(report)
    assert plot(report).startswith(b"\x89PNG")


def test_rewards_of_the_plain_caption_are_compared_with_the_bases_person_by_person() -> None:
    class Clip:
        name, identity = "clip", "clip-1"

        def score(self, images_BHW3: np.ndarray, prompts: Sequence[str]) -> np.ndarray:
            raise NotImplementedError

    scores = {
        "base": np.array([[30.0, 31.0, 32.0, 33.0]], np.float32),
        "base_augmented": np.array([[29.0, 30.0, 30.0, 31.0]], np.float32),
    }
    found = compared_by_rewards(scores, [Clip()], [0, 0, 1, 1], seed=0)
    lost = found["base_augmented"]["clip"]["over_base"]
    assert lost["mean"] == -1.5
    assert (lost["low"], lost["high"], lost["clusters"]) == (-2.0, -1.0, 2)
    assert found["base"]["clip"]["over_base"]["mean"] == 0
