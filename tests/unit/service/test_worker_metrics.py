"""The worker's own `/metrics`, and a GPU's memory as torch counts it."""

import sys
import urllib.request
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest

from service.infra.metrics import Metrics
from service.worker.engine_metrics import EngineMetrics
from service.worker.gpu_memory import GpuMemory
from service.worker.metrics_server import serve_metrics
from tests.fake_runtime import FakeRuntime, engine_state


def test_a_worker_answers_scrapes_until_it_ends() -> None:
    metrics = Metrics()
    metrics.job_ended("encode", "succeeded", 1.5)
    with (
        serve_metrics(metrics, "127.0.0.1", 0) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer,
    ):
        text = answer.read().decode()
    assert 'ppd_job_seconds_count{code="",kind="encode",outcome="succeeded"} 1.0' in text
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20)


def test_two_processes_worth_of_metrics_do_not_meet() -> None:
    first, second = Metrics(), Metrics()
    first.cache_lookup(found=True)
    assert b'lookups_total{outcome="hit"} 1.0' in generate_latest(first.registry)
    assert b"lookups_total{" not in generate_latest(second.registry)


@pytest.mark.parametrize(("initialized", "seen"), [(True, True), (False, False)])
def test_a_gpu_is_read_only_where_torch_already_uses_it(
    monkeypatch: pytest.MonkeyPatch, initialized: bool, seen: bool
) -> None:
    cuda = SimpleNamespace(
        is_initialized=lambda: initialized,
        device_count=lambda: 1,
        memory_allocated=lambda index: 5,
        memory_reserved=lambda index: 6,
        max_memory_allocated=lambda index: 7,
        get_device_properties=lambda index: SimpleNamespace(total_memory=8),
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    metrics = Metrics()
    metrics.also(GpuMemory())
    text = generate_latest(metrics.registry).decode()
    assert ('ppd_gpu_memory_bytes{device="cuda:0",what="total"} 8.0' in text) is seen


def test_the_running_batch_is_told_of_once_there_is_one() -> None:
    runtime = FakeRuntime()
    metrics = Metrics()
    metrics.also(EngineMetrics(runtime))
    assert b"ppd_engine" not in generate_latest(metrics.registry)
    numbers = {"queued_rows": 1, "running_rows": 2, "network_rows": 4, "decoding_rows": 3}
    runtime.engine_state = engine_state(
        passes=10, row_steps=25, failed_out_of_memory=7, decoded_pictures=5, **numbers
    )
    steps_s = {"16x8x8": {1: 0.5, 2: 0.75}} | {f"16x8x{n}": {1: 1.0} for n in range(9, 40)}
    runtime.engine_state |= {"step_s": steps_s, "texts": {"kept": 2, "hits": 8, "misses": 9}}
    lines = generate_latest(metrics.registry).decode().splitlines()
    for line in (
        'ppd_engine_rows{state="queued"} 1.0',
        'ppd_engine_rows{state="running"} 2.0',
        'ppd_engine_rows{state="decoding"} 3.0',
        "ppd_engine_network_rows 4.0",
        "ppd_engine_passes_total 10.0",
        "ppd_engine_row_steps_total 25.0",
        "ppd_engine_decoded_pictures_total 5.0",
        'ppd_engine_step_seconds{rows="2",shape="16x8x8"} 0.75',
        'ppd_engine_faults_total{code="out_of_memory"} 7.0',
        'ppd_engine_cache_lookups_total{cache="text",outcome="hit"} 8.0',
        'ppd_engine_cache_entries{cache="text"} 2.0',
    ):
        assert line in lines
    shapes = {line.split('"')[3] for line in lines if line.startswith("ppd_engine_step_seconds{")}
    assert len(shapes) == 16, "as many as there are sizes of pictures would be too many"
