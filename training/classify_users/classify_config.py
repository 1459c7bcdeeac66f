"""Every option of training.classify_users."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from pydantic import Field

from training.jobs.shared_options import EncodeBatch, FirstPerson, ModelJob, TieBelow
from training.world.people import SeedRange


class ClassifyConfig(ModelJob):
    """Whose sets, and how the classifier is trained."""

    data: Path | None = None
    """What training.precompute wrote; null: people of the world are asked."""
    store_dir: Path | None = None
    """Pictures that these are asked about, of training.world.store."""
    people: int = 300
    """At most so many, those with most sets first."""
    first_person: FirstPerson = 0
    sets: int = 20
    """Sets of each person, at most."""
    split: SeedRange = "test"
    """People of which seeds."""
    tie_below: TieBelow = 0.1
    people_per_shard: int = 8
    """People in one file of readings."""
    encode_batch: EncodeBatch = 32
    test_sets: int = 2
    """Sets of each person that test, never trained on."""
    validation_sets: int = 2
    """Sets of each person that decide when training stops."""
    folds: int = Field(1, ge=1)
    """So many classifiers, each with other test sets."""
    width: int = 512
    """Of the residual MLP."""
    layers: int = 4
    """Of the residual MLP."""
    dropout: float = 0.3
    """Of the residual MLP."""
    lr: float = 5e-4
    """Learning rate."""
    weight_decay: float = 0.05
    """Of AdamW."""
    batch: int = 256
    """Sets of a step."""
    epochs: int = 200
    """At most."""
    patience: int = 20
    """Epochs without a lower validation loss before training stops."""

    def unread(self) -> Set[str]:
        """How people of the world are asked, where a folder has been read before."""
        asked = {"store_dir", "first_person", "split", "tie_below", "people_per_shard"}
        return set() if self.data is None else asked | {"encode_batch", "preset", "weights_dir"}
