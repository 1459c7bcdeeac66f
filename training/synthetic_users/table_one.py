"""Table 1 and Figure 3 from scores, pure.

Every interval redraws prompts: an arm's pictures of one prompt share the seed with every other
arm's, so differences are paired.

Legend: A rewards, K prompts, D bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.reports.statistics import Estimate, clustered_mean, wins
from training.reports.tables import markdown_table

FloatArray = NDArray[np.floating[Any]]
BASE, OURS, BOUND = "base", "ppd", "bound"
SAME_WITHIN = 1e-4
"""Scores this close are no win for either: a picture computed in another batch differs by less."""

DRAWS = 4000


def table_one(
    rewards: tuple[str, ...], own_AK: Mapping[str, FloatArray], rng: np.random.Generator
) -> dict[str, Any]:
    """Mean rewards of every method, and ours between base and upper bound, for each reward.

    own_AK: for each method the scores that count: row a holds reward a of the pictures made for
    the user who likes reward a (of the one picture there is, for methods without a user; of the
    model trained for a alone, for "bound"). Raises ValueError without "base" and "ppd".
    """
    missing = {BASE, OURS} - own_AK.keys()
    if missing:
        raise ValueError(f"no scores of {', '.join(sorted(missing))}")
    means = {
        method: {reward: mean(scores_AK[a], rng).to_dict() for a, reward in enumerate(rewards)}
        for method, scores_AK in own_AK.items()
    }
    won = {
        method: {
            reward: win_rate(own_AK[OURS][a], scores_AK[a], rng).to_dict()
            for a, reward in enumerate(rewards)
        }
        for method, scores_AK in own_AK.items()
        if method != OURS
    }
    report: dict[str, Any] = {"means": means, "wins_of_ppd_over": won}
    if BOUND in own_AK:
        report["between_base_and_bound"] = {
            method: {
                reward: share_of_bound(own_AK[BASE][a], own_AK[method][a], own_AK[BOUND][a], rng)
                for a, reward in enumerate(rewards)
            }
            for method in own_AK
            if method not in (BASE, BOUND)
        }
    return report


def mean(scores_K: FloatArray, rng: np.random.Generator) -> Estimate:
    return clustered_mean(scores_K, np.arange(len(scores_K)), rng, DRAWS)


def win_rate(ours_K: FloatArray, theirs_K: FloatArray, rng: np.random.Generator) -> Estimate:
    """How often ours scores higher on the same prompt and seed."""
    return mean(wins(ours_K, theirs_K, SAME_WITHIN), rng)


def share_of_bound(
    base_K: FloatArray, ours_K: FloatArray, bound_K: FloatArray, rng: np.random.Generator
) -> dict[str, Any]:
    """(ours - base) / (bound - base) of the means: 0 is the base, 1 the single-reward model.

    Where the bound's own gain cannot be told from zero there is nothing to measure by: "share" is
    None then, and "bound_gain" says why. The interval redraws prompts and takes the quotient anew.
    """
    gain_K, reach_K = ours_K - base_K, bound_K - base_K
    reach = mean(reach_K, rng)
    report: dict[str, Any] = {"bound_gain": reach.to_dict(), "share": None}
    if reach.low <= 0:
        return report
    picks_DK = rng.integers(len(base_K), size=(DRAWS, len(base_K)))
    share_D = gain_K[picks_DK].mean(1) / reach_K[picks_DK].mean(1)
    share = float(gain_K.mean() / reach_K.mean())
    report["share"] = Estimate.of_draws(share, share_D, len(base_K)).to_dict()
    return report


def as_markdown(rewards: tuple[str, ...], report: Mapping[str, Any]) -> str:
    """The table as the paper prints it, with intervals."""
    titles = {
        BASE: "base",
        "diffusion_dpo": "Diffusion-DPO",
        "sft": "SFT",
        OURS: "ours (PPD)",
        BOUND: "Diffusion-DPO (one reward)",
    }
    rows = [
        [title, *(_cell(report["means"][method][reward]) for reward in rewards)]
        for method, title in titles.items()
        if method in report["means"]
    ]
    shares = report.get("between_base_and_bound", {}).get(OURS)
    if shares:
        between = (shares[reward]["share"] for reward in rewards)
        cells = [_cell(share) if share else "no gain of the bound" for share in between]
        rows.append(["ours, base 0 and one-reward model 1", *cells])
    return markdown_table(["", *rewards], rows)


def _cell(estimate: Mapping[str, float]) -> str:
    return f"{estimate['mean']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
