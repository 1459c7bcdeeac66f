"""The prompts that methods are compared on: PartiPrompts where it is there, the world's own list.

PartiPrompts (paper, [53]) is read from its tsv as it is published, with a header line and the
columns "Prompt" and "Category"; a quotation mark there is a mark like any other. Pick-a-Pic's
validation captions (B.1) are read from its parquet file `validation_unique`. The world's list
(`training/prompts/world_held_out.txt`) has four captions of each content, as long as there are as
many, in words that `training.data.splits` holds out from preference training by their hash; mini's
base model has seen all words of the world.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

from training.data.pickapic import PickAPic

WORLD_LIST = Path(__file__).parent / "world_held_out.txt"
PARTI_COLUMNS = ("Prompt", "Category")
WORLD, PLAIN, PARTI, PICK_A_PIC = "world", ".txt", ".tsv", ".parquet"


@dataclass(frozen=True)
class PromptList:
    """Prompts in the order of their file, and the sha256 of them all."""

    name: str
    prompts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def sha256(self) -> str:
        """Of the prompts in order: results on equal lists may be compared."""
        return hashlib.sha256("\n".join(self.prompts).encode()).hexdigest()

    def first(self, count: int | None) -> PromptList:
        """An even choice of so many of them, in order; all for None.

        Raises ValueError for a count below 1 and when there are fewer.
        """
        if count is None or count == len(self):
            return self
        if not 1 <= count < len(self):
            raise ValueError(f"{count} prompts of {self.name}, which has {len(self)}")
        kept = [index * len(self) // count for index in range(count)]
        return PromptList(f"{self.name}[{count}]", tuple(self.prompts[index] for index in kept))


def load_prompts(source: str) -> PromptList:
    """The world's list for "world", else the file: PartiPrompts' tsv, a text with one a line, or
    parquet files (a glob pattern, too) with Pick-a-Pic's captions, of which each counts once.

    Raises FileNotFoundError, and ValueError naming file and line for a file that is neither.
    """
    if source == WORLD:
        return _plain(WORLD_LIST, WORLD)
    path = Path(source)
    if path.suffix == PARTI:
        return _parti(path)
    if path.suffix == PLAIN:
        return _plain(path, path.name)
    if path.suffix == PICK_A_PIC:
        return _checked(path, path.name, PickAPic([source]).captions())
    expected = f"{WORLD!r}, a {PARTI}, a {PLAIN} or a {PICK_A_PIC} file"
    raise ValueError(f"prompts {source!r}: expected {expected}")


def _plain(path: Path, name: str) -> PromptList:
    prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return _checked(path, name, [prompt for prompt in prompts if prompt])


def _parti(path: Path) -> PromptList:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = [name for name in PARTI_COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: no column {', '.join(map(repr, missing))}")
        prompts = []
        for line, row in enumerate(rows, start=2):
            if not (row["Prompt"] or "").strip() or row["Category"] is None:
                raise ValueError(f"{path}, line {line}: expected a prompt and a category")
            prompts.append(row["Prompt"].strip())
    return _checked(path, path.name, prompts)


def _checked(path: Path, name: str, prompts: list[str]) -> PromptList:
    if not prompts:
        raise ValueError(f"{path}: holds no prompts")
    return PromptList(name, tuple(prompts))
