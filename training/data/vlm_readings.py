"""The VLM's reading of many sets of four answers, of which one that fails costs itself alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from tqdm import tqdm

from ppd_model.running_readings import RunningReadings
from ppd_model.types import LabelledPair
from ppd_model.user_encoder import EncodedUser, EncodingError, UserEncoder

Item = TypeVar("Item")


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


class UnreadableSetError(EncodingError):
    """A set that the VLM is not asked about: one of its pictures, `entry`, cannot be read."""

    def __init__(self, reason: str, entry: dict[str, Any]) -> None:
        super().__init__(reason)
        self.entry = entry


def read_each(
    encoder: UserEncoder,
    sets: Iterable[Sequence[LabelledPair] | EncodedUser | UnreadableSetError],
    total: int,
    *,
    batch: int,
    seed: int = 0,
    what: str = "sets",
    running: bool = False,
) -> list[EncodedUser | EncodingError]:
    """Each set's profile and embedding, or why there is none; `batch` sets are read at a time.

    With decoding "sample" set i is sampled with seed + i. A set without a usable answer is read
    again on its own; one that was read before, or cannot be, is passed by. `total` is how many sets
    there are. `running`: sets join and leave, as
    running_readings.py has it; else they are read batch by batch.
    """
    read: dict[int, EncodedUser | EncodingError] = {}
    with tqdm(total=total, desc=what, unit="set", mininterval=5) as bar:

        def readable() -> Iterator[tuple[int, Sequence[LabelledPair]]]:
            for number, choices in enumerate(sets):
                if isinstance(choices, EncodedUser | UnreadableSetError):
                    read[number] = choices
                    bar.update()
                else:
                    yield number, choices

        if running:
            found = RunningReadings(encoder, batch).read(readable(), seed)
        else:
            found = _batch_by_batch(encoder, readable(), batch, seed)
        for number, user in found:
            read[number] = user
            bar.update()
    return [read[number] for number in range(total)]


def _batch_by_batch(
    encoder: UserEncoder,
    sets: Iterable[tuple[int, Sequence[LabelledPair]]],
    batch: int,
    seed: int,
) -> Iterator[tuple[int, EncodedUser | EncodingError]]:
    for part in in_batches(sets, batch):
        numbers, many = [number for number, _ in part], [choices for _, choices in part]
        first = numbers[0]
        try:
            if numbers != list(range(first, first + len(numbers))):  # the seeds must be theirs
                raise EncodingError("one is left out")
            yield from zip(numbers, encoder.encode_batch(many, seed=seed + first), strict=True)
        except EncodingError:
            for number, choices in part:
                yield number, _alone(encoder, choices, seed + number)


def _alone(
    encoder: UserEncoder, choices: Sequence[LabelledPair], seed: int
) -> EncodedUser | EncodingError:
    try:
        return encoder.encode_batch([choices], seed=seed)[0]
    except EncodingError as error:
        return error
