"""Rows that come and go keep the latents that they have alone, whatever runs the passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ppd_model.nets.adapter import attention_blocks
from ppd_model.pipeline import Pipeline
from ppd_model.sampling.conditioning import Conditioning
from ppd_model.sampling.devices import SUPPORT, DeviceSupport, padded, support_of
from ppd_model.sampling.rows import Row
from ppd_model.sampling.running_batch import RunningBatch, rescaled
from ppd_model.types import ImageRequest

PLAIN = SUPPORT["cpu"]
PADDED = replace(PLAIN, sizes=(1, 2, 4, 8, 16))
SHAPE = (16, 8, 8)
ROUNDING = {torch.float64: 1e-10, torch.float32: 1e-3}
"""Of latents: see test_a_batch_of_different_requests_equals_each_alone in test_pipeline.py."""


@pytest.fixture
def pipeline(wide_pipeline: Pipeline) -> Pipeline:
    """In float64, where rounding is small beside any mistake."""
    return wide_pipeline


@pytest.fixture(autouse=True)
def no_gradient() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def requests(user_emb_D: np.ndarray) -> list[ImageRequest]:
    """Different in everything a row may have of its own."""
    return [
        ImageRequest("a red boat", 1, user_emb_D=user_emb_D, steps=6),
        ImageRequest("the sea at night", 2, steps=3, guidance_scale=1.0),
        ImageRequest("a tree", 3, user_emb_D=-user_emb_D, strength=0.5, steps=4, guidance_scale=7),
        ImageRequest(
            "a house", 4, negative_prompt="night", steps=6, snr_shift=2.0, guidance_rescale=0.7
        ),
        ImageRequest("a hill", 5, user_emb_D=user_emb_D, steps=2, guidance_scale=1.0),
        ImageRequest(
            "a quiet sea",
            6,
            user_emb_D=user_emb_D,
            steps=5,
            solver="dpm++2m",
            guidance_interval=(0.3, 0.7),
        ),
        ImageRequest("a quiet sea", 6, steps=5, solver="dpm++2m", guidance_interval=(0.3, 0.7)),
        ImageRequest("a boat", 7, user_emb_D=user_emb_D, steps=4, solver="dpm++2m-sde"),
    ]


def row_of(pipeline: Pipeline, request: ImageRequest) -> Row:
    return Conditioning(pipeline).row(request, pipeline.installed)


def alone(pipeline: Pipeline, request: ImageRequest) -> Tensor:
    generator = torch.Generator().manual_seed(request.seed)
    return pipeline.sample_latents([request], [generator])[0]


def run_staggered(
    pipeline: Pipeline, requests: Sequence[ImageRequest], support: DeviceSupport
) -> list[Tensor]:
    """A row joins before every step and each leaves when it has arrived; their last latents."""
    batch = RunningBatch(pipeline, support, SHAPE, 4)
    rows = [row_of(pipeline, request) for request in requests]
    coming = list(rows)
    while coming or batch.rows:
        if coming:
            batch.join(coming.pop(0))
        batch.step()
        for row in [row for row in batch.rows if row.arrived]:
            batch.leave(row)
    return [row.latent_CHW for row in rows if row.latent_CHW is not None]


@pytest.mark.parametrize("support", [PLAIN, PADDED], ids=["plain", "padded"])
@pytest.mark.parametrize("dtype", ROUNDING, ids=["float64", "float32"])
def test_a_row_ends_where_it_does_alone(
    random_pipeline: Callable[[torch.dtype], Pipeline],
    requests: list[ImageRequest],
    support: DeviceSupport,
    dtype: torch.dtype,
) -> None:
    pipeline = random_pipeline(dtype)
    for latent_CHW, request in zip(
        run_staggered(pipeline, requests, support), requests, strict=True
    ):
        assert latent_CHW.dtype == dtype
        expected = alone(pipeline, request)
        torch.testing.assert_close(latent_CHW, expected, rtol=0, atol=ROUNDING[dtype])


def test_the_negative_prompts_rows_can_have_the_user_too(
    pipeline: Pipeline, requests: list[ImageRequest]
) -> None:
    pipeline.personalize_negative = True
    (own,) = run_staggered(pipeline, requests[:1], PLAIN)
    torch.testing.assert_close(own, alone(pipeline, requests[0]), rtol=0, atol=1e-10)
    pipeline.personalize_negative = False
    assert (own - alone(pipeline, requests[0])).abs().max() > 1e-3


def test_a_guided_row_takes_two_rows_of_the_network_and_another_one(
    pipeline: Pipeline, requests: list[ImageRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = passes_of(pipeline, monkeypatch)
    batch = RunningBatch(pipeline, PLAIN, SHAPE, 4)
    for request in requests[:5]:
        batch.join(row_of(pipeline, request))
    batch.step()
    assert passes == [8]  # five pictures, three of them guided, in one pass
    padded_batch = RunningBatch(pipeline, PADDED, SHAPE, 4)
    padded_batch.join(row_of(pipeline, requests[0]))
    padded_batch.join(row_of(pipeline, requests[1]))
    padded_batch.step()
    assert passes[1:] == [4]


def test_guided_noise_is_brought_back_to_the_width_of_the_prompts_own() -> None:
    prompt_RCHW = torch.randn(3, *SHAPE, dtype=torch.float64)
    guided_RCHW = 2 * prompt_RCHW  # twice as wide
    share_R111 = torch.tensor([0.0, 0.7, 1.0], dtype=torch.float64)[:, None, None, None]
    rescaled_RCHW = rescaled(guided_RCHW, prompt_RCHW, share_R111)
    assert torch.equal(rescaled_RCHW[0], guided_RCHW[0])
    torch.testing.assert_close(rescaled_RCHW[1], 1.3 * prompt_RCHW[1])  # .7 * 1 + .3 * 2
    torch.testing.assert_close(rescaled_RCHW[2], prompt_RCHW[2])


def test_times_and_guidance_of_stable_cascades_own_sampler_make_another_picture(
    pipeline: Pipeline, requests: list[ImageRequest]
) -> None:
    plain = replace(requests[3], snr_shift=None, guidance_rescale=0.0)
    made = [
        alone(pipeline, replace(plain, **change))
        for change in ({}, {"snr_shift": 2.0}, {"guidance_rescale": 0.7})
    ]
    for i, one in enumerate(made):
        assert all((one - other).abs().max() > 1e-3 for other in made[:i])


def test_guidance_outside_of_its_interval_costs_no_row_and_keeps_a_place(
    pipeline: Pipeline, requests: list[ImageRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = passes_of(pipeline, monkeypatch)
    batch = RunningBatch(pipeline, replace(PLAIN, max_rows=3), SHAPE, 4)
    row = row_of(pipeline, requests[5])
    batch.join(row)
    assert not batch.has_place(row_of(pipeline, requests[3]))  # who will be guided needs two
    assert batch.has_place(row_of(pipeline, requests[1]))
    while not row.arrived:
        batch.step()
    assert passes == [1, 1, 2, 2, 1]  # t = 1, .8, .6, .4, .2; guided above .3 and up to .7
    batch.leave(row)
    without = alone(pipeline, replace(requests[5], guidance_scale=1.0))
    always = alone(pipeline, replace(requests[5], guidance_interval=None))
    assert passes[5:] == [1] * 5 + [2] * 5
    for other in (without, always):
        assert row.latent_CHW is not None
        assert (row.latent_CHW - other).abs().max() > 1e-3


def test_a_picture_and_its_base_share_the_steps_before_the_adapter_acts(
    pipeline: Pipeline, user_emb_D: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.set_personalize_below(0.5)
    base = ImageRequest("a boat", 1, steps=4, guidance_scale=1.0)
    personal = replace(base, user_emb_D=user_emb_D)
    others = [replace(base, seed=2), replace(base, steps=3), replace(base, prompt="a tree")]
    expected = [alone(pipeline, request) for request in (base, personal, *others)]
    passes = passes_of(pipeline, monkeypatch)
    batch = RunningBatch(pipeline, PLAIN, SHAPE, 4)

    def together(*requests: ImageRequest) -> list[Tensor | None]:
        rows = [row_of(pipeline, request) for request in requests]
        for row in rows:
            batch.join(row)
        while batch.rows:
            batch.step()
            for row in [row for row in batch.rows if row.arrived]:
                batch.leave(row)
        return [row.latent_CHW for row in rows]

    made = together(base, personal)
    assert passes == [1, 1, 2, 2]  # t = 1, .75 in common; .5, .25 by each
    made += together(*others)
    assert passes[4:] == [3, 3, 3, 2]
    # What was common a while ago is not computed again: neither now nor for another strength.
    again = together(replace(personal, strength=0.5), base)
    assert passes[8:] == [2, 2]
    for latent_CHW, wanted in zip([*made, again[1]], [*expected, expected[0]], strict=True):
        torch.testing.assert_close(latent_CHW, wanted, rtol=0, atol=1e-10)
    half = alone(pipeline, replace(personal, strength=0.5))
    torch.testing.assert_close(again[0], half, rtol=0, atol=1e-10)


def test_whoever_leads_the_common_steps_may_leave(
    pipeline: Pipeline, user_emb_D: np.ndarray
) -> None:
    pipeline.set_personalize_below(0.5)
    request = ImageRequest("a boat", 1, user_emb_D=user_emb_D, steps=4)
    batch = RunningBatch(pipeline, PLAIN, SHAPE, 4)
    leader, row = row_of(pipeline, replace(request, user_emb_D=None)), row_of(pipeline, request)
    batch.join(leader)
    batch.join(row)
    batch.step()
    batch.leave(leader)
    while not row.arrived:
        batch.step()
    batch.leave(row)
    assert row.latent_CHW is not None
    torch.testing.assert_close(row.latent_CHW, alone(pipeline, request), rtol=0, atol=1e-10)


def test_keys_and_values_are_made_once_for_a_job_a_user_and_the_negative_prompt(
    pipeline: Pipeline, user_emb_D: np.ndarray
) -> None:
    calls: list[str] = []
    blocks = attention_blocks(pipeline.stage_c.unet)
    blocks[0].kv_mapper.register_forward_hook(lambda *_: calls.append("text"))
    pipeline.stage_c.adapter.to_k[0].register_forward_hook(lambda *_: calls.append("user"))
    conditioning = Conditioning(pipeline)
    batch = RunningBatch(pipeline, PLAIN, SHAPE, 4)
    for seed, prompt in enumerate(["a red boat", "a red boat", "the sea"]):
        request = ImageRequest(prompt, seed, user_emb_D=user_emb_D, steps=3)
        batch.join(conditioning.row(request, pipeline.installed))
    for _ in range(3):
        batch.step()
    # Two prompts and the negative one; one person, whose other adapter is another matter.
    assert sorted(calls) == ["text"] * 3 + ["user"]
    assert (conditioning.texts.hits, conditioning.texts.misses) == (3, 3)
    conditioning.row(request, replace(pipeline.installed, version="another"))
    assert calls.count("user") == 2


def test_rows_of_different_adapters_share_a_pass(
    pipeline: Pipeline, tiny: object, user_emb_D: np.ndarray
) -> None:
    request = ImageRequest("a tree", 3, user_emb_D=user_emb_D, steps=3)
    other = Pipeline.random(pipeline.preset, ["a"], seed=9, dtype=torch.float64).installed
    conditioning = Conditioning(pipeline)
    batch = RunningBatch(pipeline, PLAIN, SHAPE, 4)
    rows = [
        conditioning.row(request, pipeline.installed),
        conditioning.row(request, other),
    ]
    for row in rows:
        batch.join(row)
    for _ in range(3):
        batch.step()
    ends = []
    for row in rows:
        batch.leave(row)
        assert row.latent_CHW is not None
        ends.append(row.latent_CHW)
    torch.testing.assert_close(ends[0], alone(pipeline, request), rtol=0, atol=1e-10)
    pipeline.install(other)
    torch.testing.assert_close(ends[1], alone(pipeline, request), rtol=0, atol=1e-10)
    assert (ends[0] - ends[1]).abs().max() > 1e-3


@pytest.mark.parametrize("number", [0, 5, 7], ids=["ddpm", "dpm++2m", "dpm++2m-sde"])
def test_a_row_that_was_set_aside_goes_on_where_it_was(
    pipeline: Pipeline, requests: list[ImageRequest], number: int
) -> None:
    batch = RunningBatch(pipeline, PLAIN, SHAPE, 4)
    row, company = row_of(pipeline, requests[number]), row_of(pipeline, requests[3])
    batch.join(company)
    batch.join(row)
    batch.step()
    batch.leave(row)
    batch.step()
    batch.join(row)
    while not row.arrived:
        batch.step()
        if company.arrived and company in batch.rows:
            batch.leave(company)
    batch.leave(row)
    assert row.latent_CHW is not None
    torch.testing.assert_close(
        row.latent_CHW, alone(pipeline, requests[number]), rtol=0, atol=1e-10
    )


def test_a_step_that_fails_can_be_made_again(
    pipeline: Pipeline, requests: list[ImageRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = RunningBatch(pipeline, PLAIN, SHAPE, 4)
    row = row_of(pipeline, requests[0])
    batch.join(row)
    batch.step()
    with monkeypatch.context() as patch:
        patch.setattr(batch, "_step_noise", lambda: fail(row.step_noise()))
        with pytest.raises(RuntimeError, match="no memory"):
            batch.step()
    assert row.done == 1
    while not row.arrived:
        batch.step()
    batch.leave(row)
    assert row.latent_CHW is not None
    torch.testing.assert_close(row.latent_CHW, alone(pipeline, requests[0]), rtol=0, atol=1e-10)


def test_a_row_that_cannot_join_leaves_the_batch_as_it_was(
    pipeline: Pipeline, requests: list[ImageRequest]
) -> None:
    batch = RunningBatch(pipeline, PLAIN, SHAPE, 4)
    row, broken = row_of(pipeline, requests[1]), row_of(pipeline, requests[0])
    batch.join(row)
    assert broken.negative is not None
    broken.negative = replace(broken.negative, blocks=broken.negative.blocks[:1])
    with pytest.raises(ValueError, match="zip"):
        batch.join(broken)
    while not row.arrived:
        batch.step()
    batch.leave(row)
    assert row.latent_CHW is not None
    torch.testing.assert_close(row.latent_CHW, alone(pipeline, requests[1]), rtol=0, atol=1e-10)


def test_the_last_guess_of_the_clean_latents_is_near_where_the_row_ends(
    pipeline: Pipeline, requests: list[ImageRequest]
) -> None:
    batch = RunningBatch(pipeline, PLAIN, SHAPE, 4)
    row = row_of(pipeline, requests[0])
    batch.join(row)
    clamp = pipeline.preset.stage_c_x0_clamp
    assert clamp is not None
    while not row.arrived:
        guess = batch.step({row})[row]
        assert guess.abs().max() <= clamp
    batch.leave(row)
    assert row.latent_CHW is not None
    # The last step goes to alpha-bar(0) = 0.9999, without noise.
    torch.testing.assert_close(guess, row.latent_CHW, rtol=0, atol=0.1)


def test_sizes_are_padded_to_the_next_and_an_unknown_device_is_refused() -> None:
    assert [padded(n, (1, 2, 4, 8)) for n in (1, 2, 3, 5, 8)] == [1, 2, 4, 8, 8]
    assert padded(7, ()) == 7
    with pytest.raises(ValueError, match="9 rows, the largest size is 8"):
        padded(9, (1, 2, 4, 8))
    with pytest.raises(ValueError, match="not on meta"):
        support_of(torch.device("meta"))


def passes_of(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the rows of each pass of the network from now on."""
    passes: list[int] = []
    predict = pipeline.stage_c.predict_noise

    def watched(x_BCHW: Tensor, t_B: Tensor, attended: object) -> Tensor:
        passes.append(len(x_BCHW))
        return predict(x_BCHW, t_B, attended)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline.stage_c, "predict_noise", watched)
    return passes


def fail(*_: object, **__: object) -> Callable[..., Tensor]:
    raise RuntimeError("no memory")
