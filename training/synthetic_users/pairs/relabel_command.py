"""From folders of pairs to one that three synthetic users have labelled.

Legend: A rewards, P pairs, X pictures shown with a caption.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.shards import MANIFEST, read_manifest
from training.data.splits import SPLITS
from training.jobs.configuration import save_resolved
from training.jobs.files import write_json
from training.jobs.shared_options import Out, Seed
from training.precompute.processes import Worker, this_process
from training.rewards.catalog import RewardSources, load_rewards
from training.rewards.reward import Reward
from training.synthetic_users.pairs.pair_folder import (
    SourcePairs,
    people_tensors,
    read_source,
    write_folder,
)
from training.synthetic_users.pairs.relabel import Assignment, relabel
from training.synthetic_users.pairs.scoring import score_source
from training.synthetic_users.pairs.source_pictures import reader_of

FloatArray = NDArray[np.float32]
SCORES, SUMMARY = "scores", "summary.json"


class RelabelConfig(RewardSources):
    """One relabelled data set."""

    sources: tuple[Path, ...]
    """Folders of training.precompute and of `pairs`."""
    rewards: tuple[str, ...]
    """The users, in this order."""
    out: Out
    side_px: int
    """Pictures of parquet files are read as squares of this side."""
    tie_margin: float = 0.1
    """In standard deviations of each reward's differences within pairs."""
    assignment: Assignment = "one"
    """Which users answer which pairs: see relabel.py."""
    bounds_out: Path | None = None
    """A second folder, in which every user answers every pair: there `only_person` of train_dpo
    has as many pairs and steps for a one-reward bound of Table 1 as PPD has; null: none."""
    batch: int = 64
    """Pictures that are scored at a time."""
    seed: Seed = 0


def make_relabelled(config: RelabelConfig, worker: Worker | None = None) -> dict[str, Any]:
    """Score, relabel and write; returns what summary.json of `out` holds.

    Of several processes all score, each on its own device, and the first writes. Scores that `out`
    holds already are used again. Raises ValueError for sources that cannot be read, and for a
    folder that is finished or was scored otherwise.
    """
    if (config.out / MANIFEST).exists():
        raise ValueError(f"{config.out} already holds shards; choose another folder")
    worker = worker or this_process()
    if worker.count > 1:
        own = str(worker.device)
        rewards = load_rewards(config.rewards, config.model_copy(update={"rewards_device": own}))
    else:
        rewards = load_rewards(config.rewards, config)
    sources = [read_source(folder) for folder in config.sources]
    pairs = []
    for number, source in enumerate(sources):
        read = reader_of(source.folder, config.side_px)
        folder = config.out / f"{SCORES}-{number}"
        scores_AX = score_source(source, rewards, read, folder, batch=config.batch, worker=worker)
        pairs.append(scores_AX[:, source.shown()[1].numpy()])
    scores_AP2 = np.concatenate(pairs, axis=1)
    if not worker.is_first:
        return {}
    if config.bounds_out is not None:
        _write(config, config.bounds_out, "all", sources, rewards, scores_AP2)
    report = _write(config, config.out, config.assignment, sources, rewards, scores_AP2)
    print(json.dumps(report, indent=2))
    return report


def _write(
    config: RelabelConfig,
    out: Path,
    assignment: Assignment,
    sources: Sequence[SourcePairs],
    rewards: Sequence[Reward],
    scores_AP2: FloatArray,
) -> dict[str, Any]:
    """One folder of these scores; returns what its summary.json holds.

    An equal one is left as it is. Raises ValueError for a folder that holds others.
    """
    answers = relabel(
        scores_AP2,
        tie_margin=config.tie_margin,
        assignment=assignment,
        rng=np.random.default_rng([config.seed, 33]),
    )
    people = people_tensors(sources, answers, len(rewards))
    provenance = {
        "encoder_id": "one_hot",
        "rewards": {reward.name: reward.identity for reward in rewards},
        "tie_margin": config.tie_margin,
        "tie_below": dict(zip(config.rewards, answers.tie_below_A.tolist(), strict=True)),
        "assignment": assignment,
        "seed": config.seed,
        "sources": [source.provenance for source in sources],
    }
    if (out / MANIFEST).exists() and read_manifest(out)["provenance"] == provenance:
        equal: dict[str, Any] = json.loads((out / SUMMARY).read_text())
        return equal
    # Summary and configuration first: with the manifest the folder is finished.
    report = {
        "source_pairs": [len(source) for source in sources],
        "pairs": len(answers),
        "users": {
            name: {
                **{
                    f"{split}_pairs": int(
                        ((people["person_P"] == a) & (people["split_P"] == code)).sum()
                    )
                    for code, split in enumerate(SPLITS[:2])
                },
                "ties": int(answers.ties_A[a]),
                "tie_below": float(answers.tie_below_A[a]),
                "mean": float(scores_AP2[a].mean()),
                "sd": float(scores_AP2[a].std()),
            }
            for a, name in enumerate(config.rewards)
        },
        "correlation_of_differences": np.corrcoef(scores_AP2[..., 1] - scores_AP2[..., 0]).tolist(),
    }
    save_resolved(config, out)
    write_json(out / SUMMARY, report)
    write_folder(out, sources, people, provenance)
    return report
