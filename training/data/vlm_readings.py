"""The VLM's reading of many sets of four answers, of which one that fails costs itself alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from tqdm import tqdm

from ppd_model.types import LabelledPair
from ppd_model.user_encoder import EncodedUser, EncodingError, UserEncoder

Item = TypeVar("Item")


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def read_each(
    encoder: UserEncoder,
    sets: Iterable[Sequence[LabelledPair]],
    total: int,
    *,
    batch: int,
    seed: int = 0,
    what: str = "sets",
) -> list[EncodedUser | EncodingError]:
    """Each set's profile and embedding, or why there is none; `batch` sets are read at a time.

    With decoding "sample" set i is sampled with seed + i. A set without a usable answer is read
    again on its own. `total` is how many sets there are.
    """
    read: list[EncodedUser | EncodingError] = []
    with tqdm(total=total, desc=what, unit="set", mininterval=5) as bar:
        for part in in_batches(sets, batch):
            try:
                read += encoder.encode_batch(part, seed=seed + len(read))
            except EncodingError:
                first = seed + len(read)
                read += [_alone(encoder, one, first + place) for place, one in enumerate(part)]
            bar.update(len(part))
    return read


def _alone(
    encoder: UserEncoder, choices: Sequence[LabelledPair], seed: int
) -> EncodedUser | EncodingError:
    try:
        return encoder.encode_batch([choices], seed=seed)[0]
    except EncodingError as error:
        return error
