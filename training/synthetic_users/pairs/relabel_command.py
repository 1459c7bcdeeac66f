"""From folders of pairs to one that three synthetic users have labelled.

Legend: A rewards, P pairs, X pictures shown with a caption.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from training.data.shards import MANIFEST
from training.data.splits import SPLITS
from training.jobs.configuration import save_resolved
from training.jobs.files import write_json
from training.jobs.shared_options import Out, Seed
from training.rewards.catalog import RewardSources, load_rewards
from training.synthetic_users.pairs.pair_folder import people_tensors, read_source, write_folder
from training.synthetic_users.pairs.relabel import Assignment, relabel
from training.synthetic_users.pairs.scoring import score_source
from training.synthetic_users.pairs.source_pictures import reader_of

SCORES = "scores"


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
    batch: int = 64
    """Pictures that are scored at a time."""
    seed: Seed = 0


def make_relabelled(config: RelabelConfig) -> dict[str, Any]:
    """Score, relabel and write; returns what summary.json holds.

    Scores that `out` holds already are used again. Raises ValueError for sources that cannot be
    read, and for a folder that is finished or was scored otherwise.
    """
    if (config.out / MANIFEST).exists():
        raise ValueError(f"{config.out} already holds shards; choose another folder")
    rewards = load_rewards(config.rewards, config)
    sources = [read_source(folder) for folder in config.sources]
    pairs = []
    for number, source in enumerate(sources):
        read = reader_of(source.folder, config.side_px)
        folder = config.out / f"{SCORES}-{number}"
        scores_AX = score_source(source, rewards, read, folder, batch=config.batch)
        pairs.append(scores_AX[:, source.shown()[1].numpy()])
    scores_AP2 = np.concatenate(pairs, axis=1)
    answers = relabel(
        scores_AP2,
        tie_margin=config.tie_margin,
        assignment=config.assignment,
        rng=np.random.default_rng([config.seed, 33]),
    )
    people = people_tensors(sources, answers, len(rewards))
    provenance = {
        "encoder_id": "one_hot",
        "rewards": {reward.name: reward.identity for reward in rewards},
        "tie_margin": config.tie_margin,
        "tie_below": dict(zip(config.rewards, answers.tie_below_A.tolist(), strict=True)),
        "assignment": config.assignment,
        "seed": config.seed,
        "sources": [source.provenance for source in sources],
    }
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
    save_resolved(config, config.out)
    write_json(config.out / "summary.json", report)
    write_folder(config.out, sources, people, provenance)
    print(json.dumps(report, indent=2))
    return report
