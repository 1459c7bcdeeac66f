"""START HERE: what fewer steps and other samplers cost in quality, on equal people and seeds.

    python -m training.steps_quality --out DIR [--people 32] [--variants '["ddpm:20", ...]']

A variant is SOLVER:STEPS[:LOW-HIGH[:SOLVER:STEPS]]: Stage C's sampler, the diffusion times above
LOW and up to HIGH at which it is guided, and Stage B's sampler. The first is the reference. People,
their readings, prompts and seeds are the same for all, so each variant is also compared with the
reference picture by picture.

* wins: personal pictures that the person prefers to the base's, both of the variant
* gain_sd: by how much more they are to the person's taste
* kept: of what the base shows rightly, what the personal picture does; base_right: the base's share
* gradient: 99th percentile of the gradient of luminance, the mean over personal pictures
* passes: rows of Stage C's passes for one guided picture, which is what its steps cost

Legend: U people, K prompts of a person, R = U * K comparisons, B pictures, H W sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ppd_model.pipeline import Pipeline
from ppd_model.presets import Preset
from ppd_model.sampling.plan import plan_of
from ppd_model.sampling.requests import SOLVERS
from ppd_model.types import ImageRequest, Solver
from ppd_model.user_encoder import UserEncoder
from training.evaluate.__main__ import group_prompts, paint_base
from training.evaluate.evaluate_config import EvaluateConfig, check
from training.evaluate.measures import encode, paint_people
from training.evaluate.painting import SAME_WITHIN, Judge, Painter, Pictures, Prompt, Shown
from training.jobs.command_line import run_job
from training.jobs.configuration import git_commit, save_resolved
from training.jobs.files import write_json
from training.quiz.quizzes import Person, make_quiz, quiz_people
from training.reports.plots import OTHER, OURS, as_png, error_bars
from training.reports.statistics import (
    Estimate,
    FloatArray,
    clustered_mean,
    clustered_ratio,
    wins,
)
from training.world import tastes
from training.world.people import person_seeds

STEPS = (30, 20, 12, 8, 5)
MEASURES = ("wins", "gain_sd", "kept", "base_right", "gradient")


class StepsConfig(EvaluateConfig):
    """The people, prompts and seeds of an evaluation, and what their pictures are made with."""

    variants: tuple[str, ...] = (
        "ddpm:20",
        *(f"{solver}:{n}" for solver in SOLVERS for n in STEPS if (solver, n) != ("ddpm", 20)),
    )
    """What is compared; the first is the reference."""


@dataclass(frozen=True)
class Variant:
    """A sampler, its steps, and when it is guided."""

    name: str
    solver: Solver
    steps: int
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    stage_b: tuple[Solver, int] | None = None
    """None: the preset's own."""

    @classmethod
    def parse(cls, name: str) -> Variant:
        """Raises ValueError for a name that says something else."""
        try:
            solver, steps, *rest = name.split(":")
            low, high = (float(time) for time in (rest[0] if rest else "0-1").split("-"))
            stage_b = None if len(rest) < 2 else (_solver(rest[1]), int(rest[2]))
            return cls(name, _solver(solver), int(steps), (low, high), stage_b)
        except (ValueError, IndexError) as error:
            wanted = "SOLVER:STEPS[:LOW-HIGH[:SOLVER:STEPS]]"
            raise ValueError(f"variant {name!r}: expected {wanted}") from error

    def of(self, preset: Preset) -> Preset:
        """The preset as the decoder of this variant knows it."""
        if self.stage_b is None:
            return preset
        solver, steps = self.stage_b
        return replace(preset, stage_b_solver=solver, stage_b_steps=steps)

    def passes(self, pipeline: Pipeline) -> int:
        """Rows of the network's passes for one guided picture."""
        request = ImageRequest(
            "",
            0,
            steps=self.steps,
            solver=self.solver,
            guidance_interval=self.guidance_interval,
        )
        return plan_of(pipeline.preset, request, pipeline.latent_dtype).network_rows


@dataclass(frozen=True)
class Measured:
    """Of each comparison, R values."""

    wins: FloatArray
    gain_sd: FloatArray
    own_right: FloatArray
    base_right: FloatArray
    gradient: FloatArray


def _solver(name: str) -> Solver:
    return SOLVERS[SOLVERS.index(name)]  # raises ValueError for others


def compare(config: StepsConfig) -> dict[str, Any]:
    """Measure every variant, write the report and its figure; returns the report."""
    check(config)
    variants = [Variant.parse(name) for name in config.variants]
    torch.set_num_threads(config.threads)
    save_resolved(config, config.out)
    judge = Judge.load(config.weights_dir, config.classifier)
    encoder = UserEncoder.load(
        config.preset,
        config.weights_dir,
        prompt_variant=config.prompt_variant,
        decoding=config.decoding,
    )
    painter = Painter.load(config, judge, config, config.strength)
    quiz = make_quiz(config.quiz, judge.looks, config.tie_below)
    people = quiz_people(quiz, person_seeds(config.split, config.people, config.first_person))
    emb_UD = [user.user_emb_D for user in encode(encoder, people, config.batch)]
    prompts_GK = group_prompts(config)
    report: dict[str, Any] = {
        "commit": git_commit(),
        "model": painter.pipeline.model_id,
        "adapter_version": painter.pipeline.adapter_version,
        "encoder_version": encoder.encoder_version,
        "people": {"split": config.split, "first": config.first_person, "count": config.people},
        "prompts_each": config.prompts,
        "reference": variants[0].name,
        "variants": {},
    }
    reference = None
    for variant in variants:
        painter.options = config.model_copy(
            update={
                "steps": variant.steps,
                "solver": variant.solver,
                "guidance_interval": variant.guidance_interval,
            }
        )
        painter.pipeline.decoder.preset = decoded = variant.of(painter.pipeline.preset)
        base = paint_base(painter, prompts_GK)
        own = paint_people(painter, variant.name, prompts_GK, emb_UD)
        measured = measure(people, own, base, prompts_GK, config)
        reference = reference or measured
        report["variants"][variant.name] = {
            "solver": variant.solver,
            "steps": variant.steps,
            "guidance_interval": variant.guidance_interval,
            "passes": variant.passes(painter.pipeline),
            "stage_b": {"solver": decoded.stage_b_solver, "steps": decoded.stage_b_steps},
            **summary(measured, reference, config),
        }
        print(line(variant.name, report["variants"][variant.name]), flush=True)
        write_json(config.out / "report.json", report)
    (config.out / "steps.png").write_bytes(as_png(figure(report["variants"])))
    return report


def measure(
    people: Sequence[Person],
    own: Shown,
    base: Shown,
    prompts_GK: list[list[Prompt]],
    config: EvaluateConfig,
) -> Measured:
    """Every comparison of a personal picture with the base's of the same prompt and seed."""
    group_U = np.arange(len(people)) // config.group
    base_R = (group_U[:, None] * config.prompts + np.arange(config.prompts)).ravel()
    person_R = np.repeat(np.arange(len(people)), config.prompts)
    taste_RL = np.stack([person.taste_L for person in people])[person_R]
    asked = np.array([prompt.content for prompts in prompts_GK for prompt in prompts])[base_R]
    base_looks = base.looks[base_R]
    return Measured(
        wins=wins(
            tastes.utility(taste_RL, own.looks), tastes.utility(taste_RL, base_looks), SAME_WITHIN
        ),
        gain_sd=(taste_RL * (own.looks - base_looks)).sum(-1),
        own_right=(own.content_named == asked).astype(float),
        base_right=(base.content_named[base_R] == asked).astype(float),
        gradient=gradient_p99(own.images),
    )


def gradient_p99(images_BHWC: Pictures) -> FloatArray:
    """The 99th percentile of the gradient of each picture's luminance, in grey levels a pixel."""
    grey_BHW = images_BHWC.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    down, right = np.diff(grey_BHW, axis=1)[:, :, :-1], np.diff(grey_BHW, axis=2)[:, :-1]
    return np.percentile(np.hypot(down, right), 99, axis=(1, 2))


def summary(measured: Measured, reference: Measured, config: EvaluateConfig) -> dict[str, Any]:
    """Each measure with its interval, and its difference from (gradient: ratio to) the reference.

    Intervals redraw people, or for what the base alone makes, whom they share it with.
    """
    rng = np.random.default_rng([config.seed, 16])
    person_R = np.repeat(np.arange(config.people), config.prompts)
    group_R = person_R // config.group

    def mean(value_R: FloatArray, of: NDArray[np.int64] = person_R) -> dict[str, Any]:
        return _dict(clustered_mean(value_R, of, rng))

    def ratio(above_R: FloatArray, below_R: FloatArray) -> dict[str, Any]:
        return _dict(clustered_ratio(above_R, below_R, person_R, rng))

    both_R = measured.own_right * measured.base_right
    return {
        "wins": mean(measured.wins),
        "gain_sd": mean(measured.gain_sd),
        "kept": ratio(both_R, measured.base_right),
        "own_right": mean(measured.own_right),
        "base_right": mean(measured.base_right, group_R),
        "gradient": mean(measured.gradient),
        "against_reference": {
            "wins": mean(measured.wins - reference.wins),
            "gain_sd": mean(measured.gain_sd - reference.gain_sd),
            "own_right": mean(measured.own_right - reference.own_right),
            "base_right": mean(measured.base_right - reference.base_right, group_R),
            "gradient": ratio(measured.gradient, reference.gradient),
        },
    }


def _dict(estimate: Estimate) -> dict[str, Any]:
    return dict(estimate.to_dict())


def line(name: str, one: Mapping[str, Any]) -> str:
    """A row of the table."""
    values = "  ".join(
        "{}{:.3f} [{:.3f}, {:.3f}]".format(
            f"{key} ", *(one[key][k] for k in ("mean", "low", "high"))
        )
        for key in MEASURES
    )
    return f"{name:24} passes {one['passes']:3}  {values}"


def figure(variants: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Each measure over the cost of a picture; a colour for each solver."""
    drawn = Figure(figsize=(4 * len(MEASURES), 3.6), layout="constrained")
    colours = dict(zip(SOLVERS, (OTHER, OURS, "#c0663c"), strict=True))
    for axes, key in zip(drawn.subplots(1, len(MEASURES)), MEASURES, strict=True):
        for solver, colour in colours.items():
            of_solver = [one for one in variants.values() if one["solver"] == solver]
            for one in sorted(of_solver, key=lambda one: one["passes"]):
                whole = tuple(one["guidance_interval"]) == (0.0, 1.0)
                axes.errorbar(
                    one["passes"],
                    one[key]["mean"],
                    error_bars([one[key]]),
                    marker="o" if whole else "^",
                    color=colour,
                    label=solver,
                )
        axes.set(xlabel="rows of Stage C's passes for a picture", title=key)
    handles, labels = axes.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    axes.legend(by_label.values(), by_label.keys(), fontsize=8)
    return drawn


if __name__ == "__main__":
    run_job(compare, StepsConfig, __doc__)
