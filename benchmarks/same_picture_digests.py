"""sha256 of what `mini` makes and reads in float64: the same on any CPU, in any company.

    python -m benchmarks.same_picture_digests            # compares; exits 1 if any differs
    python -m benchmarks.same_picture_digests --write    # renews the file

The file, tests/unit/ppd_model/same_picture.json, was made on one machine and is compared on all.
It is renewed where the shipped weights change, or what float64 computes is meant to.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ppd_model.pipeline import Pipeline
from ppd_model.types import Generated, ImageRequest, LabelledPair
from ppd_model.user_encoder import EncodedUser, UserEncoder

ROOT = Path(__file__).parents[1]
DIGESTS = ROOT / "tests" / "unit" / "ppd_model" / "same_picture.json"
POOL = ROOT / "service" / "pool"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args(argv)
    made = digests(
        Pipeline.load("mini", dtype="float64"), UserEncoder.load("mini", dtype="float64")
    )
    if given.write:
        DIGESTS.write_text(json.dumps(made, indent=2) + "\n")
    kept = json.loads(DIGESTS.read_text())
    for name in made:
        print(f"{'same' if made[name] == kept.get(name) else 'OTHER':5}  {name}")
    return int(made != kept)


def digests(pipeline: Pipeline, encoder: UserEncoder) -> dict[str, str]:
    """Of every picture, each made alone, and of one reading; and what made them."""
    read = encoder.encode(four_pairs())
    return {
        "base model": pipeline.model_id,
        "adapter": pipeline.adapter_version,
        "encoder": encoder.encoder_version,
        "text of the reading": hashlib.sha256(read.transcript.encode()).hexdigest(),
        "embedding of the reading": hashlib.sha256(little_endian(read)).hexdigest(),
    } | {
        name: picture_digest(pipeline.generate([request])[0])
        for name, request in requests(read.user_emb_D).items()
    }


def requests(read_emb_D: npt.NDArray[np.float32]) -> dict[str, ImageRequest]:
    """Pictures that differ in everything a request decides, by name; the last is of a reading."""
    one, other = (some_embedding(number, len(read_emb_D)) for number in (1, 2))
    boat, tree = "a boat at the sea", "a tree in the mountains"
    return {
        "base": ImageRequest(boat, 1, steps=4),
        "base, one step, unguided": ImageRequest(tree, 2, steps=1, guidance_scale=1.0),
        "base, negative prompt": ImageRequest(tree, 3, steps=5, negative_prompt="a house at night"),
        "personal": ImageRequest(boat, 1, user_emb_D=one, steps=4),
        "personal, half strength": ImageRequest(boat, 1, user_emb_D=one, steps=4, strength=0.5),
        "personal, unguided": ImageRequest(
            "a fish in the hills", 2**32 - 1, user_emb_D=other, steps=7, guidance_scale=1.0
        ),
        "personal, negative prompt, guided much": ImageRequest(
            tree, 5, user_emb_D=other, steps=6, negative_prompt=boat, guidance_scale=7.5
        ),
        "personal, of the reading": ImageRequest(boat, 6, user_emb_D=read_emb_D, steps=10),
    }


def some_embedding(number: int, width: int) -> npt.NDArray[np.float32]:
    """Multiples of 1/64 in [-2, 2), by integers alone: the same on every machine."""
    drawn = np.random.default_rng(number).integers(-128, 128, width)
    return (drawn / 64).astype(np.float32)


def four_pairs() -> list[LabelledPair]:
    """The first four of the quiz's pool, answered in turn."""
    pairs = json.loads((POOL / "pairs.json").read_text())["pairs"][:4]
    return [
        LabelledPair(pair["caption"], *(opened(side["file"]) for side in pair["images"]), index % 2)
        for index, pair in enumerate(pairs)
    ]


def opened(name: str) -> Image.Image:
    """A picture of the pool."""
    with Image.open(POOL / "images" / name) as image:
        return image.convert("RGB")


def picture_digest(made: Generated) -> str:
    """Of the bytes, row by row, red, green and blue."""
    return hashlib.sha256(np.ascontiguousarray(made.image_HWC).tobytes()).hexdigest()


def little_endian(read: EncodedUser) -> bytes:
    """The embedding as it is stored."""
    return read.user_emb_D.astype("<f4").tobytes()


if __name__ == "__main__":
    sys.exit(main())
