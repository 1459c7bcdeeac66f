"""What only evaluation and the upper bounds may read: hidden tastes, contents and looks.

`training.world.export` writes it beside the preferences. Training reads user embeddings, latents
and text; it sees nothing of this unless an upper bound is asked for by name.

Dimension letters: U people, S subjects, T settings, N pictures, L looks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class GroundTruth:
    """user_id_U and picture_uid_N are text, as in the preferences.

    taste_UL has unit length. subject_share_US and setting_share_UT say how often the person types
    captions of each subject and setting. looks_NL are in standard deviations within the content.
    """

    user_id_U: NDArray[np.str_]
    taste_UL: FloatArray
    subject_share_US: FloatArray
    setting_share_UT: FloatArray
    picture_uid_N: NDArray[np.str_]
    content_N: NDArray[np.int64]
    looks_NL: FloatArray

    @classmethod
    def load(cls, path: Path) -> GroundTruth:
        """Read what `save` wrote. Raises ValueError for another file."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{field.name: arrays[field.name] for field in fields(cls)})
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{path}: not a ground-truth file of the world: {error}") from error

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(
                file, **{field.name: getattr(self, field.name) for field in fields(self)}
            )

    def taste(self, user_id: str) -> FloatArray:
        """A person's hidden taste, shape L. Raises ValueError for someone unknown."""
        taste_L: FloatArray = self.taste_UL[_row(self._users, user_id, "person")]
        return taste_L

    def looks(self, picture_uid: str) -> FloatArray:
        """A picture's looks, shape L. Raises ValueError for an unknown picture."""
        looks_L: FloatArray = self.looks_NL[_row(self._pictures, picture_uid, "picture")]
        return looks_L

    @cached_property
    def _users(self) -> dict[str, int]:
        return {str(name): row for row, name in enumerate(self.user_id_U)}

    @cached_property
    def _pictures(self) -> dict[str, int]:
        return {str(name): row for row, name in enumerate(self.picture_uid_N)}


def _row(rows: dict[str, int], name: str, what: str) -> int:
    if name not in rows:
        raise ValueError(f"the ground truth knows no {what} {name!r}: it is of another data set")
    return rows[name]
