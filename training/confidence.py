"""START HERE for the confidence of a profile: do several readings of the same answers agree?

    python -m training.confidence --config training/configs/mini_confidence.yaml [--resume]

The VLM reads each person's four answers several times, decoding by sampling. The agreement is the
mean pairwise cosine of the embeddings, centred on the mean over people (hidden states share a large
common part). It is calibrated on people of "validate": a monotone map (isotonic regression) from
agreement to the probability that the personalised picture wins over the base's, the person judging
by their true taste. How good the map is, is measured on people of "test", who had no part in it.

For comparison the same is done with the encoder's own number, the probability that it gives to its
words, and with how sure the best estimate from the answers is of its direction (the world only:
what a reader of the looks could know).

Writes OUT/report.json, OUT/confidence.png, OUT/calibration.json (what a service needs to show the
number: the centre of embeddings and the map) and OUT/readings (resumable).

Legend: U people, K prompts of a person, R readings, D embedding, L looks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.optimize import isotonic_regression
from scipy.stats import spearmanr

from ppd_model.user_encoder import UserEncoder
from training.data.shards import ShardFolder
from training.evaluate.evaluate_config import PersonalPictures
from training.evaluate.painting import SAME_WITHIN, Judge, Painter, spread_prompts
from training.jobs.command_line import run_job
from training.jobs.configuration import git_commit, save_resolved
from training.jobs.files import write_json
from training.jobs.shared_options import (
    EncodeBatch,
    FirstPerson,
    PopulationSamples,
    SolverOptions,
)
from training.quiz.answered_sets import read_sets
from training.quiz.pair_strategies import likelihood
from training.quiz.quizzes import Person, RandomPairs, quiz_people
from training.reports.plots import INK, OURS, as_png
from training.reports.statistics import clustered_mean, wins
from training.world import tastes
from training.world.people import SeedRange, person_seeds

FloatArray = NDArray[np.float64]
Measure = Literal["agreement", "token_probability", "best_estimate"]
MEASURES: tuple[Measure, ...] = ("agreement", "token_probability", "best_estimate")


class ConfidenceConfig(PersonalPictures):
    """Whose profiles, read how often, and how wins are counted."""

    calibrate_people: int = 128
    """People of "validate" who fit the map."""
    test_people: int = 64
    """People of "test" who check it."""
    first_person: FirstPerson = 30_000
    readings: int = 5
    """Sampled readings of each person."""
    population_samples: PopulationSamples = 20_000
    encode_batch: EncodeBatch = 16


@dataclass(frozen=True)
class Measured:
    """Of U people: each measure of confidence, and how often their picture won.

    center_D: the mean embedding that agreement was centred on.
    """

    confidence: dict[Measure, FloatArray]
    won_U: FloatArray
    center_D: FloatArray


@dataclass(frozen=True)
class Calibration:
    """A monotone map: at `knots_X` the win rate is `rates_X`, in between on a straight line."""

    knots_X: FloatArray
    rates_X: FloatArray

    def __call__(self, confidence_U: FloatArray) -> FloatArray:
        """The win rate that each confidence promises."""
        promised_U: FloatArray = np.interp(confidence_U, self.knots_X, self.rates_X)
        return promised_U


def run(config: ConfidenceConfig, resume: bool = False) -> dict[str, Any]:
    """Read, paint, calibrate, check, write; returns the report.

    Raises ValueError for fewer than two readings.
    """
    if config.readings < 2:
        raise ValueError(f"readings {config.readings}: agreement needs two or more")
    torch.set_num_threads(config.threads)
    save_resolved(config, config.out)
    judge = Judge.load(config.weights_dir)
    options = SolverOptions(batch=config.picture_batch)
    painter = Painter.load(config, judge, options)
    fitted = measure("validate", config.calibrate_people, painter, None, config, resume)
    tested = measure("test", config.test_people, painter, fitted.center_D, config, resume)
    calibration = {
        name: calibrate(fitted.confidence[name], fitted.won_U) for name in fitted.confidence
    }
    report = {
        "commit": git_commit(),
        "encoder_version": UserEncoder.load(config.preset, config.weights_dir).encoder_version,
        "adapter_version": painter.pipeline.adapter_version,
        "people": {"calibrated_on": config.calibrate_people, "tested_on": config.test_people},
        "readings": config.readings,
        "seed": config.seed,
        "measures": {
            name: checked(calibration[name], fitted, tested, name, config) for name in calibration
        },
    }
    write_json(config.out / "report.json", report)
    (config.out / "calibration.json").write_text(
        json.dumps(shown_by_service(calibration["agreement"], fitted, report, config)) + "\n"
    )
    (config.out / "confidence.png").write_bytes(plot(calibration, fitted, tested))
    print(json.dumps(report["measures"], indent=2))
    return report


def measure(
    split: SeedRange,
    count: int,
    painter: Painter,
    center_D: FloatArray | None,
    config: ConfidenceConfig,
    resume: bool,
) -> Measured:
    """Quiz, readings and pictures of `count` people; without a centre, theirs is taken."""
    seeds = person_seeds(split, count, config.first_person)
    population = tastes.Population()
    people = quiz_people(RandomPairs(painter.judge.looks, config.tie_below), seeds)
    readings_URD, greedy_UD, sure_U = readings(split, people, seeds, config, resume)
    if center_D is None:
        center_D = greedy_UD.mean(0)
    prior_SL = population.sample(
        config.population_samples, np.random.default_rng([config.seed, 26])
    ).astype(np.float64)
    return Measured(
        confidence={
            "agreement": agreement(readings_URD, center_D),
            "token_probability": sure_U,
            "best_estimate": np.array([estimate_length(one, prior_SL) for one in people]),
        },
        won_U=win_rates(people, greedy_UD, seeds, painter, config),
        center_D=center_D,
    )


def readings(
    split: SeedRange,
    people: Sequence[Person],
    seeds: Sequence[int],
    config: ConfidenceConfig,
    resume: bool,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Sampled embeddings U x R x D, the greedy one U x D, and the encoder's own number U.

    Raises ValueError when a set could not be read.
    """
    greedy = UserEncoder.load(config.preset, config.weights_dir)
    made_with = {
        "encoder": greedy.encoder_version,
        "people": [split, config.first_person, len(people)],
        "readings": config.readings,
        "seed": config.seed,
    }
    folder = ShardFolder(config.out / "readings" / split, made_with, resume)
    choices = [person.choices for person in people]
    sampler = UserEncoder.load(config.preset, config.weights_dir, decoding="sample")
    encoders = {"greedy": greedy} | {f"sampled-{n:02d}": sampler for n in range(config.readings)}
    read: list[dict[str, torch.Tensor]] = []
    for number, (name, encoder) in enumerate(encoders.items()):
        file = f"{name}.safetensors"
        if not folder.has(file):
            first_seed = config.seed + 1_000_003 * number + seeds[0]
            what = f"{split}, {name}"
            found = read_sets(
                encoder, choices, batch=config.encode_batch, seed=first_seed, what=what
            ).complete()
            tensors = {"user_emb_UD": found.user_emb_ED, "confidence_U": found.confidence_E}
            folder.write(file, tensors)
        read.append(load_file(folder.folder / file))
    folder.finish()
    emb_UD, *sampled = [one["user_emb_UD"].double() for one in read]
    sure_U = read[0]["confidence_U"].double()
    return torch.stack(sampled, dim=1).numpy(), emb_UD.numpy(), sure_U.numpy()


def agreement(readings_URD: FloatArray, center_D: FloatArray) -> FloatArray:
    """Mean cosine of every two readings of a person, centred; -1/(R-1) to 1, shape U."""
    away_URD = readings_URD - center_D
    length_UR1 = np.linalg.norm(away_URD, axis=-1, keepdims=True)
    unit_URD = away_URD / np.maximum(length_UR1, 1e-12)
    cosine_URR = unit_URD @ unit_URD.transpose(0, 2, 1)
    count = readings_URD.shape[1]
    between_U: FloatArray = (cosine_URR.sum((1, 2)) - np.einsum("urr->u", cosine_URR)) / (
        count * (count - 1)
    )
    return between_U


def estimate_length(person: Person, prior_SL: FloatArray) -> float:
    """Length of the mean taste after the answers: 1 if they leave one direction, 0 if none."""
    weight_S = likelihood(person.delta_4L.astype(np.float64), person.preferred_4, prior_SL)
    return float(np.linalg.norm(weight_S @ prior_SL))


def win_rates(
    people: Sequence[Person],
    emb_UD: FloatArray,
    seeds: Sequence[int],
    painter: Painter,
    config: ConfidenceConfig,
) -> FloatArray:
    """Share of a person's prompts whose personalised picture they prefer to the base's, U."""
    rng = np.random.default_rng([config.seed, seeds[0], 27])
    prompts = spread_prompts(len(people) * config.prompts, seeds[0] + 1000, rng)
    base = painter.paint("base", prompts, [None] * len(prompts))
    emb_BD = np.repeat(emb_UD, config.prompts, axis=0).astype(np.float32)
    own = painter.paint("personalised", prompts, list(emb_BD))
    taste_BL = np.repeat(np.stack([one.taste_L for one in people]), config.prompts, axis=0)
    outcome_B = wins(
        tastes.utility(taste_BL, own.looks), tastes.utility(taste_BL, base.looks), SAME_WITHIN
    )
    won_U: FloatArray = outcome_B.reshape(len(people), config.prompts).mean(1).astype(np.float64)
    return won_U


def calibrate(confidence_U: FloatArray, won_U: FloatArray) -> Calibration:
    """The monotone map of least squared error from confidence to win rate."""
    order = np.argsort(confidence_U, kind="stable")
    knots_U, rates_U = confidence_U[order], isotonic_regression(won_U[order]).x
    ends = np.flatnonzero(np.diff(rates_U) != 0)
    kept = np.unique(np.concatenate([[0], ends, ends + 1, [len(order) - 1]]))
    return Calibration(knots_U[kept], rates_U[kept])


def checked(
    calibration: Calibration,
    fitted: Measured,
    tested: Measured,
    name: Measure,
    config: ConfidenceConfig,
) -> dict[str, Any]:
    """How well a measure foretells wins of people who had no part in the map.

    squared_error: of the promised rate; squared_error_of_mean: of promising everybody the same.
    halves: win rates of the less and the more confident half, and their difference.
    """
    confidence_U, won_U = tested.confidence[name], tested.won_U
    promised_U = calibration(confidence_U)
    rng = np.random.default_rng([config.seed, 28])
    person_U = np.arange(len(won_U))
    order = np.argsort(confidence_U, kind="stable")
    halves = np.array_split(order, 2)
    low, high = (clustered_mean(won_U[half], person_U[half], rng).to_dict() for half in halves)
    rho = spearmanr(confidence_U, won_U)
    return {
        "spearman": float(rho.statistic),
        "spearman_p": float(rho.pvalue),
        "squared_error": float(((promised_U - won_U) ** 2).mean()),
        "squared_error_of_mean": float(((fitted.won_U.mean() - won_U) ** 2).mean()),
        "promised": float(promised_U.mean()),
        "won": clustered_mean(won_U, person_U, rng).to_dict(),
        "less_confident_half": low,
        "more_confident_half": high,
        "range": [float(confidence_U.min()), float(confidence_U.max())],
    }


def shown_by_service(
    calibration: Calibration, fitted: Measured, report: dict[str, Any], config: ConfidenceConfig
) -> dict[str, Any]:
    """What is needed to turn readings of new answers into a win rate, and what it belongs to."""
    return {
        "encoder_version": report["encoder_version"],
        "adapter_version": report["adapter_version"],
        "readings": config.readings,
        "center": [round(float(value), 5) for value in fitted.center_D],
        "agreement": [round(float(value), 5) for value in calibration.knots_X],
        "win_rate": [round(float(value), 5) for value in calibration.rates_X],
    }


def plot(calibration: dict[Measure, Calibration], fitted: Measured, tested: Measured) -> bytes:
    """For each measure the people, in eight groups by confidence, and the map."""
    figure = Figure(figsize=(4 * len(MEASURES), 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True):
        groups_of = ((fitted, INK, "calibrated on"), (tested, OURS, "tested on"))
        for measured, colour, label in groups_of:
            confidence_U = measured.confidence[name]
            groups = np.array_split(np.argsort(confidence_U), min(8, len(confidence_U)))
            axes.plot(
                [confidence_U[group].mean() for group in groups],
                [measured.won_U[group].mean() for group in groups],
                "o",
                color=colour,
                label=label,
            )
        axes.plot(calibration[name].knots_X, calibration[name].rates_X, color=INK, linewidth=1)
        axes.set_ylim(0, 1.02)
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_xlabel("confidence")
    axes.legend(frameon=False, fontsize=8)
    return as_png(figure)


if __name__ == "__main__":
    run_job(run, ConfidenceConfig, __doc__)
