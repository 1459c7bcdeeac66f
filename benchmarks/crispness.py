"""How crisp `mini`'s pictures are against painted ones, and which stage loses what.

    python -m benchmarks.crispness [--seeds 4] [--out FILE.json] [--sheet FILE.png]

Each side is held against the quiz's painted pictures (service/pool): those pictures through Stage A
alone; through the compressor, Stage B and Stage A; and what the pipeline makes of their captions,
for nobody and for people who answered four of the quiz's pairs. The numbers are ratios
(training/pretrain/crispness.py): energy above a quarter cycle a pixel, the 99th percentile of the
gradient, the spectral peak at a period of four pixels. With them, whether content is kept, by the
classifier of content. Pictures and people follow from --seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.same_picture_digests import POOL, opened
from ppd_model.nets.compressor import load_compressor
from ppd_model.pipeline import MINI_WEIGHTS_DIR, Pipeline
from ppd_model.types import ImageRequest, LabelledPair
from ppd_model.user_encoder import UserEncoder
from training.content_classifier.network import ContentClassifier, load_classifier
from training.evaluate.evaluate_config import CLASSIFIER
from training.jobs.configuration import git_commit
from training.pretrain.crispness import crispness
from training.pretrain.pictures import to_pictures, to_tensor
from training.world import tastes
from training.world.scene import CONTENTS, SETTINGS, SUBJECTS, content_id

Pictures = NDArray[np.uint8]
PEOPLE = 24
ANSWERED = 4
BATCH = 16
SHEET_COLUMNS = 6


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=4, help="pictures of each content")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights_dir", type=Path, default=MINI_WEIGHTS_DIR)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sheet", type=Path, help="a PNG, a row of pictures for each side")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    painted, content_N = pool_pictures()
    pipeline = Pipeline.load("mini", given.weights_dir)
    sides = {"painted": painted} | through_the_stages(pipeline, painted, given.weights_dir)
    asked_M = np.tile(np.arange(CONTENTS), given.seeds)
    sides |= generated(pipeline, given.weights_dir, asked_M, given.seed)
    report = {
        "crispness, over painted": ratios(sides),
        "content": content_kept(load_classifier(CLASSIFIER), sides, content_N, asked_M),
        "pictures": {name: len(pictures) for name, pictures in sides.items()},
        "base model": pipeline.model_id,
        "adapter": pipeline.adapter_version,
        "seed": given.seed,
        "commit": git_commit(),
    }
    text = json.dumps(report, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")
    if given.sheet is not None:
        sheet(sides, content_N, asked_M).save(given.sheet, optimize=True)


def pool_pairs() -> list[dict[str, Any]]:
    """The quiz's pairs, by content."""
    pairs: list[dict[str, Any]] = json.loads((POOL / "pairs.json").read_text())["pairs"]
    return sorted(pairs, key=lambda pair: (content_of(pair), pair["pair_id"]))


def content_of(pair: dict[str, Any]) -> int:
    """Which subject in which setting, as one number."""
    subject, setting, _ = pair["pair_id"].split("-")
    return content_id(SUBJECTS.index(subject), SETTINGS.index(setting))


def pool_pictures() -> tuple[Pictures, NDArray[np.int64]]:
    """All painted pictures of the quiz, and their contents."""
    pairs = pool_pairs()
    pictures = [np.array(opened(side["file"])) for pair in pairs for side in pair["images"]]
    return np.stack(pictures), np.repeat([content_of(pair) for pair in pairs], 2)


@torch.no_grad()
def through_the_stages(
    pipeline: Pipeline, painted: Pictures, weights_dir: Path
) -> dict[str, Pictures]:
    """Painted pictures through Stage A alone, and through the compressor and both stages."""
    decoder, preset = pipeline.decoder, pipeline.preset
    compressor = load_compressor(preset, weights_dir)
    scale: float = decoder.stage_a.config.scale_factor

    def stage_a(image_B3HW: Tensor, _: list[torch.Generator]) -> Tensor:
        return decoder.to_pixels(decoder.stage_a.encode(image_B3HW).latents / scale)

    def both(image_B3HW: Tensor, generators: list[torch.Generator]) -> Tensor:
        width = preset.stage_b["clip_text_pooled_in_channels"]
        no_text_B1D = torch.zeros(len(image_B3HW), 1, width)
        pixels_B3HW: Tensor = decoder(compressor(image_B3HW), no_text_B1D, generators)
        return pixels_B3HW

    return {
        "Stage A": in_batches(painted, stage_a),
        "compressor, Stages B and A": in_batches(painted, both),
    }


def in_batches(
    painted: Pictures, decode: Callable[[Tensor, list[torch.Generator]], Tensor]
) -> Pictures:
    """What becomes of each picture; picture i draws from seed i."""
    made = []
    for first in range(0, len(painted), BATCH):
        image_B3HW = to_tensor(painted[first : first + BATCH])
        generators = [torch.Generator().manual_seed(first + row) for row in range(len(image_B3HW))]
        made.append(to_pictures(decode(image_B3HW, generators)))
    return np.concatenate(made)


def generated(
    pipeline: Pipeline, weights_dir: Path, asked_M: NDArray[np.int64], seed: int
) -> dict[str, Pictures]:
    """The served pipeline's pictures of each content asked, base and personal, of equal seeds."""
    caption = {content_of(pair): pair["caption"] for pair in pool_pairs()}
    people_PD = embeddings(UserEncoder.load("mini", weights_dir), np.random.default_rng(seed))
    base, personal = [], []
    for place, content in enumerate(asked_M.tolist()):
        asked = ImageRequest(caption[content], seed * len(asked_M) + place)
        base.append(asked)
        person_D = people_PD[place % len(people_PD)]
        personal.append(ImageRequest(asked.prompt, asked.seed, user_emb_D=person_D))
    return {"base": make(pipeline, base), "personal": make(pipeline, personal)}


def make(pipeline: Pipeline, requests: Sequence[ImageRequest]) -> Pictures:
    """In batches."""
    made = []
    for first in range(0, len(requests), BATCH):
        made += [one.image_HWC for one in pipeline.generate(requests[first : first + BATCH])]
    return np.stack(made)


def embeddings(encoder: UserEncoder, rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Of people with tastes of the world's population, who answered four pairs of the quiz."""
    pairs = pool_pairs()
    choices = []
    for taste_L in tastes.Population().sample(PEOPLE, rng):
        answered = [pairs[at] for at in rng.choice(len(pairs), ANSWERED, replace=False)]
        choices.append(
            [
                LabelledPair(
                    pair["caption"],
                    *(opened(side["file"]) for side in pair["images"]),
                    int(np.dot(taste_L, pair["look_delta"]) > 0),
                )
                for pair in answered
            ]
        )
    return [read.user_emb_D for read in encoder.encode_batch(choices)]


def ratios(sides: dict[str, Pictures]) -> dict[str, dict[str, float]]:
    """Each side's crispness over that of the painted pictures."""
    painted = crispness(sides["painted"])
    return {
        name: asdict(crispness(pictures).over(painted))
        for name, pictures in sides.items()
        if name != "painted"
    }


def content_kept(
    classifier: ContentClassifier,
    sides: dict[str, Pictures],
    content_N: NDArray[np.int64],
    asked_M: NDArray[np.int64],
) -> dict[str, float]:
    """Share of each side's pictures named right, and of the base's those that stay so."""
    right = {}
    for name, pictures in sides.items():
        subject, setting = classifier.name(pictures)
        wanted = asked_M if name in ("base", "personal") else content_N
        right[name] = subject * len(SETTINGS) + setting == wanted
    kept = right["personal"][right["base"]]
    return {name: float(of.mean()) for name, of in right.items()} | {
        "kept of base": float(kept.mean())
    }


def sheet(
    sides: dict[str, Pictures], content_N: NDArray[np.int64], asked_M: NDArray[np.int64]
) -> Image.Image:
    """A row of pictures for each side, of the same contents from column to column."""
    shown = np.linspace(0, CONTENTS - 1, SHEET_COLUMNS).astype(int)
    rows = []
    for name, pictures in sides.items():
        of = asked_M if name in ("base", "personal") else content_N
        rows.append(np.concatenate([pictures[np.flatnonzero(of == one)[0]] for one in shown], 1))
    return Image.fromarray(np.concatenate(rows))


if __name__ == "__main__":
    main()
