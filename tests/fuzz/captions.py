"""Captions of any legal text, read by mini: `python -m tests.fuzz.captions --captions 10000`.

Four captions make a reading. Exits 1 when a reading failed, or came to no profile.
"""

import argparse
import random
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from PIL import Image

from ppd_model import prompts
from ppd_model.types import EncodedUser, LabelledPair
from ppd_model.user_encoder import EncodingError, UserEncoder
from ppd_model.words import is_blank
from service.core.pool import Pair, Pool, load_pool
from tests.typed_texts import typed_texts

POOL = Path(__file__).parents[2] / "service" / "pool"
AT_ONCE = 16
SHOWN_EVERY_S = 30


def drawn(count: int, seed: int) -> list[str]:
    """That many captions that the service would take, drawn by Hypothesis."""
    texts: list[str] = []

    @seeded(seed)
    @settings(
        max_examples=2 * count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(typed_texts())
    def draw(text: str) -> None:
        if not is_blank(text):
            texts.append(text)

    draw()
    return texts[:count]


def answers(pool: Pool, captions: Sequence[str], rng: random.Random) -> list[LabelledPair]:
    """Four pairs of the pool, answered, with these captions in the place of their own."""
    pairs = rng.sample(pool.pairs, prompts.N_PAIRS)
    return [_labelled(pool, pair, text, rng) for pair, text in zip(pairs, captions, strict=True)]


def _labelled(pool: Pool, pair: Pair, caption: str, rng: random.Random) -> LabelledPair:
    pictures = [Image.open(pool.image_path(image)).convert("RGB") for image in pair.images]
    return LabelledPair(caption, pictures[0], pictures[1], rng.randrange(2))


def read(encoder: UserEncoder, many: Sequence[list[LabelledPair]]) -> list[EncodedUser | str]:
    """Readings, or what was raised in the place of each that failed."""
    try:
        return list(encoder.encode_batch(many))
    except (EncodingError, ValueError) as error:
        if len(many) == 1:
            return [f"{type(error).__name__}: {error}"]
        return [taste for one in many for taste in read(encoder, [one])]


def fault(taste: EncodedUser | str) -> str | None:
    """What is wrong with a reading."""
    if isinstance(taste, str):
        return taste
    if not prompts.has_profile(taste.transcript):
        return f"no profile: {taste.profile!r}"
    if not np.isfinite(taste.user_emb_D).all():
        return "the embedding is not finite"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after that many")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    encoder = UserEncoder.load("mini")
    captions = drawn(options.captions // prompts.N_PAIRS * prompts.N_PAIRS, options.seed)
    rng = random.Random(options.seed)
    began_s = shown_s = time.monotonic()
    readings = failed = 0
    pool = load_pool(POOL)
    four = [captions[i : i + prompts.N_PAIRS] for i in range(0, len(captions), prompts.N_PAIRS)]
    for start in range(0, len(four), AT_ONCE):
        if time.monotonic() - began_s > options.seconds:
            break
        many = [answers(pool, some, rng) for some in four[start : start + AT_ONCE]]
        for pairs, taste in zip(many, read(encoder, many), strict=True):
            readings += 1
            wrong = fault(taste)
            if wrong is not None:
                failed += 1
                sys.stdout.write(f"{wrong}\n  {[pair.caption for pair in pairs]!r}\n")
        if time.monotonic() - shown_s > SHOWN_EVERY_S:
            shown_s = time.monotonic()
            sys.stderr.write(f"{readings * prompts.N_PAIRS} captions, {failed} readings failed\n")
    sys.stdout.write(
        f"{readings * prompts.N_PAIRS} captions in {readings} readings, {failed} failed, "
        f"{time.monotonic() - began_s:.0f} s\n"
    )
    sys.exit(int(failed > 0 or readings == 0))


if __name__ == "__main__":
    main()
