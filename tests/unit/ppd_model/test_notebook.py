"""What a notebook does, in five lines: names of the package, text as paths, Pillow's pictures."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image

import ppd_model
from ppd_model import ImageRequest, LabelledPair, Pipeline, UserEncoder
from ppd_model.pipeline import MINI_WEIGHTS_DIR

COLOURS = ["black", "white", "red", "green", "blue", "yellow", "gray", "orange"]


def test_four_answers_and_a_picture_in_five_lines() -> None:
    left_and_right = [Image.new("RGB", (64, 64), colour) for colour in COLOURS]
    answers = [LabelledPair("a boat", *left_and_right[i : i + 2], i % 4 // 2) for i in (0, 2, 4, 6)]
    user = UserEncoder.load("mini").encode(answers)
    made = Pipeline.load("mini").generate(ImageRequest("a boat", 7, user.user_emb_D, steps=2))
    assert (made.image.size, made.image.mode, made.seed) == ((128, 128), "RGB", 7)
    assert user.profile


def test_paths_may_be_text_and_one_request_is_one_picture() -> None:
    pipeline = Pipeline.load("mini", str(MINI_WEIGHTS_DIR), with_adapter=False)
    pipeline.use_adapter(str(MINI_WEIGHTS_DIR / "adapter.safetensors"))
    request = ImageRequest("a boat", 7, steps=1)
    (one_of_many,) = pipeline.generate([request])
    assert pipeline.generate(request).image.tobytes() == one_of_many.image.tobytes()


def test_the_version_is_the_installed_one_and_other_names_are_refused() -> None:
    assert ppd_model.__version__ == metadata.version("ppd")
    with pytest.raises(AttributeError, match="no attribute 'Pipelines'"):
        _ = ppd_model.Pipelines  # type: ignore[attr-defined]
    assert (Path(ppd_model.__file__).parent / "py.typed").is_file()


def test_importing_the_package_needs_no_torch() -> None:
    code = "import sys, ppd_model, ppd_model.types; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
