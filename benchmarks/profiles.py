"""Profiles a minute: sets that join and leave one running generation, against batches to their end.

    python -m benchmarks.profiles [--sets 64] [--rows 64] [--batches 4,32] [--rounds 1] [--out FILE]

Both sides read the same sets of four of the quiz's own pairs with the shipped `mini`, on one
thread, by turns. Seconds are those of the processor, so that a busy machine matters little. Prints
profiles a minute, ratios within rounds, how many texts are the same, and how far embeddings are
apart.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.rounds import report_of, show, spread
from ppd_model.pictures.reading import KEPT, read_picture
from ppd_model.running_readings import RunningReadings
from ppd_model.types import EncodedUser, LabelledPair
from ppd_model.user_encoder import UserEncoder

POOL = Path(__file__).parents[1] / "service" / "pool"
Side = Callable[[], list[EncodedUser]]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sets", type=int, default=64)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--batches", default="4,32")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    encoder = UserEncoder.load("mini")
    sets = sets_of_the_pool(args.sets)
    batches = [int(batch) for batch in args.batches.split(",")]
    sides: dict[str, Side] = {
        f"batches of {batch}": lambda batch=batch: batch_by_batch(encoder, sets, batch)
        for batch in batches
    }
    sides[f"running, {args.rows} rows"] = lambda: running(encoder, sets, args.rows)
    batch_by_batch(encoder, sets[:2], 2)
    running(encoder, sets[:2], 2)
    show(report_of(vars(args) | {"out": None}, compare(sides, args.sets, args.rounds)), args.out)


def compare(sides: dict[str, Side], sets: int, rounds: int) -> dict[str, object]:
    """Profiles a minute of every side, and the last side's ratios to the others."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    read: dict[str, list[EncodedUser]] = {}
    for number in tqdm(range(rounds), desc="rounds"):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            started_s = time.process_time()
            read[name] = sides[name]()
            seconds[name].append(time.process_time() - started_s)
    *others, last = sides
    return {
        "profiles a minute": {
            name: spread([60 * sets / each for each in taken]) for name, taken in seconds.items()
        },
        "ratios": {
            f"{last} / {name}": spread(
                [one / other for one, other in zip(seconds[name], seconds[last], strict=True)]
            )
            for name in others
        },
        "against the last side": {
            name: {
                "same texts": sum(
                    one.transcript == other.transcript
                    for one, other in zip(read[name], read[last], strict=True)
                ),
                "embeddings apart by": max(
                    float(np.abs(one.user_emb_D - other.user_emb_D).max())
                    for one, other in zip(read[name], read[last], strict=True)
                    if one.transcript == other.transcript
                ),
            }
            for name in others
        },
    }


def sets_of_the_pool(count: int) -> list[list[LabelledPair]]:
    """Four pairs each, drawn evenly, with answers drawn evenly."""
    rng = np.random.default_rng(0)
    pairs = json.loads((POOL / "pairs.json").read_text())["pairs"]
    return [
        [
            LabelledPair(pair["caption"], *map(_opened, pair["images"]), int(rng.integers(2)))
            for pair in (pairs[place] for place in rng.choice(len(pairs), 4, replace=False))
        ]
        for _ in range(count)
    ]


def _opened(image: dict[str, str]) -> object:
    return read_picture((POOL / "images" / image["file"]).read_bytes(), KEPT)


def batch_by_batch(
    encoder: UserEncoder, sets: Sequence[Sequence[LabelledPair]], batch: int
) -> list[EncodedUser]:
    """As precompute read before: each batch to its end, and then again."""
    return [
        user
        for first in range(0, len(sets), batch)
        for user in encoder.encode_batch(sets[first : first + batch])
    ]


def running(
    encoder: UserEncoder, sets: Sequence[Sequence[LabelledPair]], rows: int
) -> list[EncodedUser]:
    """As precompute reads now."""
    found = dict(RunningReadings(encoder, rows).read(enumerate(sets)))
    users = [found[number] for number in range(len(sets))]
    return [user for user in users if isinstance(user, EncodedUser)]


if __name__ == "__main__":
    main()
