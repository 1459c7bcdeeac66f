"""Arms that are training seeds of one method: one strength for all, counted together.

Legend: S training seeds of a method, R comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from training.evaluate.painting import FloatArray
from training.reports.statistics import crossed_mean
from training.rivals.paintings import Paintings, Seen, gains, match
from training.rivals.rivals_config import RivalsConfig

Tried = Mapping[float, Mapping[str, Any]]


def strengths_of_methods(config: RivalsConfig, tried: Mapping[str, Tried]) -> dict[str, float]:
    """Of every arm, the one that is best for its method's arms on the average."""
    chosen: dict[str, float] = {}
    for arms in config.methods.values():
        strength = best_strength(averaged([tried[name] for name in arms]), config.content_kept)
        chosen |= dict.fromkeys(arms, strength)
    return chosen


def averaged(of_arms: Sequence[Tried]) -> dict[float, dict[str, dict[str, float]]]:
    """Gain and content kept over arms, at the strengths that all of them tried."""
    common = [s for s in of_arms[0] if all(s in tried for tried in of_arms)]
    return {
        s: {
            what: {"mean": float(np.mean([tried[s][what]["mean"] for tried in of_arms]))}
            for what in ("gain_sd", "content_kept")
        }
        for s in common
    }


def best_strength(found: Tried, content_kept: float) -> float:
    """Of the strengths that keep content the one that gains most; where none does, the least.

    Not the one that wins most over the base: a step that is hardly seen already wins nearly as
    often as a long one, so that by wins an arm would be shown at a strength that nobody notices.
    """
    keeps = [s for s, of in found.items() if of["content_kept"]["mean"] >= content_kept]
    if not keeps:
        return min(found)
    return max(keeps, key=lambda s: (found[s]["gain_sd"]["mean"], -s))


def of_methods(
    config: RivalsConfig, group: Paintings, seen: Mapping[str, Seen], base: Seen
) -> dict[str, Any]:
    """Each method of several seeds against the base and against the others, seed by seed."""
    seeds = {name: arms for name, arms in config.methods.items() if len(arms) > 1}

    def estimate(value_SR: FloatArray) -> dict[str, float | int]:
        return crossed_mean(value_SR, group.person_R, np.random.default_rng(72)).to_dict()

    def against(ours: str, theirs: Sequence[Seen]) -> dict[str, float | int]:
        pairs = zip(seeds[ours], theirs, strict=True)
        return estimate(np.stack([match(group, seen[name], other) for name, other in pairs]))

    return {
        "base": {
            name: {
                "wins": against(name, [base] * len(arms)),
                "gain_sd": estimate(np.stack([gains(group, seen[arm], base) for arm in arms])),
            }
            for name, arms in seeds.items()
        },
        "over": {
            f"{ours} over {theirs}": against(ours, [seen[name] for name in seeds[theirs]])
            for ours, theirs in permutations(seeds, 2)
        },
    }
