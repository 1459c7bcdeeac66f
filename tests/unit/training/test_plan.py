"""What training.precompute plans from Pick-a-Pic's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fake_pickapic import row, write
from training.data.splits import SPLITS
from training.precompute.plan import Plan, make_plan
from training.precompute.precompute_config import PrecomputeConfig


def planned(folder: Path, **changes: Any) -> Plan:
    """Of people 1 and 2 with five pairs each and person 3 with one; captions 4 and 5 validate."""
    rows = [
        row(user, f"caption {n}", f"{user}-{n}a", f"{user}-{n}b", 0)
        for user, pairs in ((1, 5), (2, 5), (3, 1))
        for n in range(pairs)
    ]
    unique = [row(4, f"Caption {n}", f"4-{n}a", f"4-{n}b", 0) for n in (4, 5)]
    write(folder / "data" / "train-00000.parquet", rows)
    write(folder / "data" / "validation_unique-00000.parquet", unique)
    values = {
        "preset": "mini",
        "data": str(folder / "data" / "train-*.parquet"),
        "validation_data": str(folder / "data" / "validation_unique-*.parquet"),
        "output_dir": folder / "out",
        "unseen_people": 0,
        "seen_people": 0,
        "support_sets": 0,
        "vlm": False,
    }
    return make_plan(PrecomputeConfig.model_validate(values | changes))


def captions_of(plan: Plan, split: str) -> list[str]:
    preferences = plan.preferences
    return sorted(
        preferences.captions[preferences.caption_P[pair]]
        for person in plan.people
        for pair in person.query_P[person.split_P == SPLITS.index(split)]
    )


def test_synthetic_users_train_on_everything_and_validate_on_validation_unique(
    tmp_path: Path,
) -> None:
    plan = planned(tmp_path)
    assert captions_of(plan, "validation") == ["Caption 4", "Caption 5", *["caption 4"] * 2]
    assert captions_of(plan, "train") == sorted(f"caption {n}" for n in (0, 0, 0, 1, 1, 2, 2, 3, 3))
    assert plan.counts["splits"]["train_people"] == 3
    assert plan.counts["read"]["of_small_users"] == 0
    assert len(plan.support) == 0


def test_who_has_few_pairs_is_left_out_only_where_people_are_read(tmp_path: Path) -> None:
    plan = planned(tmp_path, support_sets=1, validation_data=None, validation_caption_share=0)
    assert plan.counts["read"]["small_users"] == 1
    assert plan.counts["splits"]["train_people"] == 2


@pytest.mark.parametrize("held_out", ["people", "shares"])
def test_captions_of_validation_files_are_never_trained_on(tmp_path: Path, held_out: str) -> None:
    shares = {"held_out_caption_share": 0.0, "unseen_user_share": 0.0}
    plan = planned(tmp_path, held_out=held_out, **(shares if held_out == "shares" else {}))
    trained = set(captions_of(plan, "train"))
    assert len(trained) >= 4
    assert not trained & {"Caption 4", "Caption 5", "caption 4"}
    rows = np.concatenate([person.query_P for person in plan.people])
    assert len(set(rows.tolist())) == len(rows)
