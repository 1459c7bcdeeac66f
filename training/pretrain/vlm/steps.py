"""The loop of both stages: optimiser steps, checkpoints by the clock, log.jsonl."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.jobs.files import replacing
from training.pretrain.vlm.vlm_config import StepsConfig


def run_steps(
    trained: nn.Module,
    step: Callable[[int], tuple[Tensor, dict[str, Any]]],
    evaluate: Callable[[int], None],
    path: Path,
    log: Log,
    resume: bool,
    *,
    stage: str,
    steps: int,
    lr: float,
    config: StepsConfig,
) -> None:
    """AdamW with warm-up and cosine decay; step n follows from the seed and n alone, so a resumed
    run is the uninterrupted one."""
    decayed = [p for p in trained.parameters() if p.ndim >= 2]
    others = [p for p in trained.parameters() if p.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    start = 0
    if resume and path.exists():
        state = torch.load(path, weights_only=True)
        trained.load_state_dict(state["trained"])
        optimizer.load_state_dict(state["optimizer"])
        start = int(state["step"])
    trained.train()
    parameters = [p for p in trained.parameters() if p.requires_grad]
    saved_at = evaluated_at = logged_at = time.monotonic()
    sums: dict[str, float] = {}
    summed = 0
    for number in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(number, steps, config.warmup_steps)
        loss, parts = step(number)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        optimizer.step()
        optimizer.zero_grad()
        for name, value in {"loss": float(loss.detach()), "norm": float(norm), **parts}.items():
            sums[name] = sums.get(name, 0.0) + value
        summed += 1
        now = time.monotonic()
        if (number + 1) % config.log_every == 0:
            means = {name: round(value / summed, 4) for name, value in sums.items()}
            rate = summed / (now - logged_at)
            log.write(stage, step=number + 1, of=steps, steps_per_s=round(rate, 2), **means)
            sums, summed, logged_at = {}, 0, now
        if now - saved_at > config.checkpoint_every_s:
            save_checkpoint(path, trained, optimizer, number + 1)
            saved_at = now
        if now - evaluated_at > config.evaluate_every_s:
            evaluate(number + 1)
            evaluated_at = logged_at = time.monotonic()
            sums, summed = {}, 0
    if start < steps:
        save_checkpoint(path, trained, optimizer, steps)
        evaluate(steps)


def schedule(number: int, steps: int, warmup_steps: int) -> float:
    """Share of the learning rate at a step: linear warm-up, then half a cosine to 1 %."""
    if number < warmup_steps:
        return (number + 1) / warmup_steps
    progress = (number - warmup_steps) / max(1, steps - warmup_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def save_checkpoint(
    path: Path, trained: nn.Module, optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Write everything that is needed to go on, in one move."""
    state = {"trained": trained.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
    with replacing(path) as unfinished:
        torch.save(state, unfinished)


class Log:
    """One JSON object per line in a file, and on standard output."""

    def __init__(self, path: Path, keep: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._start = time.monotonic()
        if not keep:
            path.write_text("")

    def write(self, event: str, **values: Any) -> None:
        line = json.dumps({"event": event, "s": round(time.monotonic() - self._start), **values})
        with self._path.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)
