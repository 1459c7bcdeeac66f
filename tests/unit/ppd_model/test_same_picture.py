"""The same request, the same picture: in float64 on any CPU, in float32 in any company."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from benchmarks.same_picture_digests import (
    DIGESTS,
    digests,
    four_pairs,
    picture_digest,
    requests,
    some_embedding,
)
from ppd_model.engine.admission import StepCurve
from ppd_model.engine.engine import Engine
from ppd_model.nets.previewer import find_previewer
from ppd_model.pipeline import ADAPTER_FILE, MINI_WEIGHTS_DIR, Pipeline
from ppd_model.types import Generated, ImageRequest
from ppd_model.user_encoder import UserEncoder

SHAPE = (16, 8, 8)
PATIENCE_S = 60.0


class Free(StepCurve):
    """A device that is never full, whatever is measured: all jobs run together."""

    def observe(self, rows: int, seconds: float) -> None:
        pass


@pytest.fixture(scope="module")
def wide() -> Pipeline:
    return Pipeline.load("mini", dtype="float64")


@pytest.fixture(scope="module")
def encoder() -> UserEncoder:
    return UserEncoder.load("mini", dtype="float64")


def at_once(pipeline: Pipeline, jobs: Sequence[ImageRequest]) -> list[Generated]:
    """Each a job of its own, in company with all others."""
    curves = {SHAPE: Free({1: 1.0, 16: 1.0})}
    with Engine(pipeline, curves=curves, threads=torch.get_num_threads()) as engine:
        handles = [engine.submit([job]) for job in jobs]
        made = [handle.result(PATIENCE_S)[0] for handle in handles]
        shared = [handle.timings.shared_with for handle in handles if handle.timings is not None]
    assert min(shared) > 1
    return made


def test_float64_pictures_and_readings_are_those_of_every_other_machine(
    wide: Pipeline, encoder: UserEncoder
) -> None:
    """Another processor is 1e-11 grey levels away: a value would have to lie so near to a half."""
    assert digests(wide, encoder) == json.loads(DIGESTS.read_text())


def test_float64_pictures_in_company_are_the_same_bytes(
    wide: Pipeline, encoder: UserEncoder
) -> None:
    asked = requests(encoder.encode(four_pairs()).user_emb_D)
    made = dict(zip(asked, map(picture_digest, at_once(wide, list(asked.values()))), strict=True))
    kept = json.loads(DIGESTS.read_text())
    assert made == {name: kept[name] for name in asked}


def test_float32_pictures_in_company_are_within_one_grey_level() -> None:
    """Before rounding they are 0.01 of a level apart: docs/results/same_picture.md."""
    pipeline = Pipeline.load("mini")
    jobs = [
        ImageRequest(
            prompt,
            seed,
            user_emb_D=some_embedding(seed, 128) if seed % 4 else None,
            strength=0.5 + seed % 3 / 2,
            steps=4 + seed,
            guidance_scale=(1.0, 4.0, 7.0)[seed % 3],
        )
        for seed, prompt in enumerate(
            ["a boat at the sea", "a tree at night", "a house in the town", "a fish in the hills"]
            * 2
        )
    ]
    alone = [pipeline.generate([job])[0] for job in jobs]
    for one, its in zip(at_once(pipeline, jobs), alone, strict=True):
        assert np.abs(one.image_HWC.astype(int) - its.image_HWC).max() <= 1


def test_what_is_loaded_in_float64_is_float64_throughout(wide: Pipeline) -> None:
    adapter = wide.adapter_from(MINI_WEIGHTS_DIR / ADAPTER_FILE).adapter
    parts = (wide.stage_c, wide.decoder, wide.text_encoder.model, adapter)
    for part in parts:
        values = [*part.parameters(), *part.buffers()]
        assert {v.dtype for v in values if v.is_floating_point()} == {torch.float64}
    assert wide.latent_dtype == torch.float64
    previewer = find_previewer(wide.preset, MINI_WEIGHTS_DIR)
    with Engine(wide, previewer, curves={SHAPE: Free({1: 1.0})}):
        assert previewer is not None
        assert previewer.blocks[0].weight.dtype == torch.float64


def test_mini_in_no_other_precision() -> None:
    with pytest.raises(ValueError, match="dtype 'bfloat16': mini runs in float32 or float64"):
        Pipeline.load("mini", dtype="bfloat16")
