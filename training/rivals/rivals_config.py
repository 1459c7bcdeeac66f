"""Every option of the comparison of rivals."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ppd_model.pipeline import MINI_WEIGHTS_DIR
from training.dpo.dpo_config import DpoConfig
from training.evaluate.evaluate_config import CLASSIFIER
from training.jobs.configuration import Configuration, read_configuration
from training.jobs.shared_options import ModelJob, PromptsEach, SolverOptions, TieBelow

Reader = Literal[
    "vlm", "words", "pictures", "people", "base_users", "taste_space", "best_estimate", "nobody"
]


Trained = Literal["ppd", "diffusion_dpo", "sft", "nft"]
"""Objectives that several adapters are trained with at once (together.py)."""


class Arm(Configuration):
    """One way to personalise."""

    reads: Reader
    """What four answers are made into (arms.py)."""
    objective: Trained | None = None
    """What its adapter is trained with; null: it has no adapter, or one that was trained before."""
    adapter: Path | None = None
    """An adapter that was trained before."""
    method: str | None = None
    """What it is one training seed of. Arms of one method get one strength and are also counted
    together, with intervals over seeds and people (methods.py)."""

    @model_validator(mode="after")
    def _one_adapter(self) -> Arm:
        given = (self.objective is not None) + (self.adapter is not None)
        if given != (self.reads != "words"):
            raise ValueError(f"an arm that reads {self.reads!r} with {given} adapters")
        return self


class RivalsConfig(ModelJob, SolverOptions):
    """Who paints, how they are trained, and for whom."""

    data: Path
    """What training.precompute wrote."""
    stage_c: Path
    """The base's weights."""
    training: Path
    """Configuration of training.train_dpo whose other values all arms share."""
    training_steps: PositiveInt
    """Of every arm."""
    training_batch: PositiveInt
    """Pairs of a step, of every arm."""
    training_lr: PositiveFloat
    """Of every arm, at its highest."""
    arms: dict[str, Arm]
    """The first is compared with every other one."""
    people: int = Field(128, ge=2)
    """Unseen people on whom arms are compared."""
    prompts: PromptsEach = 2
    validation_people: int = Field(64, ge=2)
    """Other unseen people, on whom strengths are chosen."""
    strengths: tuple[PositiveFloat, ...]
    """Of every arm, rising: the best of those that keep content, see methods.py."""
    content_kept: float = Field(0.98, gt=0, le=1)
    """Least share of what the base shows right that must still be right."""
    tie_below: TieBelow = 0.1
    classifier: Path = CLASSIFIER
    """The judge of content."""

    @model_validator(mode="after")
    def _as_many_seeds_of_each_method(self) -> RivalsConfig:
        counts = {len(arms) for method, arms in self.methods.items() if method not in self.arms}
        if len(counts) > 1 or counts == {1}:
            raise ValueError(f"methods have {sorted(counts)} arms: as many of each, two or more")
        return self

    @property
    def methods(self) -> dict[str, list[str]]:
        """The arms of each method, in the order of their seeds; an arm without one is its own."""
        found: dict[str, list[str]] = {}
        for name, arm in self.arms.items():
            found.setdefault(arm.method or name, []).append(name)
        return found

    @property
    def weights(self) -> Path:
        """Of the model, as shipped where none are named."""
        return self.weights_dir or MINI_WEIGHTS_DIR

    def of_training(self, name: str) -> DpoConfig:
        """The training of an arm that is trained here."""
        arm = self.arms[name]
        users = {
            "vlm": "vlm",
            "nobody": "none",
            "people": "learned",
            "best_estimate": "posterior",
        }
        return read_configuration(
            DpoConfig,
            self.training,
            {
                "data_dir": self.data,
                "stage_c": self.stage_c,
                "output_dir": self.out / "arms" / name,
                "objective": arm.objective,
                "user": users.get(arm.reads, "given"),
                "steps": self.training_steps,
                "batch": self.training_batch,
                "lr": self.training_lr,
                "seed": self.seed,
                "user_dropout": 0.0,
                "export_strength": 1.0,
                "checkpoint_every": 10,
            },
        )
