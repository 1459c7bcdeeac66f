"""The worker's own `/metrics`, and a GPU's memory as torch counts it."""

import sys
import urllib.request
from types import SimpleNamespace

import pytest
from prometheus_client import generate_latest

from service.infra.metrics import Metrics
from service.worker.gpu_memory import GpuMemory
from service.worker.metrics_server import serve_metrics


def test_a_worker_answers_scrapes_until_it_ends() -> None:
    metrics = Metrics()
    metrics.job_ended("encode", "succeeded", 1.5)
    with (
        serve_metrics(metrics, 0) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer,
    ):
        text = answer.read().decode()
    assert 'ppd_job_seconds_count{code="",kind="encode",outcome="succeeded"} 1.0' in text
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20)


def test_two_processes_worth_of_metrics_do_not_meet() -> None:
    first, second = Metrics(), Metrics()
    first.cache_lookup("hit")
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
