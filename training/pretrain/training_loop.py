"""The loop that every pretraining job runs in: resumable, checkpointed by the clock, EMA, grids.

A job gives the modules it trains, a loss for one step, and a picture to look at. Everything a run
needs to continue is in ``OUT/checkpoint.pt``; the averaged weights are in ``OUT/ema.pt``, and
``OUT/log.jsonl`` holds the numbers.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from training.jobs.configuration import Configuration, save_resolved
from training.jobs.files import replacing
from training.jobs.shared_options import Out, Seed, Threads
from training.jobs.stopping import end, watched

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class LoopConfig(Configuration):
    """Options of every pretraining job.

    As the learning rate falls over a share of the steps, a run may be shortened (``--resume --steps
    N``) and still end cooled down.
    """

    out: Out
    steps: int
    """Optimiser steps."""
    batch: int
    """Pictures of a step."""
    lr: float
    """Learning rate, constant after the warm-up."""
    seed: Seed = 0
    warmup: int = 200
    """Steps over which the learning rate rises."""
    decay_share: float = 0.25
    """Share of the steps, at the end, over which it falls to zero."""
    weight_decay: float = 0.01
    """Of AdamW."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.998
    """Decay of the averaged weights."""
    threads: Threads = 1
    checkpoint_every_s: float = 120
    """Seconds between checkpoints."""
    log_every: int = 50
    """Steps between lines of log.jsonl."""
    grid_every: int = 1000
    """Steps between grids of pictures."""


class Job(Protocol):
    """What is trained."""

    modules: Mapping[str, nn.Module]

    def loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one freshly drawn batch, and numbers to log."""
        ...

    def grid(self, averaged: Mapping[str, Any]) -> np.ndarray:
        """A picture of what the averaged modules do now, H x W x 3 uint8."""
        ...

    def measure(self, averaged: Mapping[str, Any]) -> dict[str, float]:
        """Numbers on held-out data, taken when a grid is drawn."""
        ...


def run(job: Job, config: LoopConfig, resume: bool) -> dict[str, nn.Module]:
    """Train to ``config.steps`` and return the averaged modules, in eval mode.

    Raises FileExistsError when ``out`` holds a run and ``resume`` is off, FileNotFoundError when
    there is nothing to resume, and FloatingPointError when the loss is not finite.
    """
    torch.set_num_threads(config.threads)
    config.out.mkdir(parents=True, exist_ok=True)
    checkpoint = config.out / "checkpoint.pt"
    if checkpoint.exists() and not resume:
        raise FileExistsError(f"{checkpoint} exists: continue it with --resume, or move it away")
    if resume and not checkpoint.exists():
        raise FileNotFoundError(f"nothing to resume: {checkpoint} does not exist")
    save_resolved(config, config.out)

    trained = nn.ModuleDict(dict(job.modules))
    averaged = torch.optim.swa_utils.AveragedModel(
        trained,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.ema),
        use_buffers=True,
    )
    optimizer = torch.optim.AdamW(
        trained.parameters(), lr=config.lr, weight_decay=config.weight_decay, betas=(0.9, 0.99)
    )
    generator = torch.Generator().manual_seed(config.seed)
    step = _restore(checkpoint, trained, averaged, optimizer, generator) if resume else 0

    last_saved = time.monotonic()
    progress = tqdm(
        total=config.steps, initial=step, desc=config.out.name, unit="step", mininterval=15
    )
    with (config.out / "log.jsonl").open("a") as log, watched() as stop:
        while step < config.steps:
            trained.train()
            for group in optimizer.param_groups:
                group["lr"] = config.lr * _lr_factor(step, config)
            loss, numbers = job.loss(generator)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"loss {loss.item()} at step {step}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            grad_norm = nn.utils.clip_grad_norm_(trained.parameters(), config.clip)
            optimizer.step()
            averaged.update_parameters(trained)
            step += 1
            progress.update()
            if step % config.log_every == 0:
                row = {"step": step, "loss": loss.item(), "grad_norm": float(grad_norm), **numbers}
                log.write(json.dumps({k: round(v, 6) for k, v in row.items()}) + "\n")
                log.flush()
            if step % config.grid_every == 0 or step == config.steps:
                modules = _eval_modules(averaged)
                row = {"step": step, **job.measure(modules)}
                log.write(json.dumps(row) + "\n")
                Image.fromarray(job.grid(modules)).save(config.out / f"grid-{step:06d}.png")
            due = time.monotonic() - last_saved > config.checkpoint_every_s
            if due or step == config.steps or stop.signal:
                _save(checkpoint, step, trained, averaged, optimizer, generator)
                last_saved = time.monotonic()
            if stop.signal and step < config.steps:
                end(stop.signal, f"step {step} of {config.steps} is kept; --resume goes on")
    progress.close()
    return _eval_modules(averaged)


def load_averaged(out: Path, name: str, module: ModuleT) -> ModuleT:
    """A freshly built module with a run's averaged weights of that name, strictly, in eval mode."""
    path = out / "ema.pt"
    if not path.exists():
        raise FileNotFoundError(f"{path}: train {out.name} first")
    module.load_state_dict(torch.load(path, weights_only=True)[name])
    return module.eval().requires_grad_(False)


def save_averaged(out: Path, modules: Mapping[str, nn.Module]) -> None:
    """Replace a run's averaged weights, after a last touch that is no training."""
    _write(out / "ema.pt", {name: module.state_dict() for name, module in modules.items()})


def _lr_factor(step: int, config: LoopConfig) -> float:
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    decay_steps = max(1, int(config.steps * config.decay_share))
    return warm * min(1.0, (config.steps - step) / decay_steps)


def _eval_modules(averaged: torch.optim.swa_utils.AveragedModel) -> dict[str, nn.Module]:
    averaged.eval()
    modules: dict[str, nn.Module] = dict(averaged.module.named_children())
    return modules


def _save(
    path: Path,
    step: int,
    trained: nn.Module,
    averaged: torch.optim.swa_utils.AveragedModel,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> None:
    state = {
        "step": step,
        "trained": trained.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
        "torch_rng": torch.get_rng_state(),
    }
    _write(path, state)
    save_averaged(path.parent, _eval_modules(averaged))


def _write(path: Path, state: object) -> None:
    with replacing(path) as unfinished:
        torch.save(state, unfinished)


def _restore(
    path: Path,
    trained: nn.Module,
    averaged: torch.optim.swa_utils.AveragedModel,
    optimizer: torch.optim.Optimizer,
    generator: torch.Generator,
) -> int:
    state = torch.load(path, weights_only=True)
    trained.load_state_dict(state["trained"])
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    generator.set_state(state["generator"])
    torch.set_rng_state(state["torch_rng"])
    step: int = state["step"]
    return step
