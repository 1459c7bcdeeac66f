"""PAMELA (arXiv 2604.07427): pictures rated one by one, made into pairs.

annotations/pamela_*.json are lists of ratings: `participant_id`, `original_score`, `image_path`
(below the folder that holds annotations/) and `image_metadata` with `group`, `style` (null for
photorealism) and `type`. That is what public code reads of them; whether they also hold the prompts
that pictures were made from could not be found out, so the caption is what `image_metadata` says.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ppd_model.pictures.reading import PictureError
from training.data.layouts.listed import Answer, ListedFiles, read_beside
from training.data.pair_files import IntArray

Rated = tuple[float, str]
"""A score, and the picture's file."""


class Pamela(ListedFiles):
    """Of each person and each kind of picture (one group, style and type), every picture is in one
    pair at most: the lower half by score against the higher, each with the one as far up in its
    half. Equal scores are ties; which of the two comes first follows from their names."""

    kind = "json"

    def answers(self, path: Path) -> list[Answer]:
        ratings = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(ratings, list):
            raise ValueError(f"{path}: a {type(ratings).__name__}, expected a list of ratings")
        rated: dict[tuple[str, str], list[Rated]] = defaultdict(list)
        for row, rating in enumerate(ratings):
            try:
                caption = caption_of(rating["image_metadata"])
                score, name = float(rating["original_score"]), str(rating["image_path"])
                rated[str(rating["participant_id"]), caption].append((score, _below_root(name)))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, rating {row}: not as published: {error!r}") from error
        return [
            _answer(person, caption, *pair)
            for (person, caption), own in rated.items()
            for pair in halves(own)
        ]

    def _pictures_of(self, path: Path, source_N2: IntArray) -> Iterator[bytes | PictureError]:
        for row, side in source_N2.tolist():
            yield read_beside(path.parent.parent, self._answers[path][row].pictures[side])


def caption_of(metadata: dict[str, Any]) -> str:
    """ "Art, portrait, Impressionism": what is known of what a picture shows."""
    known = (metadata["type"], metadata["group"], metadata.get("style"))
    return ", ".join(str(each).replace("_", " ") for each in known if each)


def halves(rated: list[Rated]) -> Iterator[tuple[Rated, Rated]]:
    """Pairs of a lower and a higher score, each picture in one at most; an odd one is left out."""
    ordered = sorted(rated)
    half = len(ordered) // 2
    return zip(ordered[:half], ordered[len(ordered) - half :], strict=True)


def _answer(person: str, caption: str, lower: Rated, higher: Rated) -> Answer:
    (low, worse), (high, better) = lower, higher
    first, second = sorted((worse, better))
    preferred = None if low == high else int(second == better)
    return Answer(person, caption, (first, second), preferred)


def _below_root(name: str) -> str:
    return name.removeprefix("./").removeprefix("PAMELA/")
