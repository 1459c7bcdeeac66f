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

The asking itself is in asking.py.

Legend: P pairs of the pool, U people, N answers, L looks, D embedding, S samples of the population,
W sets that are read, R comparisons.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file

from ppd_model.pipeline import MINI_WEIGHTS_DIR, Pipeline
from ppd_model.user_encoder import UserEncoder
from training.configuration import Configuration, git_commit, parse_command_line, save_resolved
from training.data.preferences import CHOICES_PER_PROFILE
from training.data.shards import ShardFolder, read_manifest, verified
from training.evaluate.__main__ import (
    CLASSIFIER,
    SAME_WITHIN,
    EvaluateConfig,
    Judge,
    Painter,
    prompt_of,
    spread_contents,
)
from training.quiz.answered_sets import read_sets
from training.quiz.pair_strategies import (
    STRATEGIES,
    Asked,
    AskedPool,
    Asking,
    FloatArray,
    Strategy,
    estimates,
    play,
)
from training.quiz.quizzes import NEAR_BEST, POOL_DIR, choices_of, load_asked_pool
from training.quiz.taste_model import TasteSpace
from training.reports.plots import INK, OTHER, OURS, as_png
from training.reports.statistics import clustered_mean, ridge_probe, wins
from training.taste_space import pool_deltas
from training.world import users
from training.world.people import person_seeds, taste_of


class PairChoiceConfig(Configuration):
    """Who is asked, by which strategies, and what is measured.

    near_best: see Asking. probe_data: what precompute wrote, for the linear probe; None leaves the
    VLM out. win_at: numbers of answers at which pictures are compared.
    """

    out: Path
    taste_space: Path
    pool_dir: Path = POOL_DIR
    preset: str = "mini"
    weights_dir: Path | None = None
    probe_data: Path | None = None
    adapter: Path | None = None
    strategies: tuple[Strategy, ...] = STRATEGIES
    near_best: float = NEAR_BEST
    people: int = 64
    split: Literal["train", "validate", "test"] = "test"
    first_person: int = 20_000
    answers: int = 8
    win_at: tuple[int, ...] = ()
    prompts: int = 4
    tie_below: float = 0.1
    population_samples: int = 20_000
    oracle_samples: int = 1_000
    encode_batch: int = 32
    picture_batch: int = 32
    threads: int = 1
    seed: int = 0


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    config, resume = parse_command_line(PairChoiceConfig, argv, __doc__)
    run(config, resume)


def run(config: PairChoiceConfig, resume: bool = False) -> dict[str, Any]:
    """Ask, estimate, read, paint, write; returns the report."""
    torch.set_num_threads(config.threads)
    save_resolved(config, config.out)
    weights_dir = config.weights_dir or MINI_WEIGHTS_DIR
    judge = Judge.load(weights_dir / "standardizer.json", CLASSIFIER)
    encoder = UserEncoder.load(config.preset, config.weights_dir)
    space = TasteSpace.load(config.taste_space)
    coordinates_PK = space.coordinates(pool_deltas(config.pool_dir, encoder))
    pool = load_asked_pool(config.pool_dir, judge.looks, coordinates_PK)
    population = users.Population()
    seeds = person_seeds(config.split, config.people, config.first_person)
    taste_UL = np.stack([taste_of(population, seed) for seed in seeds]).astype(np.float64)
    prior_SL = population.sample(
        config.population_samples, np.random.default_rng([config.seed, 19])
    ).astype(np.float64)
    asking = Asking(config.answers, config.near_best, config.tie_below, config.oracle_samples)
    asked = {
        strategy: [
            play(strategy, pool, taste_L, seed, prior_SL, asking)
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
            report["wins"] = win_rates(mean_emb, taste_UL, seeds, judge, config)
    (config.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (config.out / "pair_choice.png").write_bytes(plot(report))
    print(format_table(report))
    return report


def sets_of(answers: int) -> list[tuple[int, ...]]:
    """The sets of four that stand for `answers` answers, as places among them (see above)."""
    if answers < CHOICES_PER_PROFILE:
        return [tuple(place % answers for place in range(CHOICES_PER_PROFILE))]
    count = -(-answers // CHOICES_PER_PROFILE)
    starts = np.linspace(0, answers - CHOICES_PER_PROFILE, count).round().astype(int).tolist()
    return [tuple(range(start, start + CHOICES_PER_PROFILE)) for start in starts]


def embed(
    asked: Mapping[Strategy, list[Asked]],
    pool: AskedPool,
    encoder: UserEncoder,
    config: PairChoiceConfig,
    resume: bool,
) -> dict[str, dict[str, FloatArray]]:
    """For each strategy the embeddings after n answers, "mean" and "latest", U x N x D.

    Raises ValueError when the VLM could not read a set.
    """
    made_with = config.model_dump(
        mode="json", include={"people", "split", "first_person", "answers", "near_best", "seed"}
    )
    made_with |= {"encoder": encoder.encoder_version, "pairs": pool.pair_ids}
    folder = ShardFolder(config.out / "embeddings", made_with, resume)
    wanted = sorted({places for n in range(1, config.answers + 1) for places in sets_of(n)})
    found: dict[str, dict[str, FloatArray]] = {}
    for strategy, quizzes in asked.items():
        name = f"{strategy}.safetensors"
        if not folder.has(name):
            many = [choices_of(quiz, pool, places) for quiz in quizzes for places in wanted]
            read = read_sets(encoder, many, batch=config.encode_batch, what=strategy)
            if not read.readable.all():
                raise ValueError(f"{strategy}: the VLM could not read {(~read.readable).sum()}")
            folder.write(name, {"user_emb_ED": torch.from_numpy(read.user_emb_ED)})
        emb_ED = load_file(folder.folder / name)["user_emb_ED"].double().numpy()
        emb_UWD = emb_ED.reshape(len(quizzes), len(wanted), -1)
        of_set = {places: emb_UWD[:, place] for place, places in enumerate(wanted)}
        numbers = range(1, config.answers + 1)
        found[strategy] = {
            "mean": np.stack(
                [np.mean([of_set[places] for places in sets_of(n)], axis=0) for n in numbers],
                axis=1,
            ),
            "latest": np.stack([of_set[sets_of(n)[-1]] for n in numbers], axis=1),
        }
    folder.finish()
    return found


def probe(
    embedded: dict[str, dict[str, FloatArray]], probe_data: Path
) -> dict[str, dict[str, FloatArray]]:
    """Tastes as a ridge regression reads them from embeddings, U x N x L."""
    manifest = read_manifest(probe_data)
    shards = [load_file(path) for path in verified(probe_data, manifest, "people-")]
    seen_ED = np.concatenate([shard["user_emb_ED"].double().numpy() for shard in shards])
    taste_EL = np.concatenate(
        [shard["taste_UL"].double().numpy()[shard["person_E"].numpy()] for shard in shards]
    )
    read: dict[str, dict[str, FloatArray]] = {}
    for strategy, ways in embedded.items():
        read[strategy] = {}
        for way, emb_UND in ways.items():
            flat_EL = ridge_probe(seen_ED, taste_EL, emb_UND.reshape(-1, emb_UND.shape[-1]))
            shape_UN = emb_UND.shape[:2]
            read[strategy][way] = flat_EL.reshape(*shape_UN, -1).astype(np.float64)
    return read


def cosines(
    found: dict[str, FloatArray], taste_UL: FloatArray, config: PairChoiceConfig
) -> dict[str, Any]:
    """Mean cosine to the true taste by strategy and number of answers, and gains over "random"."""
    rng = np.random.default_rng([config.seed, 23])
    cosine_UN = {}
    for name, estimate_UNL in found.items():
        length_UN = (
            np.linalg.norm(estimate_UNL, axis=-1) * np.linalg.norm(taste_UL, axis=-1)[:, None]
        )
        cosine_UN[name] = (estimate_UNL * taste_UL[:, None]).sum(-1) / np.maximum(length_UN, 1e-12)
    return by_strategy(cosine_UN, range(1, config.answers + 1), rng)


def by_strategy(
    value_UN: dict[str, FloatArray], numbers: Sequence[int], rng: np.random.Generator
) -> dict[str, Any]:
    """Means with intervals over people, and the same of the differences from "random"."""

    def row(values: FloatArray) -> dict[str, Any]:
        person = np.arange(len(values))
        return {
            str(n): clustered_mean(values[:, place], person, rng).to_dict()
            for place, n in enumerate(numbers)
        }

    report: dict[str, Any] = {"of": {name: row(values) for name, values in value_UN.items()}}
    if "random" in value_UN:
        report["over_random"] = {
            name: row(values - value_UN["random"])
            for name, values in value_UN.items()
            if name != "random"
        }
    return report


def win_rates(
    emb_UND: dict[str, FloatArray],
    taste_UL: FloatArray,
    seeds: Sequence[int],
    judge: Judge,
    config: PairChoiceConfig,
) -> dict[str, Any]:
    """Wins over the base, same prompt and seed, after each number of answers of `win_at`.

    Every strategy and number of answers has a person's same prompts and seeds.
    """
    pipeline = Pipeline.load(config.preset, config.weights_dir, with_adapter=config.adapter is None)
    if config.adapter is not None:
        pipeline.use_adapter(config.adapter)
    painter = Painter(pipeline, judge, EvaluateConfig(out=config.out, batch=config.picture_batch))
    rng = np.random.default_rng([config.seed, seeds[0], 24])
    contents = spread_contents(len(seeds) * config.prompts, rng)
    prompts = [prompt_of(c, seeds[0] + 1000 + i, rng) for i, c in enumerate(contents)]
    base = painter.paint("base", prompts, [None] * len(prompts))
    taste_RL = np.repeat(taste_UL, config.prompts, axis=0).astype(np.float32)
    base_R = users.utility(taste_RL, base.looks)
    rates: dict[str, FloatArray] = {}
    for strategy, emb in emb_UND.items():
        won = []
        for n in config.win_at:
            emb_RD = np.repeat(emb[:, n - 1], config.prompts, axis=0).astype(np.float32)
            shown = painter.paint(f"{strategy} after {n}", prompts, list(emb_RD))
            outcome_R = wins(users.utility(taste_RL, shown.looks), base_R, SAME_WITHIN)
            won.append(outcome_R.reshape(len(seeds), config.prompts).mean(1))
        rates[strategy] = np.stack(won, axis=1)
    boot = np.random.default_rng([config.seed, 25])
    return {
        "adapter_version": pipeline.adapter_version,
        "encoder_id": pipeline.encoder_id,
        **by_strategy(rates, config.win_at, boot),
    }


def format_table(report: dict[str, Any]) -> str:
    """Each measure as a Markdown table, strategies in rows."""
    parts = [("cosine of the best estimate", report["best_estimate"])]
    parts += [(f"cosine of the probe, {way}", of) for way, of in report.get("probe", {}).items()]
    if "wins" in report:
        parts.append(("wins over the base", report["wins"]))
    lines = []
    for what, measured in parts:
        numbers = list(next(iter(measured["of"].values())))
        lines += [f"\n{what}\n", "| answers | " + " | ".join(numbers) + " |"]
        lines.append("|---" * (len(numbers) + 1) + "|")
        for name, row in measured["of"].items():
            lines.append(
                f"| {name} | " + " | ".join(f"{row[n]['mean']:.3f}" for n in numbers) + " |"
            )
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
    main()
