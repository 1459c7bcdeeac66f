"""Table 1, Figure 3 and Figure 4: painting the arms, and writing what they show.

Legend: A rewards, K prompts, W points of the simplex, D embedding.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from ppd_model.files.artifact import ArtifactSpec, sha256_of
from training.data.shards import MANIFEST, read_manifest
from training.jobs.configuration import git_commit, save_resolved
from training.jobs.files import write_json
from training.jobs.picture_batches import sampling_of
from training.precompute.processes import Worker, this_process
from training.synthetic_users.arms import (
    Arm,
    ArmScores,
    ScoredPictures,
    adapter_of,
    everybody,
    one_hot,
    weighted,
)
from training.synthetic_users.comparison_plots import plot_edges, plot_simplex, plot_wins
from training.synthetic_users.prompt_lists import load_prompts
from training.synthetic_users.simplex import edge, follow_weights, simplex
from training.synthetic_users.table_one import BASE, BOUND, OURS, as_markdown, table_one

FloatArray = NDArray[np.float32]
REPORT = "report.json"


class PaintingConfig(ScoredPictures):
    """Options of both experiments."""

    relabelled: Path
    """Data of `relabel`, to check the order of the rewards by."""
    ppd: Path
    """Adapter trained with objective ppd."""
    prompts: str = "world"
    """"world", a tsv of PartiPrompts, or a text file."""
    first_prompts: int | None = None
    """An even choice of so many prompts; null: all."""


class EvaluateConfig(PaintingConfig):
    """Table 1: an adapter for each row.

    Without all bounds nothing is said of what lies between base and bound.
    """

    diffusion_dpo: Path | None = None
    """Adapter of that row; null leaves it out."""
    sft: Path | None = None
    """Adapter of that row; null leaves it out."""
    bounds: dict[str, Path] = Field(default_factory=dict)
    """Single-reward adapters, by the name of the reward."""
    bounds_relabelled: Path | None = None
    """Data that they were trained on (`bounds_out` of relabel); null: `relabelled`."""


class InterpolateConfig(PaintingConfig):
    """Figure 4."""

    parts: int = 4
    """Weights are multiples of 1 / parts."""


def evaluate(
    config: EvaluateConfig, resume: bool = False, worker: Worker | None = None
) -> dict[str, Any]:
    """Paint every row of Table 1, write report.json, table.md and wins.png; returns the report.

    Several processes share the pictures of each arm, and the first writes.
    """
    names = config.rewards
    unknown = sorted(config.bounds.keys() - set(names))
    if unknown or 0 < len(config.bounds) < len(names):
        raise ValueError(f"bounds of {sorted(config.bounds)}: expected {list(names)} or none")
    adapters = {"ppd": config.ppd, "sft": config.sft, "diffusion_dpo": config.diffusion_dpo}
    adapters |= {f"bound-{name}": path for name, path in config.bounds.items()}
    for method, path in adapters.items():
        if path is not None:
            spec = adapter_of(path, ("one_hot",) if method in ("ppd", "sft") else ("none",))
            if method.startswith(BOUND):
                check_trained_on(config.bounds_relabelled or config.relabelled, path, spec)
            elif method != "diffusion_dpo":  # which learned what people said, not rewards
                check_trained_on(config.relabelled, path, spec)
    scores = start(config, resume, worker or this_process())
    width = scores.pipeline.preset.user_emb_dim

    base_AK = scores.score(Arm(BASE, None, None))
    by_condition: dict[str, Any] = {}
    own_AK = {BASE: base_AK}
    if config.diffusion_dpo is not None:
        arm = Arm("diffusion_dpo", config.diffusion_dpo, everybody(width))
        own_AK["diffusion_dpo"] = scores.score(arm)
    for method, path in (("sft", config.sft), (OURS, config.ppd)):
        if path is None:
            continue
        for_each = [
            scores.score(Arm(f"{method}-{name}", path, one_hot(a, len(names), width)))
            for a, name in enumerate(names)
        ]
        by_condition[method] = conditions(names, for_each)
        own_AK[method] = np.stack([for_each[a][a] for a in range(len(names))])
    if config.bounds:
        bounds = [
            scores.score(Arm(f"bound-{name}", config.bounds[name], everybody(width)))
            for name in names
        ]
        by_condition[BOUND] = conditions(names, bounds)
        own_AK[BOUND] = np.stack([bounds[a][a] for a in range(len(names))])

    report = facts(config, scores)
    report |= table_one(names, own_AK, np.random.default_rng([config.seed, 41]))
    report["every_reward_for_every_user"] = by_condition
    if not scores.worker.is_first:
        return report
    table = as_markdown(names, report)
    write_json(config.out / REPORT, report)
    (config.out / "table.md").write_text(table + "\n")
    (config.out / "wins.png").write_bytes(plot_wins(names, report["wins_of_ppd_over"]))
    print(table)
    print(f"{config.out / REPORT} ({report['minutes']:.1f} minutes)")
    return report


def interpolate(
    config: InterpolateConfig, resume: bool = False, worker: Worker | None = None
) -> dict[str, Any]:
    """Paint the simplex of weights, write report.json and the plots; returns the report.

    Several processes share the pictures of each arm, and the first writes.
    """
    names = config.rewards
    if len(names) != 3:
        raise ValueError(f"rewards {list(names)}: the triangle of Figure 4 needs three")
    check_trained_on(config.relabelled, config.ppd, adapter_of(config.ppd, ("one_hot",)))
    points = simplex(len(names), config.parts)
    scores = start(config, resume, worker or this_process())
    width = scores.pipeline.preset.user_emb_dim
    arms = [
        Arm("weights-" + "-".join(f"{weight:.3f}" for weight in point), config.ppd, emb_D)
        for point in points
        for emb_D in [weighted(point, width)]
    ]
    scores_WAK = np.stack([scores.score(arm) for arm in arms])
    mean_WA = scores_WAK.mean(2)
    report = facts(config, scores)
    report["points"] = [
        {"weights": list(point), "mean": dict(zip(names, mean_A.tolist(), strict=True))}
        for point, mean_A in zip(points, mean_WA, strict=True)
    ]
    rng = np.random.default_rng([config.seed, 42])
    report |= {"spearman": follow_weights(names, points, scores_WAK, rng)}
    if not scores.worker.is_first:
        return report
    write_json(config.out / REPORT, report)
    (config.out / "simplex.png").write_bytes(plot_simplex(names, points, mean_WA))
    (config.out / "edges.png").write_bytes(plot_edges(names, lines(names, points, mean_WA)))
    triangle = triangle_of([scores.strip(arm) for arm in arms], config.parts)
    Image.fromarray(triangle).save(config.out / "pictures.png")
    rho = report["spearman"]["mean_over_edges"]
    print(
        f"Spearman's rho, mean over edges: {rho['mean']:.3f} [{rho['low']:.3f}, {rho['high']:.3f}]"
    )
    print(f"{config.out / REPORT} ({report['minutes']:.1f} minutes)")
    return report


def start(config: PaintingConfig, resume: bool, worker: Worker) -> ArmScores:
    """Everything that is loaded before the first picture."""
    check_order(config.relabelled, config.rewards)
    prompts = load_prompts(config.prompts).first(config.first_prompts)
    scores = ArmScores(config, prompts, resume, worker)
    if worker.is_first:
        save_resolved(config, config.out)
    return scores


def check_order(relabelled: Path, rewards: Sequence[str]) -> None:
    """Raises ValueError unless the data's synthetic users like these rewards in this order."""
    found = list(read_manifest(relabelled)["provenance"].get("rewards", {}))
    if found != list(rewards):
        raise ValueError(f"{relabelled} was relabelled by {found}, rewards are {list(rewards)}")


def check_trained_on(relabelled: Path, adapter: Path, spec: ArtifactSpec) -> None:
    """Raises ValueError for an adapter that says it was trained on other data."""
    found, expected = spec.extra.get("data_sha256"), sha256_of(relabelled / MANIFEST)
    if found not in (None, expected):
        raise ValueError(f"{adapter} was trained on other data than {relabelled}")


def facts(config: PaintingConfig, scores: ArmScores) -> dict[str, Any]:
    """What every report says of how it came about."""
    prompts = scores.prompts
    return {
        "preset": config.preset,
        "commit": git_commit(),
        "model": scores.pipeline.model_id,
        "rewards": {reward.name: reward.identity for reward in scores.rewards},
        "prompts": {"list": prompts.name, "count": len(prompts), "sha256": prompts.sha256},
        **sampling_of(config),
        "personalize_below": scores.pipeline.preset.personalize_below,
        "seed": config.seed,
        "minutes": (time.monotonic() - scores.started_s) / 60,
    }


def conditions(names: Sequence[str], for_each: Sequence[FloatArray]) -> dict[str, Any]:
    """Mean of every reward for every user: what one user's pictures do for the others."""
    return {
        user: dict(zip(names, scores_AK.mean(1).tolist(), strict=True))
        for user, scores_AK in zip(names, for_each, strict=True)
    }


def lines(
    names: Sequence[str], points: Sequence[tuple[float, ...]], mean_WA: FloatArray
) -> dict[str, list[tuple[float, float]]]:
    """Each reward's mean along each of its edges, by its weight."""
    return {
        f"{name} from {other}": [
            (points[place][a], float(mean_WA[place, a])) for place in edge(points, b, a)
        ]
        for (a, name), (b, other) in permutations(enumerate(names), 2)
    }


def triangle_of(strips: Sequence[NDArray[np.uint8]], parts: int) -> NDArray[np.uint8]:
    """The first prompt's picture at every point, rows by the first reward's falling weight."""
    side = strips[0].shape[0]
    sheet = np.full((side * (parts + 1), side * (parts + 1), 3), 255, dtype=np.uint8)
    place = 0
    for row in range(parts + 1):
        indent = (parts - row) * side // 2
        for column in range(row + 1):
            left = indent + column * side
            sheet[row * side : (row + 1) * side, left : left + side] = strips[place][:, :side]
            place += 1
    return sheet
