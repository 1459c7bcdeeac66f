"""This project's own layout, for data sets whose published one is not known here.

Each line of a .jsonl file is one ranking: {"person": "7", "caption": "a red hydrant", "pictures":
["a.png", "b.png", "c.png"], "ranks": [2, 1, 2]}. Pictures are files below the .jsonl file's folder;
1 is the best rank, equal ranks are ties. Each ranking gives the pairs of all its pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from ppd_model.pictures.reading import PictureError
from training.data.layouts.listed import Answer, ListedFiles, read_beside
from training.data.pair_files import IntArray


class Ranking(BaseModel, extra="forbid"):
    """One line."""

    person: Annotated[str, Field(min_length=1)]
    caption: Annotated[str, Field(min_length=1)]
    pictures: Annotated[list[str], Field(min_length=2)]
    ranks: list[float]

    @model_validator(mode="after")
    def _ranks_each(self) -> Self:
        """Raises ValueError for another number of ranks than of pictures."""
        if len(self.ranks) != len(self.pictures):
            raise ValueError(f"{len(self.ranks)} ranks of {len(self.pictures)} pictures")
        return self

    def answers(self) -> Iterator[Answer]:
        for (first, rank), (second, other) in combinations(
            zip(self.pictures, self.ranks, strict=True), 2
        ):
            preferred = None if rank == other else int(other < rank)
            yield Answer(self.person, self.caption, (first, second), preferred)


class Rankings(ListedFiles):
    """All pairs of every line's pictures."""

    kind = "jsonl"

    def answers(self, path: Path) -> list[Answer]:
        found: list[Answer] = []
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    found += Ranking.model_validate_json(line).answers()
                except ValidationError as error:
                    raise ValueError(f"{path}, line {number}: {error}") from error
        return found

    def _pictures_of(self, path: Path, source_N2: IntArray) -> Iterator[bytes | PictureError]:
        for row, side in source_N2.tolist():
            yield read_beside(path.parent, self._answers[path][row].pictures[side])
