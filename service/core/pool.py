"""The pool of quiz pairs and the words that the preset knows, read from their files."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppd_model.answers import AnswerModel

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class PairImage:
    """A picture of a pair: its file under images/ and a text that describes without judging."""

    file: str
    alt: str


@dataclass(frozen=True)
class Pair:
    """Two pictures of one caption. `look_delta_L`: looks of image 1 minus those of image 0."""

    pair_id: str
    caption: str
    images: tuple[PairImage, PairImage]
    look_delta_L: tuple[float, ...]


@dataclass(frozen=True)
class Pool:
    """All pairs, in their file's order, and where their pictures lie."""

    version: str
    pairs: tuple[Pair, ...]
    images_dir: Path
    vocabulary: Mapping[str, Any]
    answer_model: AnswerModel | None = None
    """What answers to these pairs foretell, where that was measured."""
    _by_id: Mapping[str, Pair] = field(init=False, repr=False)
    _files: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_id", {pair.pair_id: pair for pair in self.pairs})
        files = frozenset(image.file for pair in self.pairs for image in pair.images)
        object.__setattr__(self, "_files", files)

    def get(self, pair_id: str) -> Pair | None:
        """The pair of this id, if the pool has it."""
        return self._by_id.get(pair_id)

    def has_file(self, file: str) -> bool:
        """Whether a pair of the pool shows this file."""
        return file in self._files

    def picture_urls(self, pair_id: str | None, own_ids: Sequence[str | None]) -> list[str]:
        """Where clients find the pictures of an answer: a pair's of the pool, or a person's own."""
        pair = self.get(pair_id) if pair_id is not None else None
        if pair is not None:
            return [pair_url(image.file) for image in pair.images]
        return [f"/images/{image_id}" for image_id in own_ids if image_id is not None]

    def image_path(self, image: PairImage) -> Path:
        return self.images_dir / image.file


def load_pool(folder: Path) -> Pool:
    """Read `pairs.json`, `vocabulary.json` and, if it is there, `answers.json`.

    Raises ValueError that names the fault.
    """
    file = (folder / "pairs.json").read_bytes()
    document = json.loads(file)
    images_dir = folder / "images"
    dimensions = len(document["looks"])
    pairs = tuple(_pair(entry, dimensions, images_dir) for entry in document["pairs"])
    if len({pair.pair_id for pair in pairs}) != len(pairs):
        raise ValueError(f"{folder / 'pairs.json'} names a pair twice")
    if len(pairs) < 4:
        raise ValueError(f"{folder / 'pairs.json'} has {len(pairs)} pairs, a quiz needs 4")
    vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    path = folder / "answers.json"
    model = _answer_model(path, file, dimensions) if path.exists() else None
    return Pool(str(document["version"]), pairs, images_dir, vocabulary, model)


def _answer_model(path: Path, pairs: bytes, dimensions: int) -> AnswerModel:
    model = AnswerModel.load(path)
    sha256 = hashlib.sha256(pairs).hexdigest()
    if model.pairs_sha256 != sha256:
        raise ValueError(
            f"{path} is of pairs with sha256 {model.pairs_sha256}; those beside it have {sha256}: "
            f"run training.calibration for them, or take the file away"
        )
    if len(model.reading_KD) != dimensions:
        raise ValueError(f"{path} has {len(model.reading_KD)} coordinates, expected {dimensions}")
    return model


def _pair(entry: Mapping[str, Any], dimensions: int, images_dir: Path) -> Pair:
    first, second = (PairImage(image["file"], image["alt"]) for image in entry["images"])
    for image in (first, second):
        if not _FILE.fullmatch(image.file) or not (images_dir / image.file).is_file():
            raise ValueError(f"pair {entry['pair_id']!r} shows {image.file!r}, which is not there")
    delta_L = tuple(float(value) for value in entry["look_delta"])
    if len(delta_L) != dimensions:
        raise ValueError(
            f"pair {entry['pair_id']!r} has {len(delta_L)} looks, expected {dimensions}"
        )
    return Pair(entry["pair_id"], entry["caption"], (first, second), delta_L)


def pair_url(file: str) -> str:
    """Where clients find a pair's picture."""
    return f"/pairs/images/{file}"
