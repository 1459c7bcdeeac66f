"""What a training run needs to go on where it stopped, and whether it is the same run.

A resumed run ends with the bits of an uninterrupted one, or is refused with what differs named.
There is no generator to save: what a step draws is a function of (seed, step).
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ppd_model.files.artifact import sha256_of
from ppd_model.nets.adapter import Adapter
from training.data.shards import MANIFEST
from training.dpo.dpo_config import DpoConfig
from training.dpo.time_weight import Omega
from training.jobs.configuration import differences
from training.jobs.files import replacing

CHECKPOINT = "checkpoint.pt"
ELSEWHERE = ("processes", "torch", "device", "cpu", "threads")
"""What changes the last bits of sums, not what is drawn."""


@dataclass
class RunState:
    """All that training moves. `average` holds the adapter's exponential moving average."""

    adapter: Adapter
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    omega: Omega

    def update_average(self, decay: float) -> None:
        """Move the average towards the adapter's present weights."""
        for key, value in self.adapter.state_dict().items():
            self.average[key].lerp_(value, 1 - decay)

    def save(self, folder: Path, step: int, identity: dict[str, Any]) -> None:
        """Write the checkpoint in one step: a crash leaves this one or the one before."""
        state = {
            "step": step,
            "identity": identity,
            "adapter": self.adapter.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "omega": self.omega.average_error,
        }
        with replacing(folder / CHECKPOINT) as unfinished:
            torch.save(state, unfinished)

    def restore(self, config: DpoConfig, identity: dict[str, Any]) -> int:
        """Put the checkpoint's state in place and return its step.

        Raises FileNotFoundError without a checkpoint, and ValueError for one that cannot be read,
        or that another run wrote; with `resume_elsewhere`, one written on another machine will do.
        """
        folder = config.output_dir
        path = folder / CHECKPOINT
        if not path.exists():
            raise FileNotFoundError(f"nothing to resume: {path} does not exist")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            found = state["identity"]
        except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} is not a checkpoint of this trainer: {error!r}") from error
        _refuse_another(path, found, identity, config)
        self.adapter.load_state_dict(state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        for key, value in state["average"].items():
            self.average[key].copy_(value)
        self.omega.average_error.copy_(state["omega"])
        step: int = state["step"]
        return step


def _refuse_another(
    path: Path, found: dict[str, Any], identity: dict[str, Any], config: DpoConfig
) -> None:
    """Raises ValueError, naming the option that lifts it, where other bits would come out."""
    constant = config.lr_schedule == "constant"
    ignored = {"steps"} if constant else set()
    if config.resume_elsewhere:
        ignored |= set(ELSEWHERE)
    differing = differences(found, identity, ignored)
    if not differing:
        return
    lifted = ""
    if not differences(found, identity, ignored | set(ELSEWHERE)):
        lifted = "; --resume_elsewhere continues it, to other last bits"
    elif not differences(found, identity, ignored | {"steps"}):
        lifted = "; only under --lr_schedule constant can a run be made longer"
    raise ValueError(f"{path} belongs to a run with another {differing}{lifted}")


def device_name(device: torch.device) -> str:
    """What computes: the last bits of a sum are its own."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def identity_of(config: DpoConfig, accelerator: Accelerator, base: str) -> dict[str, Any]:
    """Everything that a run's last bits depend on, in terms of json.

    The configuration, what is in the data (its manifest lists every shard's sha256) and in the
    base's files (`base` is their sha256), and what the sums are computed with.
    """
    begun = config.init_adapter
    return config.comparable() | {
        "init adapter": None if begun is None else sha256_of(begun),
        "base weights": base,
        "data": sha256_of(config.data_dir / MANIFEST),
        "processes": accelerator.num_processes,
        "torch": str(torch.__version__),
        "device": device_name(accelerator.device),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }
