"""What one run of train_dpo.py is told: every option, with what the paper says of it.

The paper's own values, where it gives them: AdamW, lr 1e-5 (3e-6 for real users), 768 pairs a step,
one epoch, beta tuned within [0.1, 2]; it leaves T, the reduction, omega, the schedule of the
learning rate and the rate of dropped users open.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ppd_model.presets import Preset, get_preset
from training.configuration import Configuration
from training.data.dataset import UserFeatures
from training.dpo.loss import Reduction
from training.dpo.time_weight import OmegaName

Objective = Literal["ppd", "diffusion_dpo", "sft", "nft"]
FREE = {
    "output_dir",
    "data_dir",
    "validate_every",
    "log_every",
    "checkpoint_every",
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
    """One run.

    data_dir: what precompute wrote; stage_c: the base's weights, a file for `mini`, for the
        published sizes the folder that `ppd models pull` fills.
    objective: "ppd" (Eq. 6), "diffusion_dpo" (Eq. 3: everybody alike), "sft" (the denoising loss
        of Eq. 1 on chosen pictures), or, not of the paper, "nft": chosen and rejected pictures by
        regression, see loss.py. beta only scales the margins that the last two log.
    user: what stands for a person. "none" gives everybody the same constant embedding:
        "diffusion_dpo" asks for it, "sft" may have it, "ppd" and "nft" may not.
    user_tokens: how many tokens the adapter makes of an embedding; None is the preset's number.
    only_person: train on one person's pairs alone (the single-reward upper bounds of Table 1).
    steps or epochs: how long, one of the two; an epoch is the whole batches in the training pairs.
    batch: pairs of one optimiser step over all processes; micro_batch: pairs of one forward pass
        of one process, the gradient of the others accumulated.
    beta, timesteps, reduction: Eq. 6, see loss.py. omega: see omega.py.
    shared_noise, shared_timestep: one noise, one time for both pictures of a pair. The paper
        writes two noises and one time; public Diffusion-DPO code shares both.
    min_time, max_time, time_power: times are drawn as max - (max - min) * u ** time_power, u
        uniform: above 1 they crowd near max. The paper draws them uniformly from all; how a
        picture looks as a whole is decided at high noise, and there most of a small run's signal
        is (docs/decisions/0004).
    user_dropout: share of pairs whose embedding is zeroed. The adapter has no bias, so such a pair
        equals the reference: it costs log 2, gives no gradient, takes no second pass (under "nft"
        it takes one), and counts one half in the logged implicit accuracy.
    reference: "live" computes the reference's errors in every step; "cached" reads them from
        `reference_dir`, which training.reference_errors wrote. Every pair then has
        `draws_per_pair` noises and times, taken in turn, one each epoch: a run of no more epochs
        than that meets none twice. `draws_seed` decides them, so that runs which differ in `seed`,
        beta, omega, user tokens or the learning rate can read the same errors.
    compile_blocks: compile the base's residual and timestep blocks (torch.compile).
    base_dtype: of the frozen base; the adapter and all errors are float32 in any case.
    gradient_checkpointing: keep no activations inside the base's blocks, compute them again.
    deterministic: on CUDA, use only kernels that give the same bits each time.
    validation_people: the last people of the data, whose pairs are never trained on.
    validate_every: steps between measurements of the weights that would be exported now.
    decoder: folder of a whole model, whose decoder and text encoder draw the sample grids; None
        draws none.
    sample_*: a grid has a row for each prompt, with the validation people in turn, and columns
        for the base and each strength, under seeds that never change.
    log_every: steps between printed lines; log.jsonl and the trackers get every step.
    export_strength: the exported adapter acts at strength 1 as the trained one does at this
        strength (its W'_v are scaled). beta and the length of a run fix how far it goes from the
        base, validation by pictures how far it should; to change it later, resume the finished
        run. Logs and sample grids show the adapter before it is scaled.
    resume_elsewhere: accept a checkpoint written with another torch, device, number of threads or
        of processes. The run draws the same numbers, yet no longer ends with the same bits.
    """

    preset: str
    data_dir: Path
    stage_c: Path
    output_dir: Path
    objective: Objective = "ppd"
    user: UserFeatures = "vlm"
    user_tokens: int | None = None
    only_person: int | None = None
    seed: int = 0
    steps: int | None = None
    epochs: float | None = None
    batch: int
    micro_batch: int | None = None
    lr: float
    lr_schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    beta: float
    timesteps: int = 1000
    reduction: Reduction = "mean"
    omega: OmegaName = "constant"
    shared_noise: bool = True
    shared_timestep: bool = True
    user_dropout: float = 0.1
    reference: Literal["live", "cached"] = "live"
    reference_dir: Path | None = None
    draws_per_pair: int = 1
    draws_seed: int = 0
    min_time: float = 0.001
    max_time: float = 1.0
    time_power: float = 1.0
    ema_decay: float = 0.0
    """Decay of the exported moving average of the adapter; 0 exports the last weights."""
    base_dtype: Literal["bf16", "fp32"] = "fp32"
    gradient_checkpointing: bool = False
    compile_blocks: bool = False
    deterministic: bool = False
    export_strength: float = 1.0
    validation_people: int = 32
    validation_pairs: int = 192
    validate_every: int = 200
    decoder: Path | None = None
    sample_every: int = 200
    sample_prompts: tuple[str, ...] = ()
    sample_people: int = 4
    sample_strengths: tuple[float, ...] = (0.5, 1.0, 1.5)
    sample_steps: int = 20
    sample_seed: int = 0
    log_every: int = 10
    checkpoint_every: int = 200
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    resume_elsewhere: bool = False

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
        if not self.compile_blocks:
            unread = unread | {"compile_blocks"}
        values: dict[str, Any] = self.model_dump(mode="json", exclude=FREE | unread)
        return values

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


def check(config: DpoConfig) -> None:
    """Raises ValueError for values that would train nothing or something else than asked."""
    if (config.steps is None) == (config.epochs is None):
        raise ValueError(
            f"steps is {config.steps} and epochs is {config.epochs}, expected one of the two"
        )
    positive = (
        "steps",
        "epochs",
        "batch",
        "micro_batch",
        "lr",
        "beta",
        "timesteps",
        "time_power",
        "draws_per_pair",
        "clip_norm",
        "export_strength",
        "validate_every",
        "checkpoint_every",
        "log_every",
        "sample_every",
        "sample_people",
        "sample_steps",
    )
    for name in positive:
        value = getattr(config, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}, expected a positive number")
    for name in ("user_dropout", "ema_decay", "min_time"):
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}, expected a number in [0, 1)")
    if not config.min_time < config.max_time <= 1:
        raise ValueError(
            f"max_time is {config.max_time}, expected a number above min_time "
            f"{config.min_time} and up to 1"
        )
    if config.user_tokens is not None and config.user_tokens < 2:
        raise ValueError(f"user_tokens is {config.user_tokens}, expected 2 or more")
    _check_user(config)
    if config.reference == "cached":
        _check_cached(config)
    if config.decoder is not None and not config.sample_prompts:
        raise ValueError("decoder is given and sample_prompts is empty: what should be drawn?")


def _check_cached(config: DpoConfig) -> None:
    if config.objective == "sft":
        raise ValueError("objective sft has no reference: reference is 'cached'")
    if config.objective == "nft":
        raise ValueError(
            "objective nft needs the reference's predictions, not only their errors: "
            "reference is 'cached'"
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
    if config.draws_seed < 0:
        raise ValueError(f"draws_seed is {config.draws_seed}, expected 0 or more")


def _check_user(config: DpoConfig) -> None:
    if config.objective == "diffusion_dpo" and config.user != "none":
        raise ValueError(f"objective diffusion_dpo has no user: user is {config.user!r}")
    if config.objective in ("ppd", "nft") and config.user == "none":
        raise ValueError(
            f"objective {config.objective} needs users: user is 'none' (Eq. 3 is diffusion_dpo)"
        )
    if config.user == "none" and config.user_dropout > 0:
        raise ValueError(f"user_dropout is {config.user_dropout} where there is no user: set 0")
