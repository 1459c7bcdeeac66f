"""Every option of training.train_dpo, with what the paper says of it.

The paper's own values, where it gives them: AdamW, lr 1e-5 (3e-6 for real users), 768 pairs a step,
one epoch, beta tuned within [0.1, 2]; it leaves T, the reduction, omega, the schedule of the
learning rate and the rate of dropped users open.
"""

from __future__ import annotations

import math
from collections.abc import Set
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ppd_model.presets import Preset, get_preset
from training.data.dataset import UserFeatures
from training.dpo.loss import Reduction
from training.dpo.time_weight import OmegaName
from training.jobs.configuration import Configuration
from training.jobs.shared_options import ModelName, Out, Seed

Objective = Literal["ppd", "diffusion_dpo", "sft", "nft", "mapo", "dspo"]
FREE = {
    "output_dir",
    "data_dir",
    "validate_every",
    "log_every",
    "checkpoint_every",
    "adapter_every",
    "init_adapter",
    "trackers",
    "decoder",
    "sample_every",
    "sample_prompts",
    "sample_people",
    "sample_strengths",
    "sample_steps",
    "sample_seed",
    "resume_elsewhere",
    "export_strength",
    "reference_dir",
}
"""Values that decide where, how often and at which scale a run writes, not what it learns."""
OF_CACHED = {"reference", "draws_per_pair", "draws_seed"}
"""Values that a run with a live reference does not look at."""


class DpoConfig(Configuration):
    """One run."""

    preset: ModelName
    data_dir: Path
    """What training.precompute wrote."""
    stage_c: Path
    """The base's weights: mini's file, or the folder that `ppd models pull` fills."""
    output_dir: Out
    objective: Objective = "ppd"
    """One of "ppd" (Eq. 6), "diffusion_dpo" (Eq. 3: everybody alike), "sft" (the denoising loss of
    Eq. 1 on chosen pictures) or, not of the paper, "nft" (chosen and rejected pictures by
    regression, DiffusionNFT's loss offline), "mapo" (Eq. 1 and a margin, without a reference) or
    "dspo" (Eq. 1 moved by the preference); see loss.py."""
    user: UserFeatures = "vlm"
    """What stands for a person; "none" gives everybody the same constant embedding: diffusion_dpo
    asks for it, sft, mapo and dspo may have it, ppd and nft may not. "given" is for
    training.rivals alone."""
    centre_users: bool = True
    """Subtract the mean over people from an embedding (docs/decisions/0004); the paper does not.
    One-hot users and nobody are never centred."""
    user_tokens: int | None = Field(None, ge=2)
    """Tokens that the adapter makes of an embedding; null: the preset's number."""
    only_person: int | None = None
    """Train on one person's pairs alone (the single-reward upper bounds of Table 1)."""
    seed: Seed = 0
    steps: PositiveInt | None = None
    """Length of the run in steps; give this or epochs."""
    epochs: PositiveFloat | None = None
    """Length in epochs, each the whole batches in the training pairs."""
    batch: PositiveInt
    """Pairs of one optimiser step over all processes."""
    micro_batch: PositiveInt | None = None
    """Pairs of one forward pass of one process, the gradient of the others accumulated; null:
    all."""
    lr: PositiveFloat
    """Learning rate; the paper has 1e-5, for real users 3e-6."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "linear"
    """After the warm-up: constant, or falling to zero."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises."""
    weight_decay: float = 0.01
    """Of AdamW."""
    clip_norm: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    beta: PositiveFloat
    """Eq. 6, see loss.py; under sft and nft it only scales the margins that are logged. Under mapo
    it is the weight of the margin, .1 in the authors' code; under dspo the authors' beta (.001, .01
    or .05 for Stable Diffusion 1.5) is 2 * beta * timesteps."""
    timesteps: PositiveInt = 1000
    """T of Eq. 6 and of mapo, see loss.py."""
    mapo_snr: PositiveFloat = 0.5
    """The constant signal-to-noise ratio of mapo, see loss.py; others do not read it."""
    reduction: Reduction = "mean"
    """Of the squared errors in Eq. 6, see loss.py."""
    omega: OmegaName = "constant"
    """Weight of each time in the loss, see time_weight.py; mapo and dspo have none."""
    shared_noise: bool = True
    """One noise for both pictures of a pair, as public Diffusion-DPO code has it; the paper writes
    two."""
    shared_timestep: bool = True
    """One time for both pictures of a pair, as in the paper."""
    user_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of pairs whose embedding is zeroed. The adapter has no bias, so such a pair equals the
    reference: it costs log 2, gives no gradient, takes no second pass (under nft it takes one),
    and counts one half in the logged implicit accuracy."""
    reference: Literal["live", "cached"] = "live"
    """Live computes the reference's errors in every step; cached reads them from reference_dir."""
    reference_dir: Path | None = None
    """What training.reference_errors wrote, for a cached reference."""
    draws_per_pair: PositiveInt = 1
    """Noises and times of a pair under a cached reference, taken in turn, one each epoch: a run of
    no more epochs than that meets none twice."""
    draws_seed: NonNegativeInt = 0
    """Decides them, so that runs which differ in seed, beta, omega, user tokens or the learning
    rate can read the same errors."""
    min_time: float = Field(0.001, ge=0, lt=1)
    """Lowest time that is drawn."""
    max_time: float = Field(1.0, le=1)
    """Highest time that is drawn."""
    snr_times: bool = False
    """Tell the network no later time than 0.99358, from where on the signal-to-noise ratio is
    clamped: Stable Cascade's own code computes the time from that ratio, the noise is the same."""
    time_power: PositiveFloat = 1.0
    """Times are max - (max - min) * u ** time_power, u uniform: above 1 they crowd near max. The
    paper draws them uniformly from all; how a picture looks as a whole is decided at high noise,
    and there most of a small run's signal is (docs/decisions/0004)."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay of the exported moving average of the adapter; 0 exports the last weights."""
    base_dtype: Literal["bf16", "fp32"] = "fp32"
    """Of the frozen base; the adapter and all errors are float32 in any case."""
    gradient_checkpointing: bool = False
    """Keep no activations inside the base's blocks, compute them again."""
    compile_blocks: bool = False
    """Compile the base's residual and timestep blocks (torch.compile)."""
    deterministic: bool = False
    """On CUDA, only kernels that give the same bits each time."""
    export_strength: PositiveFloat = 1.0
    """The exported adapter acts at strength 1 as the trained one does at this strength (its W'_v
    are scaled). beta and the length of a run fix how far it goes from the base, validation by
    pictures how far it should; to change it later, resume the finished run. Logs and sample grids
    show the adapter before it is scaled."""
    validation_people: int = 32
    """The last people of the data, whose pairs are never trained on."""
    validation_pairs: int = 192
    """Pairs of them that are measured."""
    validate_every: PositiveInt = 200
    """Steps between measurements of the weights that would be exported now."""
    decoder: Path | None = None
    """Folder of a whole model, whose decoder and text encoder draw the sample grids; null draws
    none."""
    sample_every: PositiveInt = 200
    """Steps between sample grids."""
    sample_prompts: tuple[str, ...] = ()
    """A row of the grid for each, with the validation people in turn, under seeds that never
    change."""
    sample_people: PositiveInt = 4
    """Validation people in the grid."""
    sample_strengths: tuple[float, ...] = (0.5, 1.0, 1.5)
    """Columns of the grid, beside the base."""
    sample_steps: PositiveInt = 20
    """Denoising steps of its pictures."""
    sample_seed: int = 0
    """Of its pictures."""
    log_every: PositiveInt = 10
    """Steps between printed lines; log.jsonl and the trackers get every step."""
    checkpoint_every: PositiveInt = 200
    """Steps between checkpoints; SIGTERM and Ctrl-C write one, too."""
    adapter_every: PositiveInt | None = None
    """Steps between adapters that are kept in the folder adapters/, each as the last one would be
    exported; null: the last one alone."""
    init_adapter: Path | None = None
    """An adapter to begin with, in the place of a fresh one: its weights as they are, and what it
    centres embeddings on. The reference stays the base."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """Who is told of every step."""
    resume_elsewhere: bool = False
    """Accept a checkpoint written with another torch, device, number of threads or of processes;
    the run draws the same numbers, yet no longer ends with the same bits."""

    def unread(self) -> Set[str]:
        """What a live reference does not look at, and what only sample grids need."""
        of_grids = {key for key in DpoConfig.model_fields if key.startswith("sample_")}
        of_mapo = set() if self.objective == "mapo" else {"mapo_snr"}
        return (
            of_mapo
            | (OF_CACHED - {"reference"} | {"reference_dir"} if self.reference == "live" else set())
            | (of_grids if self.decoder is None else set())
        )

    @property
    def total_steps(self) -> int:
        """The steps of the run, once ``with_steps`` has fixed them."""
        assert self.steps is not None, "with_steps first"
        return self.steps

    def with_steps(self, pairs: int) -> DpoConfig:
        """The same with its length in steps, for that many training pairs.

        Raises ValueError when an epoch of them is shorter than one step.
        """
        if self.steps is not None:
            return self
        assert self.epochs is not None, "check first"
        steps = round(self.epochs * (pairs // self.batch))
        if steps < 1:
            raise ValueError(f"{self.epochs} epochs of {pairs} pairs are no batch of {self.batch}")
        return self.model_copy(update={"steps": steps, "epochs": None})

    def comparable(self) -> dict[str, Any]:
        """The values that make a run what it is, in terms of json."""
        unread = OF_CACHED if self.reference == "live" else set()
        # As if the option were not there, so that runs from before it can be resumed.
        usual = {"compile_blocks": False, "snr_times": False, "centre_users": True}
        unread = unread | (set() if self.objective == "mapo" else {"mapo_snr"})
        unread = unread | {key for key, value in usual.items() if getattr(self, key) == value}
        values: dict[str, Any] = self.model_dump(mode="json", exclude=FREE | unread)
        return values

    @property
    def dtype(self) -> torch.dtype:
        """`base_dtype` as torch names it."""
        return torch.bfloat16 if self.base_dtype == "bf16" else torch.float32

    @property
    def trained_preset(self) -> Preset:
        """The preset, with as many user tokens as the adapter is to have."""
        preset = get_preset(self.preset)
        tokens = self.user_tokens
        return preset if tokens is None else replace(preset, user_tokens=tokens)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step: linear warm-up, then constant, or down to zero."""
        if step < self.warmup_steps:
            return self.lr * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        if self.lr_schedule == "linear":
            return self.lr * (1 - done)
        if self.lr_schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * done))
        return self.lr

    @model_validator(mode="after")
    def _trains_what_is_asked(self) -> Self:
        """Raises ValueError for values that would train nothing or something else than asked."""
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                f"steps is {self.steps} and epochs is {self.epochs}, expected one of the two"
            )
        if not self.min_time < self.max_time:
            raise ValueError(
                f"max_time is {self.max_time}, expected a number above min_time {self.min_time}"
            )
        _check_user(self)
        if self.objective in ("mapo", "dspo") and self.omega != "constant":
            raise ValueError(
                f"omega is {self.omega!r}: the published loss of {self.objective} has no weights"
            )
        if self.reference == "cached":
            _check_cached(self)
        if self.decoder is not None and not self.sample_prompts:
            raise ValueError("decoder is given and sample_prompts is empty: what should be drawn?")
        return self


def _check_cached(config: DpoConfig) -> None:
    if config.objective in ("sft", "mapo"):
        raise ValueError(f"objective {config.objective} has no reference: reference is 'cached'")
    if config.objective in ("nft", "dspo"):
        raise ValueError(
            f"objective {config.objective} needs the reference's predictions, not only their "
            "errors: reference is 'cached'"
        )
    if config.reference_dir is None:
        raise ValueError(
            "reference is 'cached' and reference_dir is None: where did "
            "training.reference_errors write?"
        )
    if config.compile_blocks:
        raise ValueError(
            "compile_blocks with reference 'cached': the errors are computed with blocks that are "
            "not, and in bfloat16 they differ enough to move the loss"
        )


def _check_user(config: DpoConfig) -> None:
    if config.objective == "diffusion_dpo" and config.user != "none":
        raise ValueError(f"objective diffusion_dpo has no user: user is {config.user!r}")
    if config.objective in ("ppd", "nft") and config.user == "none":
        raise ValueError(
            f"objective {config.objective} needs users: user is 'none' (Eq. 3 is diffusion_dpo)"
        )
    if config.user == "none" and config.user_dropout > 0:
        raise ValueError(f"user_dropout is {config.user_dropout} where there is no user: set 0")
