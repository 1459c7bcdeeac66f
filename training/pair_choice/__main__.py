"""START HERE for the open question of the paper's section 6: which pairs to ask.

    python -m training.pair_choice --config training/configs/mini_pair_choice.yaml [--resume]

Simulated people answer 1 to 8 pairs of the quiz's pool, chosen by

- "random": any pair;
- "spread": pairs that together tell most about all coordinates, whatever was answered (greedy
  D-optimal design);
- "active": the next pair maximises the expected information about the taste given the answers so
  far, in the coordinates of taste_space.py, which need no more than picture features and a
  population's choices;
- "oracle": the same, told the true looks of the pictures and the true population of tastes;
- "served_first": "spread" over true looks among 24 pairs drawn for the person, which is what the
  service asked first.

Measured after n = 1 ... 8 decided answers: the cosine to the true taste of the best estimate that
those answers allow (who asks well), and of a linear probe of the VLM's embedding (what the adapter
can be told); with `win_at`, wins of the personalised picture over the base's.

The VLM reads exactly four pairs. Of fewer than four answers it is shown the answers again in turn
until there are four; of more, the embedding is the mean over the least number of runs of four that
cover all answers, evenly placed ("mean"), or that of the four latest, as served ("latest").

The same person gives the same answer to the same pair whoever asks. A pair they cannot decide is
a tie: it counts for nothing but what "active" and "oracle" learn of it, and is not asked again.

Writes OUT/report.json, OUT/pair_choice.png and OUT/embeddings (resumable).

How pairs are chosen is in quiz/pair_strategies.py.

Legend: P pairs of the pool, U people, N answers, L looks, D embedding, S samples of the population,
W sets that are read, R comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from ppd_model.user_encoder import UserEncoder
from training.evaluate.painting import SAME_WITHIN, Judge, Painter, spread_prompts
from training.jobs.command_line import run_job
from training.jobs.configuration import git_commit, save_resolved
from training.jobs.files import write_json
from training.jobs.shared_options import SolverOptions
from training.pair_choice.pair_choice_config import PairChoiceConfig
from training.pair_choice.readings import by_strategy, cosines, embed, probe
from training.quiz.pair_strategies import (
    FloatArray,
    QuizRules,
    estimates,
    play,
)
from training.quiz.quizzes import load_quiz_pool
from training.quiz.taste_model import TasteSpace
from training.reports.plots import INK, OTHER, OURS, as_png
from training.reports.statistics import wins
from training.reports.tables import markdown_table
from training.taste_space import pool_deltas
from training.world import tastes
from training.world.people import person_seeds, taste_of


def run(config: PairChoiceConfig, resume: bool = False) -> dict[str, Any]:
    """Ask, estimate, read, paint, write; returns the report."""
    torch.set_num_threads(config.threads)
    save_resolved(config, config.out)
    judge = Judge.load(config.weights_dir)
    encoder = UserEncoder.load(config.preset, config.weights_dir)
    coordinates_PK = None
    if config.taste_space is not None:
        space = TasteSpace.load(config.taste_space)
        coordinates_PK = space.coordinates(pool_deltas(config.pool_dir, encoder))
    pool = load_quiz_pool(config.pool_dir, judge.looks, coordinates_PK)
    population = tastes.Population()
    seeds = person_seeds(config.split, config.people, config.first_person)
    taste_UL = np.stack([taste_of(population, seed) for seed in seeds]).astype(np.float64)
    prior_SL = population.sample(
        config.population_samples, np.random.default_rng([config.seed, 19])
    ).astype(np.float64)
    rules = QuizRules(config.answers, config.near_best, config.tie_below, config.oracle_samples)
    asked = {
        strategy: [
            play(strategy, pool, taste_L, seed, prior_SL, rules)
            for taste_L, seed in zip(taste_UL, seeds, strict=True)
        ]
        for strategy in config.strategies
    }
    report: dict[str, Any] = {
        "commit": git_commit(),
        "encoder_version": encoder.encoder_version,
        "people": {"split": config.split, "first": config.first_person, "count": config.people},
        "pool_pairs": len(pool.pair_ids),
        "near_best": config.near_best,
        "seed": config.seed,
        "ties": {
            name: float(np.mean([len(one.pairs) - config.answers for one in quizzes]))
            for name, quizzes in asked.items()
        },
        "best_estimate": cosines(
            {
                name: estimates(quizzes, pool, prior_SL, config.answers)
                for name, quizzes in asked.items()
            },
            taste_UL,
            config,
        ),
    }
    if config.probe_data is not None:
        embedded = embed(asked, pool, encoder, config, resume)
        probed = probe(embedded, config.probe_data)
        report["probe"] = {
            way: cosines({name: of[way] for name, of in probed.items()}, taste_UL, config)
            for way in ("mean", "latest")
        }
        if config.win_at:
            mean_emb = {name: of["mean"] for name, of in embedded.items()}
            report |= pictures_report(mean_emb, taste_UL, seeds, judge, config)
    write_json(config.out / "report.json", report)
    (config.out / "pair_choice.png").write_bytes(plot(report))
    print(format_table(report))
    return report


def pictures_report(
    emb_UND: dict[str, FloatArray],
    taste_UL: FloatArray,
    seeds: Sequence[int],
    judge: Judge,
    config: PairChoiceConfig,
) -> dict[str, Any]:
    """Wins and gains (sd) over the base, same prompt and seed, after each number of `win_at`.

    Every strategy and number of answers has a person's same prompts and seeds.
    """
    options = SolverOptions(batch=config.picture_batch)
    painter = Painter.load(config, judge, options)
    rng = np.random.default_rng([config.seed, seeds[0], 24])
    prompts = spread_prompts(len(seeds) * config.prompts, seeds[0] + 1000, rng)
    base = painter.paint("base", prompts, [None] * len(prompts))
    taste_RL = np.repeat(taste_UL, config.prompts, axis=0).astype(np.float32)
    base_R = tastes.utility(taste_RL, base.looks)
    rates: dict[str, FloatArray] = {}
    gains: dict[str, FloatArray] = {}
    for strategy, emb in emb_UND.items():
        won, gained = [], []
        for n in config.win_at:
            emb_RD = np.repeat(emb[:, n - 1], config.prompts, axis=0).astype(np.float32)
            shown = painter.paint(f"{strategy} after {n}", prompts, list(emb_RD))
            outcome_R = wins(tastes.utility(taste_RL, shown.looks), base_R, SAME_WITHIN)
            won.append(outcome_R.reshape(len(seeds), config.prompts).mean(1))
            gain_R = (taste_RL * (shown.looks - base.looks)).sum(1)
            gained.append(gain_R.reshape(len(seeds), config.prompts).mean(1))
        rates[strategy] = np.stack(won, axis=1)
        gains[strategy] = np.stack(gained, axis=1)
    boot = np.random.default_rng([config.seed, 25])
    made_by = {
        "adapter_version": painter.pipeline.adapter_version,
        "encoder_id": painter.pipeline.encoder_id,
    }
    return {
        "wins": made_by | by_strategy(rates, config.win_at, boot),
        "gains_sd": by_strategy(gains, config.win_at, boot),
    }


def format_table(report: dict[str, Any]) -> str:
    """Each measure as a Markdown table, strategies in rows."""
    parts = [("cosine of the best estimate", report["best_estimate"])]
    parts += [(f"cosine of the probe, {way}", of) for way, of in report.get("probe", {}).items()]
    if "wins" in report:
        parts.append(("wins over the base", report["wins"]))
        parts.append(("gain over the base, sd", report["gains_sd"]))
    lines = []
    for what, measured in parts:
        numbers = list(next(iter(measured["of"].values())))
        rows = [
            [name, *(f"{row[n]['mean']:.3f}" for n in numbers)]
            for name, row in measured["of"].items()
        ]
        lines += [f"\n{what}\n", markdown_table(["answers", *numbers], rows)]
    return "\n".join(lines)


def plot(report: dict[str, Any]) -> bytes:
    """Every measure over the number of answers, a line for each strategy."""
    parts = [("best estimate, cosine", report["best_estimate"])]
    if "probe" in report:
        parts.append(("probe of the embedding, cosine", report["probe"]["mean"]))
    if "wins" in report:
        parts.append(("wins over the base", report["wins"]))
    colours = {
        "random": (OTHER, "-"),
        "served_first": (OTHER, "--"),
        "spread": (OURS, "--"),
        "active": (OURS, "-"),
        "oracle": (INK, ":"),
    }
    figure = Figure(figsize=(4.2 * len(parts), 3.4), layout="constrained")
    for axes, (what, measured) in zip(
        np.atleast_1d(figure.subplots(1, len(parts))), parts, strict=True
    ):
        for name, row in measured["of"].items():
            colour, line = colours[name]
            numbers = [int(n) for n in row]
            mean = [value["mean"] for value in row.values()]
            axes.plot(numbers, mean, line, color=colour, label=name.replace("_", " "))
        axes.set_xlabel("decided answers")
        axes.set_title(what, fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    return as_png(figure)


if __name__ == "__main__":
    run_job(run, PairChoiceConfig, __doc__)
