"""START HERE for what answers to the quiz foretell, before any of them is read.

    python -m training.calibration --config training/configs/mini_calibration.yaml [--resume]

Simulated people answer sixteen pairs as the service asks them. From the answers and the pool's
coordinates alone follows a normal distribution of the taste (`ppd_model/answers.py`), and to it
two maps are fitted:

- the expected reading, the embedding that the VLM's readings of such answers have on average:
  linear in the mean taste, fitted on people of "validate". Joined with the readings it makes the
  embedding that is served;
- the chance that a picture with the taste pleases more than without: logistic in how clear the
  taste is, so that it rises with it.

The second is checked on people who had no part in it: each half of the people is promised what the
other half was fitted to. In five groups of promised chance, equally large, stand what was promised
and what was won. Where in any group the two are more than `most_off` apart, the model that is
written has no chances, and the service shows none; else it has those of a fit on all. What four
more answers are promised to bring is checked likewise, by itself.

Writes OUT/report.json, OUT/calibration.png, OUT/answers.json (for the pool's folder), OUT/readings
and OUT/pictures (resumable).

Legend: U people, N numbers of answers, K coordinates (of a belief) or prompts (of pictures),
D embedding, X people after a number of answers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import spearmanr

from ppd_model.answers import MORE, AnswerModel, belief
from ppd_model.files.artifact import sha256_of
from ppd_model.user_encoder import UserEncoder
from training.calibration.calibration_config import CalibrationConfig
from training.calibration.painted import Painted, beliefs, paint
from training.calibration.quizzed import Quizzed, quiz_and_read
from training.data.preferences import CHOICES_PER_PROFILE
from training.evaluate.painting import Judge, Painter
from training.jobs.command_line import run_job
from training.jobs.configuration import git_commit, save_resolved
from training.jobs.files import write_json
from training.jobs.shared_options import SolverOptions
from training.quiz.pair_strategies import QuizPool
from training.quiz.quizzes import load_quiz_pool
from training.reports.plots import INK, OURS, as_png
from training.reports.statistics import clustered_mean

FloatArray = NDArray[np.float64]
GROUPS = 5


@dataclass(frozen=True)
class Answered:
    """Of X people after a number of answers: who, how clear the taste is, the share of wins."""

    person_X: NDArray[np.int64]
    answers_X: NDArray[np.int64]
    clear_X: FloatArray
    won_X: FloatArray

    def only(self, kept_X: NDArray[np.bool_]) -> Answered:
        return Answered(
            self.person_X[kept_X], self.answers_X[kept_X], self.clear_X[kept_X], self.won_X[kept_X]
        )


def run(config: CalibrationConfig, resume: bool = False) -> dict[str, Any]:
    """Ask, read, fit, paint, check, write; returns the report."""
    torch.set_num_threads(config.threads)
    save_resolved(config, config.out)
    judge = Judge.load(config.weights_dir)
    pool = load_quiz_pool(config.pool_dir, judge.looks)
    encoder = UserEncoder.load(config.preset, config.weights_dir)
    painter = Painter.load(config, judge, SolverOptions(batch=config.picture_batch))
    people = quiz_and_read("validate", config.validate_people, pool, encoder, config, resume)
    reading_KD, offset_D = fit_readings(people, pool)
    model = AnswerModel(
        encoder_version=encoder.encoder_version,
        adapter_version=painter.pipeline.adapter_version or "",
        pairs_sha256=sha256_of(config.pool_dir / "pairs.json"),
        most_answers=config.answers,
        reading_KD=reading_KD.round(4).tolist(),
        offset_D=offset_D.round(4).tolist(),
        wins_at_none=None,
        wins_by=None,
        foretells_more=False,
    )
    pictures = paint(people, pool, model, painter, config, resume)
    if config.test_people:
        others = quiz_and_read("test", config.test_people, pool, encoder, config, resume)
        pictures = pictures.with_others(paint(others, pool, model, painter, config, resume))
        people = people.with_others(others)
    of = after_answers(people, pictures, pool, config)
    checked = check(model, of, people, pool, config)
    holds = checked["most_off"] <= config.most_off
    report = {
        "commit": git_commit(),
        "encoder_version": model.encoder_version,
        "adapter_version": model.adapter_version,
        "people": {"validate": config.validate_people, "test": config.test_people},
        "prompts": config.prompts,
        "seed": config.seed,
        "shown": holds,
        "more_shown": holds and checked["more_most_off"] <= config.most_off,
        **checked,
        "served": served(pictures, config),
    }
    write_json(config.out / "report.json", report)
    written = promising(model, of) if holds else model
    replace(written, foretells_more=report["more_shown"]).save(config.out / "answers.json")
    (config.out / "calibration.png").write_bytes(plot(checked))
    print(json.dumps(report, indent=2))
    return report


def fit_readings(people: Quizzed, pool: QuizPool) -> tuple[FloatArray, FloatArray]:
    """Least squares from the mean taste to the mean reading, after each number of sets."""
    means, readings = [], []
    for sets in range(1, people.reading_USD.shape[1] + 1):
        mean_UK = beliefs(people, pool, sets * CHOICES_PER_PROFILE).mean_K
        means.append(np.concatenate([mean_UK, np.ones((len(mean_UK), 1))], axis=1))
        readings.append(people.reading_USD[:, :sets].mean(1))
    found = np.linalg.lstsq(np.concatenate(means), np.concatenate(readings), rcond=None)[0]
    return found[:-1], found[-1]


def after_answers(
    people: Quizzed, pictures: Painted, pool: QuizPool, config: CalibrationConfig
) -> Answered:
    """Every person after every number of answers at which pictures were painted."""
    clear_NU = np.stack([beliefs(people, pool, count).clearness for count in config.paint_at])
    numbers, persons = clear_NU.shape
    return Answered(
        person_X=np.tile(np.arange(persons), numbers),
        answers_X=np.repeat(np.array(config.paint_at), persons),
        clear_X=clear_NU.ravel(),
        won_X=pictures.won_UNK.mean(2).T.ravel(),
    )


def fit_wins(of: Answered) -> tuple[float, float]:
    """Log odds of a win at clearness 0 and by unit of it, of greatest likelihood and not falling.

    Raises RuntimeError where none is found.
    """

    def unlikely(parameters: FloatArray) -> float:
        odds_X = parameters[0] + parameters[1] * of.clear_X
        return float((np.logaddexp(0, odds_X) - of.won_X * odds_X).mean())

    found = minimize(unlikely, np.array([1.0, 0.5]), bounds=[(None, None), (0, None)])
    if not found.success:
        raise RuntimeError(f"no map from clearness to wins: {found.message}")
    return float(found.x[0]), float(found.x[1])


def promising(model: AnswerModel, of: Answered) -> AnswerModel:
    """The model with the chances that fit these people."""
    at_none, by = fit_wins(of)
    return replace(model, wins_at_none=round(at_none, 4), wins_by=round(by, 4), foretells_more=True)


def check(
    model: AnswerModel, of: Answered, people: Quizzed, pool: QuizPool, config: CalibrationConfig
) -> dict[str, Any]:
    """Promised and measured; each half of the people is promised by a map of the other half.

    `after_four_more` is promised from the answers before those four, whatever was asked then.
    """
    odd_X = of.person_X % 2 == 1
    models = [promising(model, of.only(odd_X)), promising(model, of.only(~odd_X))]
    promised_X = np.where(odd_X, _chance(models[1], of.clear_X), _chance(models[0], of.clear_X))
    before = np.isin(of.answers_X + MORE, config.paint_at)
    later = np.isin(of.answers_X - MORE, config.paint_at)
    more_X = np.array(
        [
            promised_after_more(models[person % 2], people, person, count, pool)
            for person, count in zip(of.person_X[before], of.answers_X[before], strict=True)
        ]
    )
    rng = np.random.default_rng([config.seed, 32])
    groups = by_promise(promised_X, of.won_X, of.person_X, rng)
    groups_of_more = by_promise(more_X, of.won_X[later], of.person_X[later], rng)
    rise_X = of.won_X[later] - of.won_X[before]
    rho = spearmanr(promised_X, of.won_X)
    return {
        "maps": [[one.wins_at_none, one.wins_by] for one in models],
        "groups": groups,
        "after_four_more": groups_of_more,
        "most_off": most_off(groups),
        "more_most_off": most_off(groups_of_more),
        "promised_rise": float((more_X - promised_X[before]).mean()),
        "rise": clustered_mean(rise_X, of.person_X[later], rng).to_dict(),
        "spearman": [float(rho.statistic), float(rho.pvalue)],
        "squared_error": float(((promised_X - of.won_X) ** 2).mean()),
        "squared_error_of_mean": float(((of.won_X.mean() - of.won_X) ** 2).mean()),
    }


def most_off(groups: Sequence[dict[str, Any]]) -> float:
    """How far promised and won are apart in the group where they are farthest."""
    return max(abs(float(group["promised"] - group["won"]["mean"])) for group in groups)


def by_promise(
    promised_X: FloatArray, won_X: FloatArray, person_X: NDArray[np.int64], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Promised and won in groups of equal size, the least promising first."""
    order = np.argsort(promised_X, kind="stable")
    return [
        {
            "promised": float(promised_X[group].mean()),
            "range": [float(promised_X[group].min()), float(promised_X[group].max())],
            "won": clustered_mean(won_X[group], person_X[group], rng).to_dict(),
        }
        for group in np.array_split(order, GROUPS)
    ]


def promised_after_more(
    model: AnswerModel, people: Quizzed, person: int, count: int, pool: QuizPool
) -> float:
    """What is promised of four more answers to this person after `count`."""
    pairs_N, answer_N = people.answers(person, count)
    delta_NK = pool.coordinates_PK[pairs_N]
    left_PK = np.delete(pool.coordinates_PK, pairs_N, axis=0)
    promised = model.wins_after_more(belief(delta_NK, answer_N), delta_NK, answer_N, left_PK)
    assert promised is not None
    return promised


def served(pictures: Painted, config: CalibrationConfig) -> dict[str, Any]:
    """Wins, gain and named content after each number of answers, on people of "test"."""
    rng = np.random.default_rng([config.seed, 33])
    person_U = np.arange(len(pictures.won_UNK))
    measured = {
        "wins": pictures.won_UNK,
        "gain_sd": pictures.gain_UNK,
        "content": pictures.content_UNK,
    }
    return {
        what: {
            str(count): clustered_mean(value_UNK[:, place].mean(1), person_U, rng).to_dict()
            for place, count in enumerate(config.paint_at)
        }
        for what, value_UNK in measured.items()
    }


def plot(checked: dict[str, Any]) -> bytes:
    """Promised and won, by group."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    titles = {"groups": "after the answers given", "after_four_more": "after four more answers"}
    for axes, (name, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        promised = [group["promised"] for group in checked[name]]
        won = [group["won"] for group in checked[name]]
        spread = [
            [one["mean"] - one["low"] for one in won],
            [one["high"] - one["mean"] for one in won],
        ]
        axes.errorbar(promised, [one["mean"] for one in won], yerr=spread, fmt="o", color=OURS)
        ends = [min(promised) - 0.03, 1.0]
        axes.plot(ends, ends, color=INK, linewidth=1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("promised")
        axes.set_ylabel("won")
    return as_png(figure)


def _chance(model: AnswerModel, clear_X: FloatArray) -> FloatArray:
    chance_X = model.wins(clear_X)
    assert chance_X is not None
    return chance_X


if __name__ == "__main__":
    run_job(run, CalibrationConfig, __doc__)
