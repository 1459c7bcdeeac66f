"""START HERE: trains the adapter on people's preferences (paper, Eq. 6 and 7; design 3).

    python -m training.train_dpo --config training/configs/mini_dpo.yaml [--lr 3e-4] [--resume]
    accelerate launch -m training.train_dpo --config ...

The base is frozen and in eval(); the reference is the same weights with the adapter off; chosen
and rejected pictures go through the network in one batch. What a step draws (rows, noise, times,
dropped users) is a pure function of (seed, step), over the whole batch of all processes, so a
resumed run, another number of processes or a smaller micro batch draws the same.

Legend: B pairs, C H W latent, D embedding.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import is_tensorboard_available, is_wandb_available
from torch import Tensor

from ppd_model.adapter import trainable_parameters
from ppd_model.checkpoint import save_artifact
from ppd_model.diffusion import add_noise, p2_weight
from ppd_model.presets import get_preset
from ppd_model.stage_c import StageC, adapter_spec, load_stage_c
from training.configuration import Configuration, parse_command_line, save_resolved
from training.dataset import PairBatch, PreferencePairs, UserFeatures, batch_rows, load_pairs
from training.loss import PairErrors, PreferenceLoss, Reduction, ppd_loss, squared_error

CHECKPOINT = "checkpoint.pt"
ADAPTER = "adapter.safetensors"
LOG = "log.jsonl"
TRACKERS = {"tensorboard": is_tensorboard_available, "wandb": is_wandb_available}


class DpoConfig(Configuration):
    """One run.

    data_dir: what precompute wrote; stage_c: the base's weights; user: what stands for a person.
    batch: pairs of one optimiser step over all processes; micro_batch: pairs of one forward pass.
    beta, timesteps, reduction: Eq. 6, see loss.py. omega: "one", or "p2" for Stable Cascade's P2
    weight. shared_noise: one noise for both pictures of a pair (the time is always shared); the
    paper writes separate ones, public Diffusion-DPO code shares.
    time_power: times are drawn as 1 - (1 - min_time) * u ** time_power, u uniform: above 1 they
        crowd near t = 1. The paper draws them uniformly; how a picture looks as a whole is decided
        at high noise, and there most of a small run's signal is.
    user_dropout: share of pairs whose embedding is zeroed. The adapter has no bias, so such a pair
        equals the reference: it costs log 2, gives no gradient, and counts one half in the logged
        implicit accuracy.
    validation_people: the last people of the data, whose pairs are never trained on.
    """

    preset: str
    data_dir: Path
    stage_c: Path
    output_dir: Path
    user: UserFeatures = "vlm"
    seed: int = 0
    steps: int
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
    omega: Literal["one", "p2"] = "one"
    shared_noise: bool = True
    user_dropout: float = 0.1
    min_time: float = 0.001
    time_power: float = 1.0
    ema_decay: float = 0.0
    """Decay of the exported moving average of the adapter; 0 exports the last weights."""
    validation_people: int = 32
    validation_pairs: int = 192
    validate_every: int = 200
    log_every: int = 10
    checkpoint_every: int = 200
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)


@dataclass(frozen=True)
class Draws:
    """The randomness of B pairs: noises, time, which embedding, and whose embedding is dropped."""

    noise_chosen_BCHW: Tensor
    noise_rejected_BCHW: Tensor
    t_B: Tensor
    which_embedding_B: Tensor
    keep_user_B: Tensor

    def rows(self, part: slice) -> Draws:
        """Those of some of the pairs."""
        return Draws(**{name: value[part] for name, value in vars(self).items()})

    def to(self, device: torch.device) -> Draws:
        """The same on another device."""
        return Draws(**{name: value.to(device) for name, value in vars(self).items()})


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    config, resume = parse_command_line(DpoConfig, argv, __doc__)
    train(config, resume)


def train(config: DpoConfig, resume: bool = False) -> Path:
    """Train and export; returns the adapter's path.

    Raises ValueError or ArtifactError for data or weights that do not fit, and for a folder that
    holds another run unless `resume`; FloatingPointError when a loss is not finite.
    """
    check(config)
    preset = get_preset(config.preset)
    accelerator = make_accelerator(config)
    pairs = load_pairs(config.data_dir, config.user, preset.user_emb_dim)
    train_rows, validation_rows = split_rows(pairs, config)
    torch.manual_seed(config.seed)
    stage_c = load_stage_c(preset, config.stage_c).train()
    stage_c.adapter.projector.center_on(pairs.user_emb_ED)
    optimizer = torch.optim.AdamW(
        trainable_parameters(stage_c), lr=config.lr, weight_decay=config.weight_decay
    )
    average = {key: value.clone() for key, value in stage_c.adapter.state_dict().items()}
    first = start(config, resume, stage_c, optimizer, average)
    model, optimizer = accelerator.prepare(stage_c, optimizer)
    stage_c = accelerator.unwrap_model(model)
    average = {key: value.to(accelerator.device) for key, value in average.items()}
    if accelerator.is_main_process:
        save_resolved(config, config.output_dir)
        print(
            f"{len(train_rows)} pairs of {pairs.people - config.validation_people} people, "
            f"{len(validation_rows)} of {config.validation_people} for validation; "
            f"{sum(p.numel() for p in trainable_parameters(stage_c)):,} trainable of "
            f"{sum(p.numel() for p in stage_c.parameters()):,} parameters",
            flush=True,
        )
    accelerator.init_trackers("train_dpo")
    progress = Progress(config, first)

    for step in range(first, config.steps):
        set_lr(optimizer, lr_at(step, config))
        loss = optimizer_step(accelerator, model, optimizer, pairs, train_rows, step, config)
        update_average(average, stage_c, config.ema_decay)
        done = step + 1
        record = {"step": done, "lr": lr_at(step, config), **loss}
        if done % config.validate_every == 0 or done == config.steps:
            record |= validate(stage_c, pairs, validation_rows, config, accelerator.device)
        if done % config.log_every == 0 or "validation_accuracy" in record or done == 1:
            accelerator.log({k: v for k, v in record.items() if k != "step"}, step=done)
            if accelerator.is_main_process:
                progress.report(record)
        if accelerator.is_main_process and (
            done % config.checkpoint_every == 0 or done == config.steps
        ):
            save_checkpoint(config, stage_c, optimizer, average, done)

    accelerator.wait_for_everyone()
    path = config.output_dir / ADAPTER
    if accelerator.is_main_process:
        digest = export(config, stage_c, average, pairs)
        print(f"{path} sha256 {digest}", flush=True)
    accelerator.end_training()
    return path


def make_accelerator(config: DpoConfig) -> Accelerator:
    """accelerate's loop with the trackers asked for.

    Raises ValueError when one of them is not installed: accelerate itself would go on without it.
    """
    missing = [name for name in config.trackers if not TRACKERS[name]()]
    if missing:
        raise ValueError(f"not installed: {', '.join(missing)}; install it or set trackers to []")
    return Accelerator(log_with=list(config.trackers) or None, project_dir=str(config.output_dir))


def check(config: DpoConfig) -> None:
    """Raises ValueError for values that would train nothing or something else than asked."""
    positive = (
        "steps",
        "batch",
        "lr",
        "beta",
        "time_power",
        "clip_norm",
        "validate_every",
        "checkpoint_every",
    )
    for name in positive:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} is {getattr(config, name)}, expected a positive number")
    for name in ("user_dropout", "ema_decay", "min_time"):
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}, expected a number in [0, 1)")


def split_rows(pairs: PreferencePairs, config: DpoConfig) -> tuple[Tensor, Tensor]:
    """Rows to train on, and rows of the people held out for validation."""
    if not 2 <= config.validation_people < pairs.people:
        raise ValueError(
            f"validation_people is {config.validation_people}; the data hold {pairs.people} people"
        )
    border = pairs.people - config.validation_people
    held_out = pairs.rows_of(range(border, pairs.people))
    spread = torch.linspace(0, len(held_out) - 1, min(config.validation_pairs, len(held_out)))
    return pairs.rows_of(range(border)), held_out[spread.long()]


def draw(pairs: int, latent_CHW: torch.Size, seed: int, step: int, config: DpoConfig) -> Draws:
    """The randomness of one step, a function of its arguments alone."""
    # torch's CPU generator reads the low 32 bits of a seed only: mix both into those.
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
    generator = torch.Generator().manual_seed(mixed)
    chosen_BCHW = torch.randn((pairs, *latent_CHW), generator=generator)
    rejected_BCHW = (
        chosen_BCHW
        if config.shared_noise
        else torch.randn((pairs, *latent_CHW), generator=generator)
    )
    time_B, which_B, keep_B = torch.rand((3, pairs), generator=generator)
    return Draws(
        noise_chosen_BCHW=chosen_BCHW,
        noise_rejected_BCHW=rejected_BCHW,
        t_B=1 - (1 - config.min_time) * time_B**config.time_power,
        which_embedding_B=which_B,
        keep_user_B=(keep_B >= config.user_dropout).float(),
    )


def pair_loss(
    model: torch.nn.Module, batch: PairBatch, draws: Draws, config: DpoConfig
) -> PreferenceLoss:
    """Eq. 6 for one batch: the policy with each pair's user, the reference without.

    `model` is a StageC, or one that accelerate has wrapped.
    """
    stage_c = model if isinstance(model, StageC) else model.module
    assert isinstance(stage_c, StageC)
    noise_BCHW = torch.cat([draws.noise_chosen_BCHW, draws.noise_rejected_BCHW])
    x0_BCHW = torch.cat([batch.chosen_BCHW, batch.rejected_BCHW])
    t_B = draws.t_B.repeat(2)
    xt_BCHW = add_noise(x0_BCHW, noise_BCHW, t_B)
    text_BST, pooled_B1T = batch.text_BST.repeat(2, 1, 1), batch.pooled_B1T.repeat(2, 1, 1)
    user_emb_BD = batch.user_emb_BD * draws.keep_user_B.unsqueeze(1)
    with torch.no_grad(), stage_c.adapter.disabled():
        reference_BCHW = stage_c(xt_BCHW, t_B, text_BST, pooled_B1T)
    policy_BCHW = model(xt_BCHW, t_B, text_BST, pooled_B1T, user_emb_BD.repeat(2, 1))

    def errors(predicted_BCHW: Tensor) -> PairErrors:
        error_B = squared_error(noise_BCHW, predicted_BCHW, config.reduction)
        chosen_B, rejected_B = error_B.chunk(2)
        return PairErrors(chosen_B, rejected_B)

    return ppd_loss(
        errors(policy_BCHW),
        errors(reference_BCHW),
        beta=config.beta,
        timesteps=config.timesteps,
        omega_B=p2_weight(draws.t_B) if config.omega == "p2" else None,
    )


def optimizer_step(
    accelerator: Accelerator,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    pairs: PreferencePairs,
    rows_R: Tensor,
    step: int,
    config: DpoConfig,
) -> dict[str, float]:
    """One step on one batch, in micro batches; returns this process's means for the log."""
    rows_B = batch_rows(rows_R, config.batch, step, config.seed)
    draws = draw(config.batch, pairs.latent_NCHW.shape[1:], config.seed, step, config)
    parts = list(micro_batches(accelerator, config))
    sums: dict[str, float] = {}
    optimizer.zero_grad()
    for index, part in enumerate(parts):
        local = draws.rows(part)
        batch = pairs.batch(rows_B[part], local.which_embedding_B).to(accelerator.device)
        last = index == len(parts) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            loss = pair_loss(model, batch, local.to(accelerator.device), config)
            accelerator.backward(loss.loss / len(parts))
        for name, value in loss.scalars().items():
            sums[name] = sums.get(name, 0.0) + value / len(parts)
    norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
    grad_norm = float(norm) if norm is not None else 0.0
    if not (torch.isfinite(torch.tensor([sums["loss"], grad_norm])).all()):
        raise FloatingPointError(f"step {step}: loss {sums['loss']}, gradient norm {grad_norm}")
    optimizer.step()
    return {**sums, "grad_norm": grad_norm}


def micro_batches(accelerator: Accelerator, config: DpoConfig) -> Iterator[slice]:
    """This process's equal parts of the batch. Raises ValueError when they do not divide it."""
    size = config.micro_batch or config.batch // accelerator.num_processes
    if size < 1 or config.batch % (size * accelerator.num_processes):
        raise ValueError(
            f"batch {config.batch} is not a multiple of micro_batch {size} times "
            f"{accelerator.num_processes} processes"
        )
    share = config.batch // accelerator.num_processes
    begin = share * accelerator.process_index
    for offset in range(begin, begin + share, size):
        yield slice(offset, offset + size)


@torch.no_grad()
def validate(
    stage_c: StageC,
    pairs: PreferencePairs,
    rows_R: Tensor,
    config: DpoConfig,
    device: torch.device,
) -> dict[str, float]:
    """Loss and implicit accuracy on held-out people, under the same draws each time.

    "swapped" gives every pair the embedding of another held-out person: what the adapter does
    for everyone alike moves it as well, what it does for this person alone does not.
    """
    sums = {"validation_loss": 0.0, "validation_accuracy": 0.0, "validation_swapped_accuracy": 0.0}
    still = config.model_copy(update={"user_dropout": 0.0})
    shift = len(rows_R) // 2
    emb_RD = pairs.batch(rows_R, torch.zeros(len(rows_R))).user_emb_BD.roll(shift, 0)
    size = config.micro_batch or config.batch
    for start_row in range(0, len(rows_R), size):
        rows_B = rows_R[start_row : start_row + size]
        draws = draw(len(rows_B), pairs.latent_NCHW.shape[1:], config.seed + 1, start_row, still)
        batch = pairs.batch(rows_B, draws.which_embedding_B)
        swapped = PairBatch(**(vars(batch) | {"user_emb_BD": emb_RD[start_row : start_row + size]}))
        draws = draws.to(device)
        own = pair_loss(stage_c, batch.to(device), draws, still)
        other = pair_loss(stage_c, swapped.to(device), draws, still)
        weight = len(rows_B) / len(rows_R)
        sums["validation_loss"] += weight * float(own.loss)
        sums["validation_accuracy"] += weight * float(own.implicit_accuracy)
        sums["validation_swapped_accuracy"] += weight * float(other.implicit_accuracy)
    return sums


def lr_at(step: int, config: DpoConfig) -> float:
    """The learning rate of a step: linear warm-up, then constant, or down to zero."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    if config.lr_schedule == "linear":
        return config.lr * (1 - done)
    if config.lr_schedule == "cosine":
        return config.lr * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * done))))
    return config.lr


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every parameter group that learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def update_average(average: dict[str, Tensor], stage_c: StageC, decay: float) -> None:
    """Move the exponential average of the adapter towards its present weights."""
    for key, value in stage_c.adapter.state_dict().items():
        average[key].lerp_(value, 1 - decay)


def start(
    config: DpoConfig,
    resume: bool,
    stage_c: StageC,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
) -> int:
    """The first step: 0 for a new run, else the checkpoint's, with its state put in place.

    Raises ValueError for a folder that holds a run when `resume` is off, and for a checkpoint of
    a run with other values.
    """
    path = config.output_dir / CHECKPOINT
    if not path.exists():
        return 0
    if not resume:
        raise ValueError(f"{path} exists: pass --resume to continue it or choose another folder")
    state = torch.load(path, map_location="cpu", weights_only=True)
    mine = comparable(config)
    differing = [key for key, value in mine.items() if state["config"].get(key) != value]
    if differing:
        raise ValueError(f"{path} belongs to a run with another {', '.join(differing)}")
    stage_c.adapter.load_state_dict(state["adapter"])
    optimizer.load_state_dict(state["optimizer"])
    average.update(state["average"])
    step: int = state["step"]
    print(f"resumed at step {step}", flush=True)
    return step


def comparable(config: DpoConfig) -> dict[str, Any]:
    """The values that make a run what it is: all but where and how often it writes."""
    free = {"output_dir", "validate_every", "log_every", "checkpoint_every", "trackers"}
    values: dict[str, Any] = config.model_dump(mode="json", exclude=free)
    return values


def save_checkpoint(
    config: DpoConfig,
    stage_c: StageC,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    step: int,
) -> None:
    """Everything a resumed run needs, written in one step.

    There is no generator state to save: draws are functions of (seed, step).
    """
    path = config.output_dir / CHECKPOINT
    state = {
        "step": step,
        "config": comparable(config),
        "adapter": stage_c.adapter.state_dict(),
        "average": average,
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def export(
    config: DpoConfig, stage_c: StageC, average: dict[str, Tensor], pairs: PreferencePairs
) -> str:
    """Write the adapter artifact; returns its sha256."""
    spec = adapter_spec(
        get_preset(config.preset),
        encoder_id=pairs.provenance["encoder_id"] if config.user == "vlm" else config.user,
        user=config.user,
        steps=str(config.steps),
        beta=str(config.beta),
        timesteps=str(config.timesteps),
        reduction=config.reduction,
    )
    tensors = average if config.ema_decay > 0 else stage_c.adapter.state_dict()
    return save_artifact(config.output_dir / ADAPTER, tensors, spec)


class Progress:
    """One line a record on the terminal, and the record itself in log.jsonl."""

    def __init__(self, config: DpoConfig, first: int) -> None:
        self._config = config
        self._first = first
        self._started_s = time.monotonic()

    def report(self, record: dict[str, float]) -> None:
        """Write one record."""
        done = int(record["step"])
        elapsed_s = time.monotonic() - self._started_s
        steps_per_s = (done - self._first) / elapsed_s
        record = record | {"pairs_per_s": steps_per_s * self._config.batch}
        with (self._config.output_dir / LOG).open("a") as file:
            file.write(json.dumps(record) + "\n")
        line = (
            f"step {done}/{self._config.steps} loss {record['loss']:.4f} "
            f"accuracy {record['implicit_accuracy']:.3f} margin {record['margin']:.3f} "
            f"chosen {record['chosen_gain']:+.5f} rejected {record['rejected_gain']:+.5f} "
            f"grad {record['grad_norm']:.3f} {record['pairs_per_s']:.0f} pairs/s "
            f"eta {(self._config.steps - done) / steps_per_s:.0f} s"
        )
        if "validation_accuracy" in record:
            line += (
                f" | validation accuracy {record['validation_accuracy']:.3f}, with another's "
                f"embedding {record['validation_swapped_accuracy']:.3f}"
            )
        print(line, flush=True)


if __name__ == "__main__":
    main()
