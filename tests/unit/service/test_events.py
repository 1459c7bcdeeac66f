"""Who follows a job misses nothing, and hears nothing after its end."""

import asyncio

import pytest

from service.core.messages import (
    JobEvent,
    end_seq,
    first_seq,
    preview_event,
    status_event,
    step_event,
)
from service.infra.memory.events import InProcessEvents

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


def preview(attempt: int = 1, done: int = 1) -> JobEvent:
    return preview_event(attempt, 0, done, 9, "data:image/jpeg;base64,AA==")


async def kinds(events: InProcessEvents) -> list[str]:
    """What a follower hears that is there already, or comes at once."""
    seen = []
    async with events.subscribe("j", 0) as stream:
        events.publish("j", step_event(1, 5, 9))
        events.publish("j", preview(done=5))
        events.publish("j", preview(done=3))  # of a picture that is decoded late
        events.publish("j", status_event(end_seq(1, 0), "succeeded"))
        events.publish("j", preview(done=9))
        async for event in stream:
            seen.append(event.kind)
            if event.terminal:
                break
    return seen


async def test_previews_are_told_at_the_moment_and_remembered_nowhere() -> None:
    events = InProcessEvents()
    events.publish("j", preview())
    assert await events.latest("j") is None, "nothing is known of this job, or not any more"
    events.publish("j", status_event(1001, "running"))
    events.publish("j", preview())
    assert (await kinds(events)) == ["status", "step", "preview", "preview", "status"]
    assert await follow(events, 0) == [1001, 1006, 1998]


async def test_previews_of_an_earlier_attempt_and_of_a_forgotten_job_are_dropped() -> None:
    events = InProcessEvents()
    events.publish("j", status_event(2001, "running"))
    async with events.subscribe("j", 0) as stream:
        events.publish("j", preview(attempt=1))
        events.publish("j", preview(attempt=2))
        heard = [await anext(stream), await anext(stream)]
        events.forget("j")
        events.publish("j", preview(attempt=2))
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert [event.seq for event in heard] == [2001, 2002]


async def test_who_does_not_read_is_told_of_no_preview_and_of_every_step() -> None:
    events = InProcessEvents()
    events.publish("j", status_event(1001, "running"))
    async with events.subscribe("j", 0) as stream:
        for done in range(1, 31):
            events.publish("j", step_event(1, done, 30))
            events.publish("j", preview(done=done))
        events.publish("j", status_event(1998, "succeeded"))
        seen = [event.kind async for event in stream if not event.terminal or events.close()]
    assert seen.count("step") == 30
    assert seen.count("preview") < 8
