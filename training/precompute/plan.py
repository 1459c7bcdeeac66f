"""What training.precompute is to compute: whose pairs, read from which sets, of which pictures.

All of it follows from the labels alone, so every process of a run plans the same.

Dimension letters: P pairs, N pictures, K captions, 2: row of the files, and which of its pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.assignment import assign
from training.data.layouts.catalog import open_files
from training.data.most_pairs import sets_of_most_pairs
from training.data.pair_files import PairFiles
from training.data.preferences import CHOICES_PER_PROFILE, Preferences, read_preferences
from training.data.splits import PersonPairs
from training.precompute.precompute_config import PrecomputeConfig, places_of

IntArray = NDArray[np.int64]
NOT_NEEDED = -1


@dataclass(frozen=True)
class NeededPictures:
    """Pictures in the order in which the files hold them, each once.

    source_N2: where each lies; picture_N: its number in the preferences; place: for each picture
    of the preferences its place here, or NOT_NEEDED.
    """

    source_N2: IntArray
    picture_N: IntArray
    place: IntArray

    def __len__(self) -> int:
        return len(self.source_N2)


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before anything is computed.

    query and support: the pictures whose latents are trained on, and those that the VLM reads.
    captions: those of query pairs, sorted; caption_place: as NeededPictures.place. counts: what
    was read and how it was split. validation_files: those of `files` whose captions validate.
    """

    files: PairFiles
    validation_files: list[Path]
    preferences: Preferences
    people: list[PersonPairs]
    query: NeededPictures
    support: NeededPictures
    captions: list[str]
    caption_place: IntArray
    counts: dict[str, dict[str, int]]


def make_plan(config: PrecomputeConfig) -> Plan:
    """Read the labels and split them; with `people`, only so many of the people are kept.

    Where nobody is read, the rule "people" keeps those with fewer than four pairs. With
    `reads_only` it is those with most pairs, from any of them, and nobody is trained on. Raises
    ValueError for files that cannot be read and when nothing is left to train on.
    """
    validation = places_of(config.validation_data)
    files = open_files(config.layout, [*places_of(config.data), *validation])
    everybody = config.support_sets == 0 and config.held_out == "people"
    preferences = read_preferences(files, at_least=1 if everybody else CHOICES_PER_PROFILE)
    validating = open_files(config.layout, validation) if validation else None
    if config.reads_only:
        assignment = sets_of_most_pairs(
            preferences, config.people, config.support_sets, config.salt
        )
    else:
        typed = None if validating is None else validating.captions()
        assignment = assign(preferences, config, config.support_sets, typed)
    chosen = assignment.people[: config.people]
    query_P = np.concatenate([person.query_P for person in chosen])
    support_P = np.concatenate([person.support_E4.ravel() for person in chosen])
    used_K = np.unique(preferences.caption_P[query_P])
    used_K = used_K[np.argsort([preferences.captions[caption] for caption in used_K])]
    caption_place = np.full(len(preferences.captions), NOT_NEEDED, dtype=np.int64)
    caption_place[used_K] = np.arange(len(used_K))
    return Plan(
        files=files,
        validation_files=[] if validating is None else validating.files,
        preferences=preferences,
        people=chosen,
        query=_needed(preferences, query_P),
        support=_needed(preferences, support_P),
        captions=[preferences.captions[caption] for caption in used_K],
        caption_place=caption_place,
        counts={
            "read": preferences.counts.to_dict(),
            "splits": assignment.counts,
            "planned": {
                "people": len(chosen),
                "support_sets": sum(len(person.support_E4) for person in chosen),
                "query_pairs": len(query_P),
                "captions": len(used_K),
            },
        },
    )


def _needed(preferences: Preferences, pairs_P: IntArray) -> NeededPictures:
    """The pictures of these pairs, each where the files hold it first."""
    picture_N = preferences.picture_P2[pairs_P].ravel()
    row_N = np.repeat(preferences.row_P[pairs_P], 2)
    side_N = np.tile(np.arange(2), len(pairs_P))
    order = np.lexsort((side_N, row_N))
    _, first = np.unique(picture_N[order], return_index=True)
    kept = order[np.sort(first)]
    place = np.full(len(preferences.pictures), NOT_NEEDED, dtype=np.int64)
    place[picture_N[kept]] = np.arange(len(kept))
    return NeededPictures(
        source_N2=np.stack([row_N[kept], side_N[kept]], axis=1).astype(np.int64),
        picture_N=picture_N[kept],
        place=place,
    )
