"""What follows from a person's answers, without asking any database."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ppd_model.readings import read_together
from service.core.quiz import CHOICES_PER_EMBEDDING

T = TypeVar("T")
ProfileState = Literal["collecting", "encoding", "ready", "failed"]


def begins_encoding(decided_in_post: int, decided_in_all: int) -> bool:
    """Whether a post of answers leads to a new profile: it decided something, and four exist."""
    return decided_in_post > 0 and decided_in_all >= CHOICES_PER_EMBEDDING


def profile_state(newest_status: str | None) -> ProfileState:
    """How a person's profile stands, from the status of the newest version that counts."""
    if newest_status is None:
        return "collecting"
    assert newest_status in ("encoding", "ready", "failed"), newest_status
    return newest_status  # type: ignore[return-value]


def newest_read(answers: Sequence[T]) -> Sequence[T]:
    """Of a person's decided answers, oldest first, those that a profile is made of.

    None of under four. Of very many the oldest are left out, four at a time, so that the sets that
    were read stay what they were.
    """
    sets = read_together(len(answers))
    return answers[sets[0].places.start :] if sets else answers[:0]


def sets_of(choices: Sequence[T]) -> list[tuple[Sequence[T], float]]:
    """What is read in one go each, with its weight: sets of four of a version's answers.

    A version without answers, of words alone, has one set of none.
    """
    sets = [([choices[i] for i in one.places], one.weight) for one in read_together(len(choices))]
    return [*sets] or [([], 1.0)]


def is_liked(choice: Mapping[str, Any]) -> bool:
    """Whether an answer, as profile versions keep it, is a picture that is liked without a pair."""
    return choice["pair_id"] is None and choice["image_ids"][1] is None


def reading_sha256(choices: Sequence[Any], given_text: str | None) -> str:
    """What the encoder reads, as one hash: answers as profile versions keep them, and a given text.

    Equal readings by one encoder give equal embeddings.
    """
    read = json.dumps([list(choices), given_text], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(read.encode()).hexdigest()


@dataclass(frozen=True)
class KnownReading:
    """What a profile version was read from, and how it stands; once ready, by which encoder."""

    sha256: str
    status: Literal["encoding", "ready", "failed"]
    encoder_version: str | None


def already_read(sha256: str, newest: KnownReading | None, encoder_version: str | None) -> bool:
    """Whether a reading need not begin, since a person's newest version is, or will be, the same.

    `newest` is the newest version that was not superseded. An older version of the same reading is
    no reason: what came after it stands for answers, or a text, that were given since.
    `encoder_version` is the present one; while that is not known, a version that is ready stands:
    it is read anew where the encoder turns out to be another.
    """
    if newest is None or newest.sha256 != sha256 or newest.status == "failed":
        return False
    if newest.status == "encoding" or encoder_version is None:
        return True
    return newest.encoder_version == encoder_version


def reading_seed(choices: Sequence[Any], given_text: str | None) -> int:
    """The seed of a reading in 0..2^31-1: the same answers are always read alike."""
    return int(reading_sha256(choices, given_text)[:8], 16) >> 1
