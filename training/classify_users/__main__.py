"""START HERE for Figure 2: who answered? A classifier on frozen embeddings names the person.

    python -m training.classify_users --config training/configs/mini_classify_users.yaml [--resume]

300 people answer up to 20 sets of four pairs; the VLM reads each set on the path of serving. A
residual MLP learns which embedding is whose on most sets of each person and is tested on others,
and again with other sets for the test, `folds` times: top-k accuracy for k = 1 ... 64, against
chance and against two oracles that see the true looks of the same four pairs and which picture was
preferred:

- "oracle_classifier": the same classifier, trained on those looks in the place of embeddings;
- "oracle_bayes": the posterior over the known tastes of the 300. It is told the tastes, which the
  classifiers must learn from a few sets, so it is what no reader of four answers can beat.

`data` reads a folder that training.precompute wrote (Pick-a-Pic: no oracle); without it people of
the world answer pictures of the store, and OUT/sets holds what the VLM read, resumable.
Writes OUT/report.json and OUT/top_k.png.

Legend: U people, E sets, 4 answers each, D embedding, L looks, B rows of a batch, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from training.classify_users.classify_config import ClassifyConfig
from training.classify_users.peoples_sets import FloatArray, IntArray, ask_people, load_sets
from training.classify_users.residual_classifier import Parts, classify_all, split
from training.jobs.command_line import run_job
from training.jobs.configuration import git_commit, save_resolved
from training.jobs.files import write_json
from training.reports.plots import INK, OTHER, OURS, as_png
from training.reports.statistics import (
    NothingToDivideByError,
    as_shares,
    clustered_mean,
    clustered_ratio,
)
from training.reports.tables import markdown_table
from training.world import tastes

TOP_K = (1, 2, 4, 8, 16, 32, 64)


def run(config: ClassifyConfig, resume: bool = False) -> dict[str, Any]:
    """Read or ask, train, test, write; returns the report."""
    torch.set_num_threads(config.threads)
    save_resolved(config, config.out)
    folder = config.data or ask_people(config, resume)
    sets = load_sets(folder, config.people, config.sets)
    folds = split(
        sets.person_E, config.validation_sets, config.test_sets, config.folds, config.seed
    )
    tested_E = np.concatenate([parts.test_E for parts in folds])
    scores = {"embedding": classify_all(sets.user_emb_ED, sets, folds, config)}
    if sets.signed_E4L is not None and sets.taste_UL is not None:
        looks_EF = torch.from_numpy(sets.signed_E4L).flatten(1).float()
        scores["oracle_classifier"] = classify_all(looks_EF, sets, folds, config, answers=4)
        scores["oracle_bayes"] = bayes_scores(sets.signed_E4L[tested_E], sets.taste_UL)
    report = report_of(scores, sets.person_E[tested_E], folds, config)
    write_json(config.out / "report.json", report)
    (config.out / "top_k.png").write_bytes(plot(report))
    print(format_table(report))
    return report


def bayes_scores(signed_E4L: FloatArray, taste_UL: FloatArray) -> FloatArray:
    """Log probability of each set's answers for each known taste (Bradley-Terry), E x U."""
    margin_E4U = tastes.CHOICE_SCALE * signed_E4L @ taste_UL.T
    scores: FloatArray = (-np.logaddexp(0, -margin_E4U).sum(axis=1)).astype(np.float32)
    return scores


def ranks(scores_EU: FloatArray, person_E: IntArray) -> FloatArray:
    """How many people score above the true one; those who score the same count one half."""
    true_E1 = scores_EU[np.arange(len(person_E)), person_E][:, None]
    above = (scores_EU > true_E1).sum(1)
    same = (scores_EU == true_E1).sum(1) - 1
    found: FloatArray = above + same / 2
    return found


def report_of(
    scores: dict[str, FloatArray],
    person_E: IntArray,
    folds: Sequence[Parts],
    config: ClassifyConfig,
) -> dict[str, Any]:
    """Top-k accuracies with intervals over people, chance, and ratios to the oracles.

    scores: of the test sets, whose people are person_E.
    """
    rng = np.random.default_rng([config.seed, 18])
    people = len(np.unique(person_E))
    counted = [k for k in TOP_K if k <= people]
    within = {
        name: {k: (ranks(scores_EU, person_E) < k).astype(float) for k in counted}
        for name, scores_EU in scores.items()
    }
    return {
        "commit": git_commit(),
        "people": people,
        "folds": len(folds),
        "sets": {name: len(rows) for name, rows in vars(folds[0]).items()},
        "seed": config.seed,
        "chance": {str(k): k / people for k in counted},
        "top": {
            name: {str(k): clustered_mean(of[k], person_E, rng).to_dict() for k in counted}
            for name, of in within.items()
        },
        "share_of_oracle": {
            name: {str(k): share(within["embedding"][k], of[k], person_E, rng) for k in counted}
            for name, of in within.items()
            if name != "embedding"
        },
    }


def share(
    ours_E: FloatArray, oracle_E: FloatArray, person_E: IntArray, rng: np.random.Generator
) -> dict[str, Any] | None:
    """Our accuracy over the oracle's; None where the oracle is too seldom right to divide by."""
    try:
        return clustered_ratio(ours_E, oracle_E, person_E, rng).to_dict()
    except NothingToDivideByError:
        return None


def format_table(report: dict[str, Any]) -> str:
    """Top-k accuracies as a Markdown table."""
    names = list(report["top"])
    rows = [
        [k, f"{chance:.1%}", *(as_shares(report["top"][name][k]) for name in names)]
        for k, chance in report["chance"].items()
    ]
    lines = [markdown_table(["k", "chance", *names], rows)]
    for name, shares in report["share_of_oracle"].items():
        lines.append(f"\nof {name}, top-16: {as_shares(shares.get('16'))}")
    return "\n".join(lines)


def plot(report: dict[str, Any]) -> bytes:
    """Top-k accuracy over k (Figure 2)."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    ks = [int(k) for k in report["chance"]]
    looks = {
        "embedding": ("embedding", OURS, "-"),
        "oracle_classifier": ("true looks, same classifier", INK, "--"),
        "oracle_bayes": ("true looks and tastes, Bayes", INK, ":"),
    }
    for name, top in report["top"].items():
        label, colour, line = looks[name]
        mean = [top[str(k)]["mean"] for k in ks]
        axes.plot(ks, mean, line, color=colour, label=label, marker="o", markersize=3)
        if name == "embedding":
            low, high = ([top[str(k)][end] for k in ks] for end in ("low", "high"))
            axes.fill_between(ks, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(ks, list(report["chance"].values()), color=OTHER, label="chance")
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.set_ylim(0, 1)
    axes.set_xlabel("k")
    axes.set_ylabel(f"top-k accuracy of {report['people']} people")
    axes.legend(frameon=False)
    return as_png(figure)


if __name__ == "__main__":
    run_job(run, ClassifyConfig, __doc__)
