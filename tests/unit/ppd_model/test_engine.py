"""The engine: pictures as alone, fair and bounded, and no job's fault is another's.

In float64, where the same picture is the same bytes in any company. What float32 keeps is in
test_same_picture.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ppd_model.engine.admission import StepCurve
from ppd_model.engine.engine import Engine
from ppd_model.engine.jobs import EngineClosed, EngineFull, Handle, JobError, Progress
from ppd_model.files.artifact import save_artifact
from ppd_model.nets.adapter import AttentionInput
from ppd_model.nets.previewer import Previewer
from ppd_model.nets.stage_c import adapter_spec
from ppd_model.pipeline import Pipeline
from ppd_model.sampling.devices import SUPPORT
from ppd_model.sampling.requests import Cancelled
from ppd_model.types import ImageRequest

SHAPE = (16, 8, 8)


class FixedCurve(StepCurve):
    """Learns nothing, so that a test knows who may join."""

    def observe(self, rows: int, seconds: float) -> None:
        pass


FREE = FixedCurve({1: 1.0, 16: 1.0})
"""A device that is never full."""
FULL = FixedCurve({1: 1.0, 16: 16.0})
PATIENCE_S = 60.0


@pytest.fixture
def pipeline(wide_pipeline: Pipeline) -> Pipeline:
    return wide_pipeline


@pytest.fixture
def engine(pipeline: Pipeline) -> Iterator[Engine]:
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        yield engine


class Gate:
    """Stage C that waits before each pass until it is let through; remembers what it saw."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.rows: list[int] = []
        self.faults: list[Exception] = []
        """Raised by the next passes."""
        self._passes = threading.Semaphore(0)
        self.arrived = threading.Semaphore(0)
        self._predict = pipeline.stage_c.predict_noise
        pipeline.stage_c.predict_noise = self  # type: ignore[method-assign, assignment]

    def __call__(self, x_BCHW: Tensor, t_B: Tensor, attended: AttentionInput) -> Tensor:
        self.rows.append(len(x_BCHW))
        self.arrived.release()
        assert self._passes.acquire(timeout=PATIENCE_S)
        if self.faults:
            raise self.faults.pop(0)
        return self._predict(x_BCHW, t_B, attended)

    def wait_for_a_pass(self) -> None:
        """Until the step thread stands before one."""
        assert self.arrived.acquire(timeout=PATIENCE_S)

    def let(self, passes: int) -> None:
        for _ in range(passes):
            self._passes.release()


@pytest.fixture
def gate(pipeline: Pipeline) -> Gate:
    return Gate(pipeline)


def request(seed: int = 1, steps: int = 3, **changes: object) -> ImageRequest:
    plain = ImageRequest("a red boat", seed, steps=steps, guidance_scale=1.0)
    return replace(plain, **changes)  # type: ignore[arg-type]


def code_of(handle: Handle) -> str:
    with pytest.raises(JobError) as caught:
        handle.result(PATIENCE_S)
    return caught.value.code


# The same pictures


def test_jobs_in_company_give_the_pictures_that_the_pipeline_gives(
    pipeline: Pipeline, user_emb_D: np.ndarray
) -> None:
    jobs = [
        [ImageRequest("a red boat", 1, user_emb_D=user_emb_D, steps=4), request(2, steps=2)],
        [ImageRequest("the sea at night", 2, negative_prompt="hill", steps=3, strength=0.5)],
        [request(3, steps=6, user_emb_D=-user_emb_D)],
    ]
    expected = [[pipeline.generate([one])[0] for one in job] for job in jobs]
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        handles = [engine.submit(job, owner=str(i)) for i, job in enumerate(jobs)]
        for handle, alone in zip(handles, expected, strict=True):
            for own, its in zip(handle.result(PATIENCE_S), alone, strict=True):
                assert own.seed == its.seed
                assert np.array_equal(own.image_HWC, its.image_HWC)


def test_t_of_n_is_measured_at_the_start(pipeline: Pipeline) -> None:
    support = replace(SUPPORT["cpu"], measured=(1, 2))
    with Engine(pipeline, support=support) as engine:
        assert engine.wait_until_ready(PATIENCE_S)
        points_s = engine.snapshot()["step_s"]["16x8x8"]
        assert list(points_s) == [1, 2]
        assert points_s[1] > 0
        engine.submit([request(), request(2), request(3)]).result(PATIENCE_S)
        assert engine.snapshot()["step_s"]["16x8x8"] != points_s  # refreshed by real steps


def test_what_a_device_cannot_do_is_found_at_the_start_and_done_without(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    (expected,) = pipeline.generate([request()])
    graphs = replace(SUPPORT["cpu"], forward="compiled-graphs", sizes=(1, 2), measured=(1, 2))
    with Engine(pipeline, support=graphs) as engine:
        (made,) = engine.submit([request()]).result(PATIENCE_S)
        assert list(engine.snapshot()["step_s"]["16x8x8"]) == [1, 2]
    assert np.array_equal(made.image_HWC, expected.image_HWC)
    assert "compiled-graphs do not work here" in caplog.text


def test_a_job_may_ask_for_another_adapter(
    pipeline: Pipeline, user_emb_D: np.ndarray, tmp_path: Path
) -> None:
    other = Pipeline.random(pipeline.preset, ["a"], seed=9).stage_c.adapter
    path = tmp_path / "adapter.safetensors"
    spec = adapter_spec(pipeline.preset, encoder_id="encoder-1")
    save_artifact(path, other.state_dict(), spec)
    one = request(user_emb_D=user_emb_D)
    first, loaded = pipeline.installed, pipeline.adapter_from(path, encoder_id="encoder-1")
    expected = []
    for adapter in (first, loaded):
        pipeline.install(adapter)
        expected.append(pipeline.generate([one])[0].image_HWC)
    pipeline.install(first)
    assert not np.array_equal(*expected)
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        handles = [engine.submit([one], adapter=adapter) for adapter in (None, loaded)]
        for handle, alone in zip(handles, expected, strict=True):
            assert np.array_equal(handle.result(PATIENCE_S)[0].image_HWC, alone)


# Joining, leaving, taking turns


def test_a_job_joins_at_the_next_step_and_leaves_when_its_own_are_done(
    pipeline: Pipeline, gate: Gate
) -> None:
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        long = engine.submit([request(1, steps=5)])
        gate.wait_for_a_pass()
        short = engine.submit([request(2, steps=2)])
        gate.let(5)
        assert short.result(PATIENCE_S)
        assert long.result(PATIENCE_S)
        assert gate.rows == [1, 2, 2, 1, 1]
        assert short.timings is not None
        assert long.timings is not None
        assert (short.timings.steps, short.timings.shared_with) == (2, 1.0)
        assert (long.timings.steps, long.timings.shared_with) == (5, 2 / 5)


def test_a_full_device_makes_one_picture_after_the_other(pipeline: Pipeline, gate: Gate) -> None:
    gate.let(100)
    with Engine(pipeline, curves={SHAPE: FULL}) as engine:
        handles = [engine.submit([request(seed)]) for seed in range(3)]
        wait([handle.future for handle in handles], timeout=PATIENCE_S)
    assert gate.rows == [1] * 9


def test_owners_take_turns(pipeline: Pipeline, gate: Gate) -> None:
    done: list[str] = []
    with Engine(pipeline, curves={SHAPE: FULL}) as engine:
        handles = [engine.submit([request(0, steps=1)], owner="many")]
        gate.wait_for_a_pass()
        for owner, seed in (("many", 1), ("many", 2), ("one", 3), ("one", 4)):
            handle = engine.submit([request(seed, steps=1)], owner=owner)
            name = f"{owner}{seed}"
            handle.future.add_done_callback(lambda _, name=name: done.append(name))
            handles.append(handle)
        gate.let(5)
        wait([handle.future for handle in handles], timeout=PATIENCE_S)
    # The virtual time is 0 when "one" comes, and "many" has had a row of cost 1.
    assert done == ["one3", "many1", "one4", "many2"]


def test_shapes_take_turns_by_step(pipeline: Pipeline, gate: Gate) -> None:
    pipeline.preset = replace(pipeline.preset, allowed_sides_px=(64, 128))
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        one = engine.submit([request(1, steps=3)])
        gate.wait_for_a_pass()
        other = engine.submit([request(2, steps=2, width_px=64, height_px=64)])
        gate.let(5)
        assert one.result(PATIENCE_S)[0].image_HWC.shape == (128, 128, 3)
        assert other.result(PATIENCE_S)[0].image_HWC.shape == (64, 64, 3)
        assert set(engine.snapshot()["step_s"]) == {"16x8x8", "16x4x4"}
    assert gate.rows == [1] * 5


def test_a_guided_picture_is_not_overtaken_for_ever_by_those_that_need_less_room(
    pipeline: Pipeline, gate: Gate
) -> None:
    few = replace(SUPPORT["cpu"], max_rows=2)
    with Engine(pipeline, support=few, curves={SHAPE: FREE}) as engine:
        handles = [engine.submit([request(1, steps=1)]), engine.submit([request(2, steps=3)])]
        gate.wait_for_a_pass()
        handles.append(engine.submit([request(3, steps=2, guidance_scale=4.0)]))
        handles += [engine.submit([request(seed, steps=2)]) for seed in (4, 5)]
        gate.let(20)
        wait([handle.future for handle in handles], timeout=PATIENCE_S)
        guided, later = handles[2].timings, handles[3].timings
        assert guided is not None
        assert later is not None
        assert guided.queue_s < later.queue_s


def test_a_job_of_many_pictures_does_not_need_room_for_all(engine: Engine) -> None:
    made = engine.submit([request(seed, steps=2, guidance_scale=4.0) for seed in range(20)])
    assert [one.seed for one in made.result(PATIENCE_S)] == list(range(20))


# Refusals, cancelling, deadlines


def test_the_queue_is_bounded(pipeline: Pipeline, gate: Gate) -> None:
    with Engine(pipeline, curves={SHAPE: FULL}, queued_rows=2) as engine:
        running = engine.submit([request()])
        gate.wait_for_a_pass()
        waiting = engine.submit([request(2), request(3)])
        with pytest.raises(EngineFull, match="2 pictures wait, 2 may: no room for 1"):
            engine.submit([request(4)])
        assert engine.snapshot()["counts"]["refused"] == 1
        assert engine.snapshot()["queued_rows"] == 2
        gate.let(9)
        assert running.result(PATIENCE_S)
        assert waiting.result(PATIENCE_S)


def test_what_cannot_be_made_is_refused_at_once(engine: Engine) -> None:
    for wrong in ([], [request(steps=0)], [request(), request(width_px=130)]):
        with pytest.raises(ValueError, match=r"no requests|steps must|side of 130"):
            engine.submit(wrong)
    with pytest.raises(ValueError, match="timeout_s must be positive, got 0"):
        engine.submit([request()], timeout_s=0)


def test_cancelling_frees_the_row_at_the_next_step(pipeline: Pipeline, gate: Gate) -> None:
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        stopped = engine.submit([request(1, steps=50)])
        other = engine.submit([request(2, steps=3)])
        gate.wait_for_a_pass()
        stopped.cancel()
        gate.let(10)
        assert other.result(PATIENCE_S)
        with pytest.raises(Cancelled):
            stopped.result(PATIENCE_S)
    assert sum(gate.rows) <= 1 + 3 + 1
    assert gate.rows[-1] == 1


def test_whoever_is_asked_before_each_step_can_cancel_too(pipeline: Pipeline, gate: Gate) -> None:
    stop = threading.Event()
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        stopped = engine.submit([request(1, steps=50)], cancelled=stop.is_set)
        unasked = engine.submit([request(2)], cancelled=raising(KeyError("bug")))
        gate.wait_for_a_pass()
        stop.set()
        gate.let(10)
        with pytest.raises(Cancelled):
            stopped.result(PATIENCE_S)
        assert unasked.result(PATIENCE_S)


def test_a_job_can_be_cancelled_while_it_waits(pipeline: Pipeline, gate: Gate) -> None:
    with Engine(pipeline, curves={SHAPE: FULL}) as engine:
        running = engine.submit([request(1)])
        gate.wait_for_a_pass()
        waiting = engine.submit([request(2)])
        waiting.cancel()
        gate.let(3)
        assert running.result(PATIENCE_S)
        with pytest.raises(Cancelled):
            waiting.result(PATIENCE_S)
    assert gate.rows == [1, 1, 1]


def test_a_late_job_fails_and_frees_its_row(pipeline: Pipeline, gate: Gate) -> None:
    now_s = [100.0]
    with Engine(pipeline, curves={SHAPE: FREE}, clock=lambda: now_s[0]) as engine:
        late = engine.submit([request(1, steps=50)], timeout_s=5)
        waits_forever = engine.submit([request(2)])
        gate.wait_for_a_pass()
        now_s[0] = 105.5
        gate.let(10)
        assert code_of(late) == "deadline_exceeded"
        assert waits_forever.result(PATIENCE_S)
    assert gate.rows[-1] == 1


def test_closing_ends_every_job(pipeline: Pipeline, gate: Gate) -> None:
    engine = Engine(pipeline, curves={SHAPE: FULL})
    handles = [engine.submit([request(seed)]) for seed in range(3)]
    gate.wait_for_a_pass()
    gate.let(1)
    engine.close()
    assert {code_of(handle) for handle in handles} == {"engine_closed"}
    with pytest.raises(EngineClosed):
        engine.submit([request()])


# Progress and what is reported


def test_progress_follows_all_pictures_and_shows_previews(pipeline: Pipeline) -> None:
    seen: list[Progress] = []
    previewer = Previewer(latent_channels=16, hidden=16)
    with Engine(pipeline, previewer, curves={SHAPE: FREE}) as engine:
        handle = engine.submit(
            [request(1, steps=2), request(2, steps=4)], on_progress=seen.append, preview_every=1
        )
        handle.result(PATIENCE_S)
        steps = [(p.done, p.total) for p in seen if not p.previews]
        shown = [picture for p in seen for picture in p.previews.values()]
        assert engine.snapshot()["previews"] >= len(shown) > 0
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert all(picture.shape == (64, 64, 3) for picture in shown)
    assert all(picture.dtype == np.uint8 for picture in shown)


def test_progress_goes_on_while_pictures_are_made_one_after_the_other(pipeline: Pipeline) -> None:
    seen: list[Progress] = []
    with Engine(pipeline, curves={SHAPE: FULL}) as engine:
        handle = engine.submit([request(1), request(2)], on_progress=seen.append)
        handle.result(PATIENCE_S)
    assert [(p.done, p.total) for p in seen] == [(1, 3), (2, 3), (3, 3)]


def test_without_a_wish_or_a_previewer_there_are_no_previews(engine: Engine) -> None:
    seen: list[Progress] = []
    engine.submit([request()], on_progress=seen.append, preview_every=1).result(PATIENCE_S)
    assert not any(progress.previews for progress in seen)


def test_a_listener_that_raises_harms_no_one(engine: Engine) -> None:
    def listener(_: Progress) -> None:
        raise RuntimeError("not listening")

    assert engine.submit([request()], on_progress=listener).result(PATIENCE_S)


def test_waiting_is_counted_from_arrival_to_the_first_step(pipeline: Pipeline, gate: Gate) -> None:
    now_s = [100.0]
    with Engine(pipeline, curves={SHAPE: FULL}, clock=lambda: now_s[0]) as engine:
        first = engine.submit([request(1, steps=1)])
        gate.wait_for_a_pass()
        second = engine.submit([request(2, steps=2)])
        now_s[0] = 107.0
        gate.let(1)
        gate.wait_for_a_pass()
        now_s[0] = 110.0
        gate.let(2)
        (picture,) = second.result(PATIENCE_S)
        first.result(PATIENCE_S)
    assert second.timings is not None
    assert second.timings.queue_s == 7
    assert second.timings.denoise_s == 3
    assert second.timings.decode_s == 0
    assert (picture.denoise_s, picture.decode_s) == (3, 0)


def test_a_snapshot_counts(engine: Engine) -> None:
    engine.submit([request(1), request(2)]).result(PATIENCE_S)
    engine.submit([request(1)]).result(PATIENCE_S)
    snapshot = engine.snapshot()
    assert snapshot["queued_rows"] == snapshot["running_rows"] == 0
    assert snapshot["decoded_pictures"] == 3
    assert snapshot["counts"]["row_steps"] == 9
    assert snapshot["texts"] == {"kept": 1, "hits": 2, "misses": 1}


# Faults


def test_out_of_memory_halves_the_batch_and_everyone_gets_their_picture(
    pipeline: Pipeline, gate: Gate
) -> None:
    expected = [pipeline_alone(pipeline, gate, request(seed)) for seed in range(4)]
    gate.rows.clear()
    gate.faults = [torch.OutOfMemoryError("CUDA out of memory")]
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        handle = engine.submit([request(seed) for seed in range(4)])
        gate.let(100)
        for own, alone in zip(handle.result(PATIENCE_S), expected, strict=True):
            assert np.array_equal(own.image_HWC, alone)
        assert engine.snapshot()["counts"]["out_of_memory"] == 1
    # Four rows fail; two make their three steps, and the other two theirs.
    assert gate.rows == [4] + [2] * 6


def test_out_of_memory_twice_fails_the_jobs_in_the_half_and_the_engine_lives_on(
    pipeline: Pipeline, gate: Gate
) -> None:
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        handles = [engine.submit([request(0)])]
        gate.wait_for_a_pass()
        handles += [engine.submit([request(seed)]) for seed in (1, 2, 3)]
        gate.let(1)
        gate.wait_for_a_pass()
        gate.faults = [RuntimeError("DefaultCPUAllocator: can't allocate memory")] * 2
        gate.let(100)
        codes = [code_or_picture(handle) for handle in handles]
        assert codes == ["out_of_memory", "out_of_memory", "picture", "picture"]
        assert engine.submit([request(9)]).result(PATIENCE_S)
    assert gate.rows[:4] == [1, 4, 2, 2]


def test_a_job_of_nan_fails_alone(pipeline: Pipeline, user_emb_D: np.ndarray) -> None:
    def poisoned(x_BCHW: Tensor, t_B: Tensor, attended: AttentionInput) -> Tensor:
        eps_BCHW = predict(x_BCHW, t_B, attended)
        strengths = [0.0] * len(t_B) if attended.user is None else attended.user.strength_B.tolist()
        for row, strength in enumerate(strengths):
            if strength == 3.0:
                eps_BCHW[row] = float("nan")
        return eps_BCHW

    predict = pipeline.stage_c.predict_noise
    (expected,) = pipeline.generate([request(2, steps=4)])
    pipeline.stage_c.predict_noise = poisoned  # type: ignore[method-assign]
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        poison = engine.submit([request(1, user_emb_D=user_emb_D, strength=3.0)])
        sound = engine.submit([request(2, steps=4)])
        assert code_of(poison) == "numerical_error"
        (own,) = sound.result(PATIENCE_S)
        assert np.array_equal(own.image_HWC, expected.image_HWC)
        assert engine.submit([request(3)]).result(PATIENCE_S)


def test_pixels_of_nan_fail_that_job_only(pipeline: Pipeline) -> None:
    def poisoned(stage_a_BCHW: Tensor) -> Tensor:
        pixels_BCHW = to_pixels(stage_a_BCHW)
        pixels_BCHW[0] = float("nan")
        return pixels_BCHW

    to_pixels = pipeline.decoder.to_pixels
    pipeline.decoder.to_pixels = poisoned  # type: ignore[method-assign]
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        assert code_of(engine.submit([request(1)])) == "numerical_error"
        pipeline.decoder.to_pixels = to_pixels  # type: ignore[method-assign]
        assert engine.submit([request(2)]).result(PATIENCE_S)


def test_what_fails_in_preparation_fails_alone(
    pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    def encode(prompts: list[str]) -> object:
        if "poison" in prompts:
            raise RuntimeError(f"the tokenizer chokes on {prompts}")
        return original(prompts)

    original = pipeline.text_encoder.encode
    pipeline.text_encoder.encode = encode  # type: ignore[method-assign, assignment]
    caplog.set_level("DEBUG")
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        poison = engine.submit([request(1), request(2, prompt="poison")])
        sound = engine.submit([request(3)])
        assert code_of(poison) == "preparation_failed"
        assert sound.result(PATIENCE_S)
        assert "RuntimeError" in caplog.text
        assert "['poison']" not in caplog.text  # a message may quote what a person sent
        pipeline.text_encoder.encode = raising(MemoryError())  # type: ignore[method-assign]
        assert code_of(engine.submit([request(4, prompt="new")])) == "out_of_memory"


def test_a_fault_in_a_step_fails_who_is_in_it_and_no_one_else(
    pipeline: Pipeline, gate: Gate
) -> None:
    gate.faults = [RuntimeError("a bug")]
    with Engine(pipeline, curves={SHAPE: FULL}) as engine:
        running = engine.submit([request(1)])
        gate.wait_for_a_pass()
        waiting = engine.submit([request(2)])
        gate.let(10)
        assert code_of(running) == "engine_fault"
        assert waiting.result(PATIENCE_S)
        assert engine.snapshot()["counts"]["failed_engine_fault"] == 1


def test_a_row_that_breaks_the_step_fails_alone(pipeline: Pipeline, user_emb_D: np.ndarray) -> None:
    def broken(x_BCHW: Tensor, t_B: Tensor, attended: AttentionInput) -> Tensor:
        if attended.user is not None and 3.0 in attended.user.strength_B.tolist():
            raise RuntimeError("poison")
        return predict(x_BCHW, t_B, attended)

    sound = [request(2, steps=4), request(3, steps=4, user_emb_D=user_emb_D, guidance_scale=4.0)]
    expected = [pipeline.generate([one])[0].image_HWC for one in sound]
    predict = pipeline.stage_c.predict_noise
    pipeline.stage_c.predict_noise = broken  # type: ignore[method-assign]
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        poison = request(1, user_emb_D=user_emb_D, strength=3.0)
        handles = [engine.submit([one]) for one in (sound[0], poison, sound[1])]
        assert code_of(handles.pop(1)) == "engine_fault"
        for handle, alone in zip(handles, expected, strict=True):
            assert np.array_equal(handle.result(PATIENCE_S)[0].image_HWC, alone)


def test_a_bug_in_admission_fails_what_waits_and_not_the_engine(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_admit", raising(KeyError("bug")))
            assert code_of(engine.submit([request(1)])) == "engine_fault"
        assert engine.submit([request(2)]).result(PATIENCE_S)


def test_a_bug_of_the_loop_fails_what_runs_and_not_the_engine(
    pipeline: Pipeline, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        running = engine.submit([request(1)])
        gate.wait_for_a_pass()
        with monkeypatch.context() as patch:
            patch.setattr(engine, "_after_step", raising(KeyError("bug")))
            gate.let(10)
            assert code_of(running) == "engine_fault"
        assert engine.submit([request(2)]).result(PATIENCE_S)


def test_a_device_that_is_lost_ends_the_engine_and_blames_no_job(pipeline: Pipeline) -> None:
    def lost(*_: object) -> Tensor:
        raise RuntimeError("CUDA error: an illegal memory access\nCompile with TORCH_USE_CUDA_DSA")

    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        assert engine.submit([request(1)]).result(PATIENCE_S)
        assert engine.broken is None
        pipeline.stage_c.predict_noise = lost  # type: ignore[method-assign]
        with engine._changed:  # all are in before the first step is made
            handles = [engine.submit([request(seed)]) for seed in range(3)]
        assert [code_of(handle) for handle in handles] == ["engine_closed"] * 3
        engine._thread.join(PATIENCE_S)
        expected = "a step of the engine's own: RuntimeError: CUDA error: an illegal memory access"
        assert engine.broken == expected
        with pytest.raises(EngineClosed):
            engine.submit([request(2)])


def test_preparing_on_a_lost_device_ends_the_engine_too(pipeline: Pipeline) -> None:
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        pipeline.text_encoder.encode = raising(RuntimeError("lost"))  # type: ignore[method-assign]
        assert code_of(engine.submit([request(1)])) == "engine_closed"
        engine._thread.join(PATIENCE_S)
        assert engine.broken == "a step of the engine's own: RuntimeError: lost"


def test_a_device_that_is_lost_while_decoding_blames_no_job(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:

        def lost(*_: object, **__: object) -> Tensor:
            pipeline.stage_c.predict_noise = raising(RuntimeError("lost"))  # type: ignore[method-assign]
            raise RuntimeError("lost")

        monkeypatch.setattr(engine._decoding, "_decoder", lost)
        assert code_of(engine.submit([request(1)])) == "engine_closed"
        engine._thread.join(PATIENCE_S)
        assert engine.broken == "a step of the engine's own: RuntimeError: lost"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_picture_in_hand_is_not_forgotten_when_the_decode_thread_ends(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        monkeypatch.setattr(engine._decoding, "_decode", raising(KeyboardInterrupt()))
        assert code_of(engine.submit([request(1)])) == "engine_closed"
        engine._decoding._thread.join(PATIENCE_S)
        assert engine.broken == "the decode thread has ended"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_by_itself_is_a_broken_engine(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        monkeypatch.setattr(engine, "_tick", raising(KeyboardInterrupt()))
        assert code_of(engine.submit([request(1)])) == "engine_closed"
        engine._thread.join(PATIENCE_S)
        assert engine.broken == "the step thread has ended"
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        monkeypatch.setattr(engine._decoding, "_take", raising(KeyboardInterrupt()))
        assert code_of(engine.submit([request(1)])) == "engine_closed"
        engine._decoding._thread.join(PATIENCE_S)
        assert engine.broken == "the decode thread has ended"


def test_an_engine_that_was_closed_is_not_broken(engine: Engine) -> None:
    engine.close()
    assert engine.broken is None


def test_a_fault_in_decoding_is_tried_apart(pipeline: Pipeline) -> None:
    def decode(
        latent_BCHW: Tensor,
        pooled_B1D: Tensor,
        generators: list[torch.Generator],
        before_step: Callable[[], None] | None = None,
    ) -> Tensor:
        if any(generator.initial_seed() == 666 for generator in generators):
            raise RuntimeError("poison")
        return forward(latent_BCHW, pooled_B1D, generators, before_step)

    forward = pipeline.decoder.forward
    pipeline.decoder.forward = decode  # type: ignore[method-assign]
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        handles = [engine.submit([request(seed)]) for seed in (1, 666, 2, 3)]
        codes = [code_or_picture(handle) for handle in handles]
        assert codes == ["picture", "engine_fault", "picture", "picture"]


def test_a_bug_of_the_decode_loop_fails_what_it_holds_and_not_the_engine(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        with monkeypatch.context() as patch:
            patch.setattr(engine._decoding, "_still_wanted", raising(KeyError("bug")))
            assert code_of(engine.submit([request(1)])) == "engine_fault"
        assert engine.submit([request(2)]).result(PATIENCE_S)


def test_a_decoder_out_of_memory_is_tried_in_halves_with_the_same_noise(
    pipeline: Pipeline,
) -> None:
    expected = [pipeline.generate([request(seed)])[0].image_HWC for seed in range(4)]

    def decode(latent_BCHW: Tensor, *rest: object, **named: object) -> Tensor:
        pixels_BCHW = forward(latent_BCHW, *rest, **named)
        if len(latent_BCHW) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return pixels_BCHW

    forward = pipeline.decoder.forward
    pipeline.decoder.forward = decode  # type: ignore[method-assign]
    with Engine(pipeline, curves={SHAPE: FREE}) as engine:
        made = engine.submit([request(seed) for seed in range(4)]).result(PATIENCE_S)
    for own, alone in zip(made, expected, strict=True):
        assert np.array_equal(own.image_HWC, alone)


def pipeline_alone(pipeline: Pipeline, gate: Gate, one: ImageRequest) -> np.ndarray:
    gate.let(one.steps)
    return pipeline.generate([one])[0].image_HWC


def code_or_picture(handle: Handle) -> str:
    try:
        handle.result(PATIENCE_S)
    except JobError as error:
        return error.code
    return "picture"


def raising(error: BaseException) -> Callable[..., None]:
    def call(*_: object, **__: object) -> None:
        raise error

    return call
