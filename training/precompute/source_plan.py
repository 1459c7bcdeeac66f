"""What a folder of training.precompute was made from, to go back to its rows and pictures."""

from __future__ import annotations

import json
from pathlib import Path

from training.data.shards import read_manifest
from training.precompute.plan import Plan, make_plan
from training.precompute.precompute_config import PrecomputeConfig
from training.world.truth import GroundTruth


def config_of(folder: Path) -> PrecomputeConfig:
    """The configuration it was made with. Raises FileNotFoundError for another kind of folder."""
    resolved = json.loads((folder / "resolved.json").read_text(encoding="utf-8"))
    # Folders from before there was a choice.
    return PrecomputeConfig.model_validate({"held_out": "shares"} | resolved["config"])


def truth_of(folder: Path) -> GroundTruth:
    """The tastes of its people. Raises ValueError where they are not of the world."""
    path = config_of(folder).truth
    if path is None:
        raise ValueError(f"{folder} was made without the ground truth of people's tastes")
    return GroundTruth.load(path)


def plan_of(folder: Path) -> Plan:
    """The plan it was made by; its `query` pictures are in the order of the folder's latents.

    Raises ValueError when the parquet files are not those that the folder was made from.
    """
    config = config_of(folder)
    plan = make_plan(config)
    if plan.files.fingerprint() != read_manifest(folder)["provenance"]["files"]:
        raise ValueError(f"{folder} was made from other files than {config.data} holds now")
    return plan
