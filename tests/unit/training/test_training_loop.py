"""The pretraining loop: it resumes to the same weights, and refuses what would lose work."""

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.pretrain.training_loop import LoopConfig, load_averaged, run


class Line:
    """Fits y = 3x with noise drawn from the loop's generator."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules: Mapping[str, nn.Module] = {"line": nn.Linear(1, 1)}

    def loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        x = torch.randn(8, 1, generator=generator)
        return (self.modules["line"](x) - 3 * x).square().mean(), {}

    def grid(self, averaged: Mapping[str, Any]) -> np.ndarray:
        return np.zeros((4, 4, 3), dtype=np.uint8)

    def measure(self, averaged: Mapping[str, Any]) -> dict[str, float]:
        return {"slope": averaged["line"].weight.item()}


class Broken(Line):
    def loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        return torch.tensor(float("nan"), requires_grad=True), {}


def config(out: Path, **changes: float) -> LoopConfig:
    values: dict[str, object] = {"out": out, "steps": 40, "batch": 8, "lr": 0.05, "warmup": 1}
    return LoopConfig.model_validate({**values, "ema": 0.5, "decay_share": 0.5, **changes})


@pytest.fixture(autouse=True)
def _keep_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_it_learns_and_its_average_can_be_loaded(tmp_path: Path) -> None:
    trained = run(Line(), config(tmp_path, steps=200), resume=False)
    loaded = nn.Linear(1, 1)
    load_averaged(tmp_path, "line", loaded)
    assert loaded.weight.item() == trained["line"].weight.item()
    assert loaded.weight.item() == pytest.approx(3, abs=0.1)


def test_an_interrupted_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    class Interrupted(Line):
        calls = 0

        def loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            self.calls += 1
            if self.calls > 25:
                raise KeyboardInterrupt
            return super().loss(generator)

    whole = run(Line(), config(tmp_path / "whole"), resume=False)
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(), config(tmp_path / "cut", checkpoint_every_s=0), resume=False)
    resumed = run(Line(), config(tmp_path / "cut"), resume=True)
    assert resumed["line"].weight.item() == whole["line"].weight.item()


def test_a_stopped_run_keeps_the_step_that_it_is_at(tmp_path: Path) -> None:
    class Stopped(Line):
        calls = 0

        def loss(self, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
            self.calls += 1
            if self.calls == 7:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().loss(generator)

    whole = run(Line(), config(tmp_path / "whole"), resume=False)
    with pytest.raises(SystemExit) as ended:
        run(Stopped(), config(tmp_path / "broken"), resume=False)
    assert ended.value.code == 143
    assert torch.load(tmp_path / "broken" / "checkpoint.pt")["step"] == 7
    resumed = run(Line(), config(tmp_path / "broken"), resume=True)
    assert resumed["line"].weight.equal(whole["line"].weight)


def test_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run(Line(), config(tmp_path), resume=False)
    with pytest.raises(FileExistsError, match="--resume"):
        run(Line(), config(tmp_path), resume=False)


def test_nothing_to_resume_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to resume"):
        run(Line(), config(tmp_path), resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="step 0"):
        run(Broken(), config(tmp_path), resume=False)
