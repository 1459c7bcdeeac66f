"""Who follows a job misses nothing, and hears nothing after its end."""

import asyncio

import pytest

from service.core.messages import JobEvent, end_seq, first_seq, status_event, step_event
from service.infra.events import InProcessEvents

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def follow(events: InProcessEvents, after: int) -> list[int]:
    seen = []
    async with events.subscribe("j", after) as stream:
        async for event in stream:
            seen.append(event.seq)
            if event.terminal:
                break
    return seen


async def test_a_follower_gets_what_was_remembered_and_what_comes() -> None:
    events = InProcessEvents()
    events.publish("j", status_event(1001, "running"))
    events.publish("j", step_event(1, 1, 3))
    following = asyncio.create_task(follow(events, 1001))
    await asyncio.sleep(0)
    events.publish("j", step_event(1, 2, 3))
    events.publish("other", step_event(1, 3, 3))
    events.publish("j", status_event(1998, "succeeded"))
    assert await following == [1002, 1003, 1998]


async def test_what_comes_late_is_dropped() -> None:
    events = InProcessEvents()
    for event in (
        status_event(2001, "running"),
        step_event(1, 7, 9),  # of the attempt before
        status_event(end_seq(2, 0), "canceled"),
        step_event(3, 1, 9),
    ):
        events.publish("j", event)
    assert await follow(events, 0) == [2001, 2998]


async def test_closing_ends_every_stream_now_and_later() -> None:
    events = InProcessEvents()
    following = asyncio.create_task(follow(events, 0))
    await asyncio.sleep(0)
    events.close()
    assert await following == []
    assert await follow(events, 0) == []


async def test_memory_is_bounded() -> None:
    events = InProcessEvents()
    for i in range(600):
        events.publish(f"job-{i}", status_event(1, "queued"))
    assert await events.latest("job-0") is None
    assert await events.latest("job-599") is not None


def test_seq_grows_over_steps_ends_and_attempts() -> None:
    life: list[JobEvent] = [
        status_event(1, "queued"),
        status_event(first_seq(1), "running"),
        step_event(1, 50, 50),
        status_event(1999, "queued"),
        status_event(first_seq(2), "running"),
        step_event(2, 50, 50),
        status_event(end_seq(2, 0), "succeeded"),
    ]
    seqs = [event.seq for event in life]
    assert seqs == sorted(set(seqs))
    assert end_seq(1, 1999) == 2000 < first_seq(2)
    assert end_seq(0, 1) == 998
