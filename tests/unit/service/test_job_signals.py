"""Cancellations on their way to the worker."""

from service.infra.memory import job_signals
from service.infra.memory.job_signals import JobSignals


def test_a_cancellation_is_seen_until_the_job_has_ended() -> None:
    signals = JobSignals()
    signals.cancel("a")
    signals.cancel("a")
    assert signals.cancelled("a")
    signals.forget("a")
    signals.forget("a")
    assert not signals.cancelled("a")


def test_jobs_that_never_began_do_not_fill_the_memory() -> None:
    signals = JobSignals()
    for number in range(job_signals._REMEMBERED + 10):
        signals.cancel(str(number))
    assert len(signals._cancelled) == job_signals._REMEMBERED
    assert not signals.cancelled("0")
    assert signals.cancelled(str(job_signals._REMEMBERED + 9))
