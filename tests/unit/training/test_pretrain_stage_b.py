"""The job of Stage B: at which times it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ppd_model.presets import get_preset
from tests.fake_store import FakeStore
from training.pretrain import stage_b as module
from training.pretrain.stage_b import StageBConfig, StageBJob


@pytest.mark.parametrize(("steps", "visited"), [(1, {1.0}), (4, {1.0, 0.75, 0.5, 0.25})])
def test_it_learns_at_the_times_that_the_sampler_visits(
    monkeypatch: pytest.MonkeyPatch, steps: int, visited: set[float]
) -> None:
    preset = replace(get_preset("mini"), stage_b_steps=steps)
    monkeypatch.setattr(module, "PictureStore", lambda _: FakeStore(per_content=1))
    monkeypatch.setattr(module, "stage_c_latents", lambda _: np.zeros((48, 16, 8, 8)))
    monkeypatch.setattr(module, "stage_a_latents", lambda _: np.zeros((48, 4, 32, 32)))
    monkeypatch.setattr(module, "trained_stage_a", lambda _: None)
    job = StageBJob(StageBConfig(out=Path("x"), run=Path("x"), steps=1, batch=1, lr=1))
    job.preset = preset
    assert set(job._times(200, torch.Generator().manual_seed(0)).tolist()) == visited
