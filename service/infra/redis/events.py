"""Progress of jobs between processes: a stream of the last events per job, and a channel each.

A job's stream is `ppd:1:events:<job id>`; the entry's id is the event's seq, so Redis itself keeps
them in order. The channel of the same name says what was added.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self, get_args

from redis.asyncio import Redis

from service.core.messages import (
    MAX_PREVIEW_CHARS,
    PREVIEW_PREFIX,
    SEQ_PER_ATTEMPT,
    JobEvent,
    JobStatus,
)
from service.infra.ending import end
from service.infra.memory.followers import Follower, Followers, has_room
from service.infra.redis.channels import Channels
from service.infra.redis.embedding_cache import SCHEMA
from service.infra.redis.guard import Guard, RedisAway, RedisRefused
from service.infra.redis.outbox import Outbox

_EVENTS_PER_JOB = 256
_REMEMBERED_S = 3600
_WAITING_PREVIEWS = 32
_JOIN_S = 1.0
_AGAIN_S = 0.5
_FORGET = b"forget"
_STATUSES = get_args(JobStatus)

# What comes late (of an old attempt, after the end, after the job was forgotten) is dropped here.
# A Redis that is full remembers nothing and still passes on.
_PUBLISH = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local found = redis.pcall('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if found.err then
  redis.call('UNLINK', KEYS[1])
elseif found[1] then
  local last = tonumber(string.match(found[1][1], '^%d+'))
  if tonumber(ARGV[1]) <= last or found[1][2][4] == '1' then return 0 end
end
redis.pcall('XADD', KEYS[1], 'MAXLEN', ARGV[4], ARGV[1] .. '-1', 'event', ARGV[2], 'end', ARGV[3])
redis.pcall('EXPIRE', KEYS[1], ARGV[5])
redis.call('PUBLISH', KEYS[1], ARGV[2])
return 1
"""
# A preview is passed on and kept nowhere.
_SHOW = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local found = redis.pcall('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if not found.err and found[1] then
  local last = tonumber(string.match(found[1][1], '^%d+'))
  local block = tonumber(ARGV[3])
  if found[1][2][4] == '1' then return 0 end
  if math.floor((last - 1) / block) ~= math.floor((tonumber(ARGV[1]) - 1) / block) then return 0 end
end
redis.call('PUBLISH', KEYS[1], ARGV[2])
return 1
"""
_FORGET_JOB = """
redis.call('UNLINK', KEYS[1])
redis.pcall('SET', KEYS[2], '1', 'EX', ARGV[2])
redis.call('PUBLISH', KEYS[1], ARGV[1])
"""


class RedisEvents:
    """ProgressEvents of all processes on one Redis. Sends and listens inside `async with`."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._guard = Guard("progress events")
        self._outbox = Outbox(client, "progress events, sending")
        self._previews = Outbox(client, "previews, sending", _WAITING_PREVIEWS)
        self._channels = Channels(
            client, "progress events, listening", [f"{SCHEMA}:events"], self._heard, self._joined
        )
        self._followers: Followers[HeldFollower] = Followers()
        self._in_force: dict[str, asyncio.Event] = {}
        self._missed: set[str] = set()
        self._catching_up: set[asyncio.Task[None]] = set()
        self._tasks = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._tasks.enter_async_context(self._channels)
        await self._tasks.enter_async_context(self._outbox)
        await self._tasks.enter_async_context(self._previews)
        return self

    async def __aexit__(self, *_: Any) -> None:
        """End every subscription, send what still waits, for a second at most."""
        self.close()
        await self._tasks.aclose()
        await end(*self._catching_up)

    def publish(self, job_id: str, event: JobEvent) -> None:
        """Tell all who follow this job, in any process. Does not wait, and raises nothing."""
        names = (_stream(job_id), _tombstone(job_id))
        if not event.remembered:
            shown = (event.seq, _to_json(event), SEQ_PER_ATTEMPT)
            self._previews.put("EVAL", _SHOW, 2, *names, *shown)
            return
        end = "1" if event.terminal else "0"
        limits = (_EVENTS_PER_JOB, _REMEMBERED_S)
        self._outbox.put("EVAL", _PUBLISH, 2, *names, event.seq, _to_json(event), end, *limits)

    async def latest(self, job_id: str) -> JobEvent | None:
        try:
            events = await self._fetch(job_id, newest_only=True)
        except RedisAway:
            return None
        return events[-1] if events else None

    def forget(self, job_id: str) -> None:
        """Drop what is remembered of a job, and end the subscriptions to it everywhere."""
        names = (_stream(job_id), _tombstone(job_id))
        self._outbox.put("EVAL", _FORGET_JOB, 2, *names, _FORGET, _REMEMBERED_S)
        self._followers.tell(job_id, None)

    @contextlib.asynccontextmanager
    async def subscribe(self, job_id: str, after_seq: int) -> AsyncIterator[Follower]:
        follower = HeldFollower(job_id, after_seq)
        self._followers.add(follower)
        try:
            if not self._followers.closed:
                with follower.held() as earlier:
                    earlier += await self._remembered(job_id)
            yield follower
        finally:
            if self._followers.remove(follower):
                self._missed.discard(job_id)
                if self._in_force.pop(job_id, None) is not None:
                    await self._channels.leave(_stream(job_id))

    def close(self) -> None:
        """End every subscription of this process, now and from now on."""
        self._followers.close()

    async def _remembered(self, job_id: str) -> list[JobEvent]:
        """What is remembered, once nothing can be missed any more.

        While Redis is away this gives nothing; what is missed comes when the channel is back.
        """
        in_force = self._in_force.get(job_id)
        if in_force is None:
            in_force = self._in_force[job_id] = asyncio.Event()
            await self._channels.join(_stream(job_id))
        if self._channels.connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_JOIN_S):
                    await in_force.wait()
        if not in_force.is_set():
            self._missed.add(job_id)
        try:
            return await self._fetch(job_id)
        except RedisRefused:
            return []
        except RedisAway:
            self._begin_to_catch_up(job_id)
            return []

    async def _fetch(self, job_id: str, *, newest_only: bool = False) -> list[JobEvent]:
        """What Redis still knows of a job, oldest first; raises RedisAway."""
        name, count = _stream(job_id), 1 if newest_only else _EVENTS_PER_JOB
        entries = await self._guard.ask(lambda: self._client.xrevrange(name, count=count))
        events = [_from_json((fields or {}).get(b"event", b"")) for _, fields in entries or ()]
        return [event for event in reversed(events) if event is not None]

    def _heard(self, channel: str, data: bytes) -> None:
        event = None if data == _FORGET else _from_json(data)
        if event is not None or data == _FORGET:  # else it is not of this program
            self._followers.tell(_job_of(channel), event)

    def _joined(self, channel: str) -> None:
        """The subscription is in force, for the first time or after a loss of the connection."""
        job_id = _job_of(channel)
        in_force = self._in_force.get(job_id)
        if in_force is None:
            return
        if in_force.is_set() or job_id in self._missed:
            self._missed.discard(job_id)
            self._begin_to_catch_up(job_id)
        in_force.set()

    def _begin_to_catch_up(self, job_id: str) -> None:
        task = asyncio.create_task(self._catch_up(job_id))
        self._catching_up.add(task)
        task.add_done_callback(self._catching_up.discard)

    async def _catch_up(self, job_id: str) -> None:
        """Tell followers what was published while nobody listened, before what came since."""
        while followers := list(self._followers.of(job_id)):
            with contextlib.ExitStack() as holds, contextlib.suppress(RedisAway):
                earlier = [holds.enter_context(follower.held()) for follower in followers]
                with contextlib.suppress(RedisRefused):
                    events = await self._fetch(job_id)
                    for events_of_one in earlier:
                        events_of_one += events
                return
            await asyncio.sleep(_AGAIN_S)


class HeldFollower(Follower):
    """A follower that can be held, so that something earlier comes before what comes meanwhile."""

    def __init__(self, job_id: str, after_seq: int) -> None:
        super().__init__(job_id, after_seq)
        self._held: list[JobEvent | None] = []
        self._holds = 0

    def take(self, event: JobEvent | None) -> None:
        if not self._holds:
            super().take(event)
        elif (event is None or event.remembered) and has_room(len(self._held), event):
            self._held.append(event)

    @contextlib.contextmanager
    def held(self) -> Iterator[list[JobEvent]]:
        """Keep what comes until the end of the block; what is put into the list comes before it."""
        earlier: list[JobEvent] = []
        self._holds += 1
        try:
            yield earlier
        finally:
            self._holds -= 1
            self._held[:0] = earlier
            if not self._holds:
                waiting, self._held = self._held, []
                for event in waiting:
                    self.take(event)


def _stream(job_id: str) -> str:
    return f"{SCHEMA}:events:{job_id}"


def _tombstone(job_id: str) -> str:
    return f"{SCHEMA}:events-forgotten:{job_id}"


def _job_of(channel: str) -> str:
    return channel.rsplit(":", 1)[-1]


def _to_json(event: JobEvent) -> str:
    return json.dumps({"seq": event.seq, "kind": event.kind, "data": dict(event.data)})


def _from_json(text: bytes | str) -> JobEvent | None:
    """The event; None for what this program has not written."""
    try:
        read = json.loads(text)
        seq, kind, data = read["seq"], read["kind"], read["data"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if type(seq) is not int or not isinstance(data, dict):
        return None
    if kind == "status" and data.get("status") in _STATUSES:
        return JobEvent(seq, "status", data)
    if kind == "step" and type(data.get("step")) is type(data.get("steps")) is int:
        return JobEvent(seq, "step", data)
    if kind == "preview" and _is_preview(data):
        return JobEvent(seq, "preview", data)
    return None


def _is_preview(data: dict[str, Any]) -> bool:
    image = data.get("image")
    return (
        all(type(data.get(name)) is int for name in ("index", "step", "steps"))
        and isinstance(image, str)
        and image.startswith(PREVIEW_PREFIX)
        and len(image) <= MAX_PREVIEW_CHARS
    )
