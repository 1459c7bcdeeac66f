"""Jobs that are under way at once share the model's steps, and each is as if it were alone."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import numpy as np
import pytest
import torch
from torch import Tensor

from ppd_model.engine.admission import Admission
from ppd_model.nets.adapter import AttentionInput
from ppd_model.pipeline import Pipeline
from ppd_model.types import Generated, ImageRequest
from service.core.errors import JobCanceled, JobFailure, ModelLost
from service.core.placement import CPU
from service.core.ports import Preview
from service.worker.model_runtime import PpdRuntime

PATIENCE_S = 60.0
POISON = 3.0
"""The strength of a job that goes wrong."""


@pytest.fixture(scope="module")
def runtime() -> Iterator[PpdRuntime]:
    """The shipped `mini` without its encoder."""
    before = torch.get_num_threads()
    loaded = PpdRuntime(
        "mini",
        None,
        encoder_place=None,
        prompt_variant="paper",
        decoding="greedy",
        threads=2,
        preview_every=3,
    )
    loaded.load()
    yield loaded
    loaded.close()
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def a_device_that_is_never_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine's step times say about it is not what is tested."""
    monkeypatch.setattr(Admission, "admits", lambda *_: True)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def spec(seed: int, **given: object) -> ImageRequest:
    plain = ImageRequest("a red boat", seed, np.ones(128, np.float32), 1.0, "", 8, 4.0, 128, 128)
    return replace(plain, **given)  # type: ignore[arg-type]


class Job:
    """A job in a thread of its own; `begun` is set at its first step."""

    def __init__(self, runtime: PpdRuntime, threads: ThreadPoolExecutor, *specs: ImageRequest):
        self.steps: list[tuple[int, int]] = []
        self.previews: list[Preview] = []
        self.begun = threading.Event()
        self.stop = threading.Event()
        self._made: Future[list[Generated]] = threads.submit(
            runtime.generate, specs, self._on_step, self.stop.is_set, self.previews.append
        )

    def _on_step(self, done: int, total: int) -> None:
        self.steps.append((done, total))
        self.begun.set()

    def pictures(self) -> list[Generated]:
        return self._made.result(PATIENCE_S)


def alone(runtime: PpdRuntime, *specs: ImageRequest) -> list[Generated]:
    made = runtime.generate(specs, lambda *_: None, lambda: False, lambda _: None)
    assert {picture.shared_with for picture in made} == {0.0}
    return made


def expect_alike(made: list[Generated], expected: list[Generated]) -> None:
    """At most one grey level apart, which is what is promised (docs/service.md)."""
    for one, other in zip(made, expected, strict=True):
        apart = np.abs(one.image_HWC.astype(int) - other.image_HWC.astype(int))
        assert apart.max() <= 1


def test_jobs_that_begin_at_different_times_share_steps_and_give_the_pictures_they_give_alone(
    runtime: PpdRuntime, threads: ThreadPoolExecutor
) -> None:
    late = [
        spec(5, prompt="a tree at night", user_emb_D=None, steps=3, guidance_scale=1.0),
        spec(6, prompt="a tree at night", user_emb_D=None, steps=3, guidance_scale=1.0),
    ]
    other = spec(7, user_emb_D=-np.ones(128, np.float32), strength=0.5, steps=4, guidance_scale=7)
    expected = [alone(runtime, spec(1, steps=40)), alone(runtime, *late), alone(runtime, other)]

    first = Job(runtime, threads, spec(1, steps=40))
    assert first.begun.wait(PATIENCE_S)
    jobs = [first, Job(runtime, threads, *late), Job(runtime, threads, other)]
    made = [job.pictures() for job in jobs]

    for pictures, apart in zip(made, expected, strict=True):
        expect_alike(pictures, apart)
    assert all(picture.shared_with > 0 for pictures in made for picture in pictures)
    assert first.steps == [(step, 40) for step in range(1, 41)]
    assert jobs[1].steps == [(1, 3), (2, 3), (3, 3)]
    assert jobs[2].steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(p.denoise_s > 0 < p.decode_s and p.queue_s >= 0 for p in made[1])


def test_a_canceled_job_leaves_the_batch_and_the_others_go_on(
    runtime: PpdRuntime, threads: ThreadPoolExecutor
) -> None:
    expected = alone(runtime, spec(2))
    stopped = Job(runtime, threads, spec(1, steps=1000))
    assert stopped.begun.wait(PATIENCE_S)
    other = Job(runtime, threads, spec(2))
    assert other.begun.wait(PATIENCE_S)
    stopped.stop.set()
    with pytest.raises(JobCanceled):
        stopped.pictures()
    assert len(stopped.steps) < 1000
    expect_alike(other.pictures(), expected)


def test_what_goes_wrong_with_a_job_fails_it_alone(
    runtime: PpdRuntime, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = alone(runtime, spec(2, steps=20))
    for fault, code, detail in (
        (_of_nan, "numerical_error", "not finite"),
        (_raising(RuntimeError("broken")), "model_error", "failed on this job"),
        (_raising(torch.OutOfMemoryError("no room")), "out_of_memory", "ran out of memory"),
    ):
        sound = Job(runtime, threads, spec(2, steps=20))
        assert sound.begun.wait(PATIENCE_S)
        with monkeypatch.context() as patch:
            _poison(patch, runtime, fault)
            with pytest.raises(JobFailure, match=code) as failed:
                Job(runtime, threads, spec(1, strength=POISON)).pictures()
            assert detail in failed.value.detail
            expect_alike(sound.pictures(), expected)
    expect_alike(alone(runtime, spec(2, steps=20)), expected)


def test_what_is_being_made_is_shown_every_few_steps_and_each_step_is_told_once(
    runtime: PpdRuntime, threads: ThreadPoolExecutor
) -> None:
    job = Job(runtime, threads, spec(1, steps=40), spec(2, steps=40))
    made = job.pictures()
    assert len(job.steps) == len(set(job.steps)) == 40
    assert {preview.index for preview in job.previews} == {0, 1}
    assert all((preview.total, preview.done < 40) == (40, True) for preview in job.previews)
    last = max((p for p in job.previews if p.index == 0), key=lambda p: p.done)
    assert (last.image_HWC.shape, last.image_HWC.dtype) == ((64, 64, 3), np.uint8)
    halved = made[0].image_HWC.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(halved - last.image_HWC).mean() < 25, "of 255: it is the same picture"


def test_published_weights_without_a_previewer_make_no_previews_and_say_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for every in (0, 5):
        runtime = PpdRuntime(
            "stable-cascade",
            tmp_path,
            encoder_place=None,
            prompt_variant="paper",
            decoding="greedy",
            threads=1,
            preview_every=every,
        )
        assert runtime._load_previewer() is None
    assert caplog.text.count("there are no previews") == 1


def test_the_state_of_the_batch_counts_what_was_made_and_what_failed(
    runtime: PpdRuntime, threads: ThreadPoolExecutor
) -> None:
    before = runtime.state()
    assert before is not None
    alone(runtime, spec(1, steps=4), spec(2, steps=4))
    stopped = Job(runtime, threads, spec(1, steps=1000))
    assert stopped.begun.wait(PATIENCE_S)
    for _ in range(1000):  # between two steps it may have no rows in the network
        during = runtime.state()
        assert during is not None
        if (during["running_rows"], during["network_rows"]) == (1, 2):
            break
        time.sleep(0.01)
    else:
        raise AssertionError(during)
    stopped.stop.set()
    with pytest.raises(JobCanceled):
        stopped.pictures()
    after = runtime.state()
    assert after is not None
    assert after["decoded_pictures"] == before["decoded_pictures"] + 2
    assert after["counts"]["jobs"] == before["counts"].get("jobs", 0) + 1
    assert after["counts"]["failed_cancelled"] == before["counts"].get("failed_cancelled", 0) + 1
    assert after["counts"]["row_steps"] >= before["counts"].get("row_steps", 0) + 8
    assert (
        before["counts"].get("passes", 0) < after["counts"]["passes"] < after["counts"]["row_steps"]
    )
    assert after["step_s"]["16x8x8"][2] > 0
    assert after["texts"]["hits"] > before["texts"]["hits"]


def test_a_model_that_rests_in_main_memory_makes_one_job_after_the_other() -> None:
    runtime = PpdRuntime(
        "mini",
        None,
        generator_place=replace(CPU, offload=True),
        encoder_place=None,
        prompt_variant="paper",
        decoding="greedy",
        threads=1,
    )
    assert runtime.jobs_at_once == 1
    assert runtime.state() is None
    before = torch.get_num_threads()
    runtime.load()
    assert len(alone(runtime, spec(1, steps=1))) == 1
    pipeline = runtime._pipeline
    assert pipeline is not None
    pipeline.stage_c.predict_noise = _refused  # type: ignore[method-assign]
    with pytest.raises(JobFailure, match="out_of_memory"):
        alone(runtime, spec(1, steps=1))
    torch.set_num_threads(before)


@pytest.mark.parametrize("offload", [False, True])
def test_a_job_past_its_deadline_fails_and_says_so(
    runtime: PpdRuntime, monkeypatch: pytest.MonkeyPatch, offload: bool
) -> None:
    monkeypatch.setattr(runtime, "_timeout_s", 0.001)
    if offload:
        monkeypatch.setattr(runtime, "_engine", None)
    with pytest.raises(JobFailure, match="deadline_exceeded") as late:
        alone(runtime, spec(1, steps=50))
    assert "time that a job may run" in late.value.detail
    monkeypatch.undo()
    assert len(alone(runtime, spec(1, steps=1))) == 1


def test_an_engine_that_hangs_is_given_up_and_blames_no_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = loaded_alone()
    engine, hangs = runtime._engine, threading.Event()
    pipeline = runtime._pipeline
    assert engine is not None
    assert pipeline is not None
    predict = pipeline.stage_c.predict_noise

    def hanging(*given: object) -> Tensor:
        assert hangs.wait(PATIENCE_S)
        return predict(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline.stage_c, "predict_noise", hanging)
    monkeypatch.setattr(runtime, "_timeout_s", 0.01)
    monkeypatch.setattr("service.worker.model_runtime._GIVEN_UP_AFTER_S", 0.01)
    with pytest.raises(ModelLost):
        alone(runtime, spec(1))
    assert runtime.broken() == "the engine does not answer"
    assert runtime.state() is not None
    assert runtime.broken() is not None
    runtime.close()  # does not wait for it
    hangs.set()
    engine.close()


def test_an_encoder_without_room_says_so_too() -> None:
    runtime = PpdRuntime(
        "mini", None, generator_place=None, prompt_variant="paper", decoding="greedy", threads=1
    )
    runtime._encoder = SimpleNamespace(encode=_refused)  # type: ignore[assignment]
    with pytest.raises(JobFailure, match="out_of_memory"):
        runtime.encode([], 1, None)


def _refused(*_: object, **__: object) -> NoReturn:
    raise torch.OutOfMemoryError("no room")


def loaded_alone() -> PpdRuntime:
    """A runtime of one test's own, which may break it."""
    runtime = PpdRuntime(
        "mini", None, encoder_place=None, prompt_variant="paper", decoding="greedy", threads=2
    )
    before = torch.get_num_threads()
    runtime.load()
    torch.set_num_threads(before)
    return runtime


def test_a_runtime_whose_device_is_lost_says_so_and_blames_no_job() -> None:
    runtime = loaded_alone()
    assert runtime.broken() is None
    pipeline = runtime._pipeline
    assert pipeline is not None
    pipeline.stage_c.predict_noise = _raise_lost  # type: ignore[method-assign]
    for _ in range(2):  # while it breaks, and after
        with pytest.raises(ModelLost):
            alone(runtime, spec(1))
    assert "RuntimeError: device lost" in str(runtime.broken())
    assert runtime.state() is not None
    assert runtime.broken() is not None
    runtime.close()
    assert runtime.broken() is None


def _raise_lost(*_: object) -> NoReturn:
    raise RuntimeError("device lost")


Predict = Callable[[Tensor, Tensor, AttentionInput], Tensor]


def _poison(
    patch: pytest.MonkeyPatch, runtime: PpdRuntime, fault: Callable[[Tensor, list[int]], Tensor]
) -> None:
    """Let a pass go wrong that a row of that strength is in."""
    pipeline = runtime._pipeline
    assert isinstance(pipeline, Pipeline)
    predict = pipeline.stage_c.predict_noise

    def poisoned(x_BCHW: Tensor, t_B: Tensor, attended: AttentionInput) -> Tensor:
        strengths = [] if attended.user is None else attended.user.strength_B.tolist()
        rows = [row for row, strength in enumerate(strengths) if strength == POISON]
        eps_BCHW = predict(x_BCHW, t_B, attended)
        return fault(eps_BCHW, rows) if rows else eps_BCHW

    patch.setattr(pipeline.stage_c, "predict_noise", poisoned)


def _of_nan(eps_BCHW: Tensor, rows: list[int]) -> Tensor:
    eps_BCHW[rows] = float("nan")
    return eps_BCHW


def _raising(error: Exception) -> Callable[[Tensor, list[int]], Tensor]:
    def fault(eps_BCHW: Tensor, rows: list[int]) -> Tensor:
        raise error

    return fault
