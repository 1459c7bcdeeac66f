"""What is measured on a GPU, run here at a small size."""

from dataclasses import replace

import pytest
import torch

from benchmarks.dpo_throughput import measure
from benchmarks.models import bench_preset, full_preset, pipeline_of, random_pipeline
from benchmarks.sides import PlainLoop, StockPipeline, requests_of
from benchmarks.step_curve import DEVICES, cost_of_a_row, estimated
from ppd_model.presets import get_preset


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("name", "parameters"), [("stable-cascade-1b", 1.0e9), ("stable-cascade", 3.6e9)]
)
def test_the_full_size_is_the_published_one(name: str, parameters: float) -> None:
    preset = full_preset(name)
    assert preset.stage_c == get_preset(name).stage_c
    flop, weight_bytes = cost_of_a_row(preset)
    assert weight_bytes / 2 == pytest.approx(parameters, rel=0.05)
    # 576 positions pass nearly every weight once: two operations each
    assert flop == pytest.approx(2 * 576 * parameters, rel=0.15)


def test_an_estimate_is_never_less_than_reading_the_weights() -> None:
    report = estimated(full_preset("stable-cascade"), DEVICES["h100"])
    seconds = list(report["step_s"]["16x24x24"].values())
    assert seconds == sorted(seconds)
    assert min(seconds) >= report["bytes_of_weights"] / DEVICES["h100"].bytes_per_s


def test_the_stock_pipeline_makes_what_the_plain_loop_makes_without_a_user() -> None:
    """Same weights, noise and schedule: the two naive sides are one sampler."""
    pipeline = pipeline_of("bench")
    pipeline.preset = replace(pipeline.preset, stage_c_x0_clamp=None)
    (request,) = requests_of(pipeline, [4], 0)
    request = replace(request, user_emb_D=None, prompt="a boat at the sea")
    plain = PlainLoop(pipeline, decode=False)(request)
    stock = StockPipeline(pipeline)(request)
    assert torch.isfinite(stock).all()
    torch.testing.assert_close(stock, plain, rtol=2e-2, atol=2e-2)


def test_a_pipeline_of_random_weights_has_an_adapter_that_matters() -> None:
    preset = replace(bench_preset(), text_encoder=get_preset("mini").text_encoder)
    pipeline = random_pipeline(preset, "cpu")
    (request,) = requests_of(pipeline, [3], 0)
    made = [
        pipeline.sample_latents([replace(request, strength=strength)], [torch.Generator()])
        for strength in (0.0, 1.0)
    ]
    assert not torch.equal(*made)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_is_measured(checkpointing: bool) -> None:
    report = measure("bench", "cpu", pairs=2, checkpointing=checkpointing, rounds=1)
    assert report["pairs_per_s"]["median"] > 0
    assert report["adapter_parameters"] > 0
