"""START HERE: data sets that training.precompute reads as they are published, by their layout.

"pickapic" is Pick-a-Pic's. The others are read by what their cards and their users' code say of
them (docs/other_data.md): none of their files was to be had where the readers were written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from training.data.layouts.learn_user_pref import LearnUserPref
from training.data.layouts.pamela import Pamela
from training.data.layouts.rankings import Rankings
from training.data.pair_files import PairFiles
from training.data.pickapic import PickAPic

LayoutName = Literal["pickapic", "pamela", "learn_user_pref", "rankings"]
LAYOUTS: Mapping[LayoutName, Callable[[Sequence[str | Path]], PairFiles]] = {
    "pickapic": PickAPic,
    "pamela": Pamela,
    "learn_user_pref": LearnUserPref,
    "rankings": Rankings,
}


def open_files(layout: LayoutName, places: Sequence[str | Path]) -> PairFiles:
    """The files of these places: files, folders of them, or glob patterns.

    Raises ValueError for places without such files, and for files of another layout.
    """
    return LAYOUTS[layout](places)
