"""The quiz's pool: painted pairs of one caption that differ in looks, and the studio's vocabulary.

``python -m training.world.pool --out service/pool --standardizer ppd_model/mini/standardizer.json``
writes ``pairs.json``, ``images/*.webp`` and ``vocabulary.json``. Each pair differs strongly in
some looks and little in the others, so that four answers can be spread over all of them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.jobs.command_line import run_job
from training.jobs.configuration import Configuration
from training.jobs.files import write_json
from training.jobs.shared_options import Out, Seed
from training.world.captions import (
    SETTING_PHRASES,
    SUBJECT_WORDS,
    canonical,
    vocabulary,
)
from training.world.looks import Standardizer, measure
from training.world.painter import paint
from training.world.scene import CONTENTS, LOOKS, SETTINGS, SUBJECTS, Scene

PAIRS_PER_CONTENT = 2
DIFFERING_SHARE = 0.6
SUGGESTIONS = 12

LOOK_WORDS: dict[str, tuple[str, str]] = {
    "brightness": ("dark", "light"),
    "contrast": ("low in contrast", "high in contrast"),
    "saturation": ("in muted colours", "in strong colours"),
    "warmth": ("with a cool tint", "with a warm tint"),
    "detail": ("with a plain ground", "with a dense pattern"),
    "size": ("seen from afar", "seen close up"),
    "outline": ("without outlines", "with thick outlines"),
    "vignette": ("evenly lit to the corners", "with dark corners"),
}
DESCRIBED_FROM = 0.45


def write_pool(out: Path, standardizer: Standardizer, seed: int) -> int:
    """Write the pool and return its number of pairs."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pairs = [
        _pair(out, standardizer, content, number, rng)
        for number in range(PAIRS_PER_CONTENT)
        for content in rng.permutation(CONTENTS).tolist()
    ]
    pool = {"version": f"world-1-{seed}", "looks": list(LOOKS), "pairs": pairs}
    write_json(out / "pairs.json", pool, indent=1)
    write_json(out / "vocabulary.json", _vocabulary(rng), indent=1)
    return len(pairs)


def describe(scene: Scene) -> str:
    """What a picture shows and how, without judging it."""
    looks = [
        LOOK_WORDS[name][int(value > 0)]
        for name, value in zip(LOOKS, scene.looks_L, strict=True)
        if abs(value) >= DESCRIBED_FROM
    ]
    content = canonical(scene.subject, scene.setting)
    text = ", ".join([content, *looks])
    return text[0].upper() + text[1:] + "."


def _pair(
    out: Path, standardizer: Standardizer, content: int, number: int, rng: np.random.Generator
) -> dict[str, object]:
    subject, setting = content // len(SETTINGS), content % len(SETTINGS)
    pair_id = f"{SUBJECTS[subject]}-{SETTINGS[setting]}-{number + 1}"
    scenes = [
        Scene(subject, setting, looks_L, int(rng.integers(2**31))) for looks_L in _two_looks(rng)
    ]
    images, looks = [], []
    for side, scene in zip("ab", scenes, strict=True):
        picture = paint(scene)
        file = f"{pair_id}-{side}.webp"
        Image.fromarray(picture).save(out / "images" / file, quality=92, method=6)
        images.append({"file": file, "alt": describe(scene)})
        looks.append(standardizer.apply(measure(picture)[None], np.array([content]))[0])
    return {
        "pair_id": pair_id,
        "caption": canonical(subject, setting),
        "images": images,
        "look_delta": [round(float(x), 3) for x in looks[1] - looks[0]],
    }


def _two_looks(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two looks vectors: far apart in some looks (at least two), close in the others."""
    differs = rng.random(len(LOOKS)) < DIFFERING_SHARE
    differs[rng.permutation(len(LOOKS))[:2]] = True
    sign = rng.choice((-1.0, 1.0), len(LOOKS))
    far = sign * rng.uniform(0.55, 0.95, len(LOOKS))
    near = rng.uniform(-0.6, 0.6, len(LOOKS))
    first = np.where(differs, far, near)
    second = np.where(differs, -far, np.clip(near + rng.uniform(-0.1, 0.1, len(LOOKS)), -1, 1))
    return first.astype(np.float32), second.astype(np.float32)


def _vocabulary(rng: np.random.Generator) -> dict[str, object]:
    contents = rng.permutation(CONTENTS)[:SUGGESTIONS].tolist()
    return {
        "subjects": [words[0] for words in SUBJECT_WORDS.values()],
        "settings": [phrases[0] for phrases in SETTING_PHRASES.values()],
        "words": vocabulary(),
        "suggestions": [canonical(c // len(SETTINGS), c % len(SETTINGS)) for c in contents],
    }


class PoolConfig(Configuration):
    """Where the pool goes, and what it follows from."""

    out: Out
    standardizer: Path
    """standardizer.json of the pictures' looks."""
    seed: Seed = 7


def main(config: PoolConfig) -> None:
    count = write_pool(config.out, Standardizer.load(config.standardizer), config.seed)
    print(f"{count} pairs in {config.out}")


if __name__ == "__main__":
    run_job(main, PoolConfig, __doc__)
