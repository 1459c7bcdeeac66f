"""Sample grids of mini: what is drawn where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ppd_model.nets.stage_c import load_stage_c
from ppd_model.pipeline import MINI_WEIGHTS_DIR, Pipeline
from ppd_model.types import ImageRequest
from tests.tiny_training import MINI, tiny_config, tiny_parts, write_world
from training.dpo.sample_grid import GAP_PX, HEADER_PX, SampleGrid
from training.train_dpo import train

PROMPTS = ("a boat by the sea", "a house in a town")
SIDE_PX = MINI.default_side_px


@pytest.fixture(autouse=True)
def _tiny_pairs() -> Iterator[None]:
    with tiny_parts(MINI):
        yield


def cell(grid_HWC: NDArray[np.uint8], row: int, column: int) -> NDArray[np.uint8]:
    top, left = HEADER_PX + row * (SIDE_PX + GAP_PX), column * (SIDE_PX + GAP_PX)
    return grid_HWC[top : top + SIDE_PX, left : left + SIDE_PX]


def test_a_grid_shows_the_base_and_each_strength_and_reaches_the_tracker(tmp_path: Path) -> None:
    write_world(tmp_path, MINI)
    run = tiny_config(
        tmp_path,
        tmp_path / "run",
        stage_c=MINI_WEIGHTS_DIR / "stage_c.safetensors",
        steps=2,
        batch=2,
        lr=0.05,
        decoder=MINI_WEIGHTS_DIR,
        sample_prompts=PROMPTS,
        sample_strengths=(0.0, 1.0),
        sample_steps=2,
        sample_seed=5,
        trackers=("tensorboard",),
    )
    train(run)
    (path,) = (run.output_dir / "samples").iterdir()
    assert path.name == "step-000002.png"
    grid_HWC = np.asarray(Image.open(path))
    assert grid_HWC.shape[:2] == (HEADER_PX + 2 * SIDE_PX + GAP_PX, 3 * SIDE_PX + 2 * GAP_PX)

    base = Pipeline.load("mini", with_adapter=False)
    requests = [ImageRequest(prompt, seed=5 + row, steps=2) for row, prompt in enumerate(PROMPTS)]
    for row, made in enumerate(base.generate(requests)):
        served = made.image_HWC.astype(int)
        # the training's base computes some sums in another order: at most a rounding apart
        for column in (0, 1):
            assert np.abs(cell(grid_HWC, row, column) - served).max() <= 1
        assert np.abs(cell(grid_HWC, row, 2) - served).mean() > 1

    logged = EventAccumulator(str(run.output_dir / "train_dpo"))
    logged.Reload()
    assert [event.step for event in logged.Images("samples")] == [2]
    assert [event.step for event in logged.Scalars("margin")] == [1, 2]


def test_the_network_that_trains_stays_as_it_is(tmp_path: Path) -> None:
    stage_c = load_stage_c(MINI, MINI_WEIGHTS_DIR / "stage_c.safetensors").train()
    before = [(type(module), module.training) for module in stage_c.modules()]
    config = tiny_config(
        tmp_path, tmp_path, decoder=MINI_WEIGHTS_DIR, sample_prompts=PROMPTS[:1], sample_steps=1
    )
    grid = SampleGrid.load(config, stage_c, torch.ones(1, MINI.user_emb_dim))
    assert grid is not None
    first_HWC = grid.draw()
    assert [(type(module), module.training) for module in stage_c.modules()] == before
    with torch.no_grad():
        for weight in stage_c.adapter.to_v.parameters():
            weight.fill_(0.1)
    assert (grid.draw() != first_HWC).any(), "the grid shows the weights as they are now"
