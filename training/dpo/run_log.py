"""What a run says of itself: every step in log.jsonl and the trackers, a bar or lines on screen.

On a terminal a progress bar with pairs/s and the time left; elsewhere one line every so many
steps, for log files.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from tqdm import tqdm

from training.dpo.dpo_config import DpoConfig
from training.jobs.files import read_lines, replacing

LOG = "log.jsonl"


class RunLog:
    """Used by every process; only the main one writes.

    The log of a resumed run is cut back to `first`: steps after the checkpoint are taken again.
    """

    def __init__(self, config: DpoConfig, accelerator: Accelerator, first: int) -> None:
        self._config = config
        self._accelerator = accelerator
        self._first = first
        self._path = config.output_dir / LOG
        self._bar: tqdm | None = None
        accelerator.init_trackers(
            "train_dpo",
            config=_flat(config),
            init_kwargs={"tensorboard": {"purge_step": first + 1}},
        )
        if not accelerator.is_main_process:
            return
        _cut(self._path, first)
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=config.total_steps * config.batch,
                initial=first * config.batch,
                desc=config.output_dir.name,
                unit=" pairs",
            )
        self._started_s = time.monotonic()

    def say(self, line: str) -> None:
        """One line on screen, above the bar where there is one."""
        if self._accelerator.is_main_process:
            tqdm.write(line) if self._bar is not None else print(line, flush=True)

    def step(self, record: dict[str, float]) -> None:
        """One finished step: `step`, its numbers, and `validation_*` where it was measured."""
        numbers = {key: value for key, value in record.items() if key != "step"}
        self._accelerator.log(numbers, step=int(record["step"]))
        if not self._accelerator.is_main_process:
            return
        done = int(record["step"])
        steps_per_s = (done - self._first) / (time.monotonic() - self._started_s)
        pairs_per_s = steps_per_s * self._config.batch
        with self._path.open("a") as file:
            file.write(json.dumps(record | {"pairs_per_s": pairs_per_s}) + "\n")
        if self._bar is not None:
            self._bar.update(self._config.batch)
            self._bar.set_postfix_str(_short(record))
        measured = any(key.startswith("validation") for key in record)
        if measured or (
            self._bar is None and (done % self._config.log_every == 0 or done == self._first + 1)
        ):
            left_s = (self._config.total_steps - done) / steps_per_s
            self.say(
                f"step {done}/{self._config.total_steps} {_line(record)} "
                f"{pairs_per_s:.0f} pairs/s, {left_s:.0f} s left"
            )

    def grid(self, image_HWC: NDArray[np.uint8], step: int) -> None:
        """A sample grid, to every tracker that takes pictures."""
        for tracker in self._accelerator.trackers:
            if tracker.name == "tensorboard":
                tracker.log_images({"samples": image_HWC[None]}, step=step, dataformats="NHWC")
            elif tracker.name == "wandb":
                tracker.log_images({"samples": [image_HWC]}, step=step)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._accelerator.end_training()


def _cut(path: Path, last_step: int) -> None:
    """Keep the whole lines of steps up to `last_step`."""
    kept = [record for record in read_lines(path) if record["step"] <= last_step]
    with replacing(path) as unfinished:
        unfinished.write_text("".join(json.dumps(record) + "\n" for record in kept))


def _line(record: dict[str, float]) -> str:
    names = {
        "loss": "loss {:.4f}",
        "implicit_accuracy": "accuracy {:.3f}",
        "margin": "margin {:.3f}",
        "chosen_error": "chosen {:.5f}",
        "rejected_error": "rejected {:.5f}",
        "grad_norm": "grad {:.3f}",
        "validation_accuracy": "| validation accuracy {:.3f}",
        "validation_swapped_accuracy": "with another's embedding {:.3f}",
    }
    return " ".join(form.format(record[name]) for name, form in names.items() if name in record)


def _short(record: dict[str, float]) -> str:
    shown = {"loss": "loss", "implicit_accuracy": "acc", "grad_norm": "grad"}
    return " ".join(f"{short} {record[key]:.3f}" for key, short in shown.items() if key in record)


def _flat(config: DpoConfig) -> dict[str, str | int | float | bool]:
    """The configuration as a tracker's table of hyperparameters takes it."""
    values = config.model_dump(mode="json")
    return {
        key: value if isinstance(value, str | int | float | bool) else str(value)
        for key, value in values.items()
    }
