"""Requests that come at the same moment are queued together, and each for itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from service.infra.sql.jobs.generations import NewGeneration, Subject
from service.infra.sql.jobs.jobs import Jobs
from service.infra.sql.tables import Job, JobSubject, User
from tests.fake_runtime import FakeRuntime
from tests.integration.conftest import Start
from tests.running_service import Service, on_postgres, stop

pytestmark = pytest.mark.anyio

_MANY = 20


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs each transaction queued; each takes a moment, so that others come meanwhile.

    A prompt "poison" is refused by the database: it is about a person who is not there.
    """
    add = Jobs.add_generations
    seen: list[int] = []

    async def slow_add(self: Jobs, new: Sequence[NewGeneration], **given: Any) -> Any:
        seen.append(len(new))
        await asyncio.sleep(0.05)
        new = [_poisoned(job) if job.request["prompt"] == "poison" else job for job in new]
        return await add(self, new, **given)

    monkeypatch.setattr(Jobs, "add_generations", slow_add)
    return seen


def _poisoned(job: NewGeneration) -> NewGeneration:
    return replace(job, subjects=(Subject("nobody", None, 1.0),))


async def idle(start: Start, **settings: Any) -> Service:
    """A service that knows ann and bob, and whose worker begins nothing."""
    runtime = FakeRuntime()
    runtime.load_gate.clear()
    service: Service = await start(
        runtime, ready=False, **{"max_queued_jobs_per_caller": 64, **settings}
    )
    for user_id in ("ann", "bob"):
        assert (await ask(service.client(), "known", user_id=user_id)).status_code == 202
    return service


async def ask(client: httpx.AsyncClient, prompt: str, **body: object) -> httpx.Response:
    return await client.post("/generate", json={"prompt": prompt, **body})


@pytest.mark.both_databases
async def test_those_who_come_at_once_get_their_own_jobs_in_few_transactions(
    start: Start, sizes: list[int]
) -> None:
    service = await idle(start)
    sizes.clear()
    client = service.client()
    people = [("ann", "bob")[i % 2] for i in range(_MANY)]
    answers = await asyncio.gather(
        *(ask(client, f"fox {i}", user_id=user_id) for i, user_id in enumerate(people))
    )
    assert {answer.status_code for answer in answers} == {202}
    assert sum(sizes) == _MANY
    assert len(sizes) <= _MANY / 4, sizes
    pk_of = {user.user_id: user.pk for user in await rows(service, select(User))}
    about = {row.job_id: row.user_pk for row in await rows(service, select(JobSubject))}
    for i, (answer, user_id) in enumerate(zip(answers, people, strict=True)):
        job = await find(service, answer.json()["id"])
        assert job.request["prompt"] == f"fox {i}"
        assert job.user_pk == about[job.id] == pk_of[user_id]
        seen = (await client.get(f"/jobs/{job.id}")).json()
        assert seen | answer.json() == seen  # and where it stands, which only a look says


@pytest.mark.both_databases
async def test_a_limit_counts_those_who_come_at_once(start: Start, sizes: list[int]) -> None:
    service = await idle(start, max_queued_jobs=20, max_queued_jobs_per_caller=7)
    answers = await asyncio.gather(
        *(ask(service.client(), "fox", user_id="ann") for _ in range(_MANY))
    )
    accepted = [answer for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert (len(accepted), len(refused)) == (5, _MANY - 5), "two wait already"
    assert {answer.json()["code"] for answer in refused} == {"too_many_jobs"}
    assert max(sizes) > 1
    assert await count(service) == 7


@pytest.mark.both_databases
async def test_a_session_has_its_limit_among_others(start: Start, sizes: list[int]) -> None:
    service = await idle(start, max_queued_jobs_per_session=2)
    browser, _ = await service.session()
    assert (await ask(browser, "fox")).status_code == 202
    theirs = [ask(browser, "fox") for _ in range(5)]
    others = [ask(service.client(), "fox", user_id="ann") for _ in range(5)]
    answers = await asyncio.gather(*theirs, *others)
    assert sorted(answer.status_code for answer in answers[:5]) == [202, 429, 429, 429, 429]
    assert {answer.status_code for answer in answers[5:]} == {202}


@pytest.mark.both_databases
async def test_one_that_cannot_be_stored_takes_nobody_along(start: Start, sizes: list[int]) -> None:
    service = await idle(start)
    prompts = ["poison" if i == 7 else f"fox {i}" for i in range(_MANY)]
    answers = await asyncio.gather(
        *(ask(service.client(), prompt, user_id="ann") for prompt in prompts)
    )
    codes = [answer.status_code for answer in answers]
    assert codes == [500 if prompt == "poison" else 202 for prompt in prompts]
    assert await count(service) == 2 + _MANY - 1


@pytest.mark.both_databases
async def test_known_and_new_people_blends_and_repetitions_come_together(
    start: Start, sizes: list[int]
) -> None:
    service = await idle(start)
    client, other = service.client(), service.client(await service.new_key("other"))
    blend = [{"user_id": "bob", "weight": 1.0}, {"user_id": "ann", "weight": 0.25}]
    repeated = service.client(headers={"Idempotency-Key": "k-1"})
    answers = await asyncio.gather(
        ask(client, "known", user_id="ann"),
        ask(client, "new", user_id="eve"),
        ask(client, "of several", blend=blend),
        ask(client, "of nobody"),
        ask(other, "of a namesake", user_id="ann"),
        ask(repeated, "once", user_id="bob"),
    )
    assert {answer.status_code for answer in answers} == {202}
    again = await ask(repeated, "once", user_id="bob")
    assert again.json()["id"] == answers[-1].json()["id"]
    assert await count(service) == 2 + len(answers)
    weights = await rows(
        service,
        select(JobSubject)
        .where(JobSubject.job_id == answers[2].json()["id"])
        .order_by(JobSubject.position),
    )
    assert [subject.weight for subject in weights] == [1.0, 0.25]
    ours = await find(service, answers[0].json()["id"])
    theirs = await find(service, answers[4].json()["id"])
    assert ours.user_pk != theirs.user_pk
    elsewhere = await other.get(f"/jobs/{ours.id}")
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (404, "job_not_found")


@pytest.mark.both_databases
async def test_a_service_that_stops_answers_those_whom_it_let_in(
    start: Start, sizes: list[int]
) -> None:
    service = await idle(start)
    client = service.client()
    asking = [asyncio.create_task(ask(client, "fox", user_id="ann")) for _ in range(8)]
    while len(sizes) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await stop(service)
    answers = await asyncio.gather(*asking, return_exceptions=True)
    accepted = [a for a in answers if isinstance(a, httpx.Response) and a.status_code == 202]
    assert accepted
    again = await start(data_dir=service.settings.data_dir, ready=False)
    async with again.database.read() as store:
        for answer in accepted:
            assert await store.jobs.get(answer.json()["id"]) is not None


async def test_nobody_waits_for_somebody_elses_erasure(
    start: Start, migrated_postgres: Callable[[], str]
) -> None:
    service = await idle(start, **on_postgres(migrated_postgres()), database_lock_timeout_s=20)
    client = service.client()
    async with erasing(service, "ann"):
        held_up = asyncio.create_task(ask(client, "fox", user_id="ann"))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        answers = await asyncio.gather(*(ask(client, "fox", user_id="bob") for _ in range(4)))
        assert {answer.status_code for answer in answers} == {202}
        assert time.monotonic() - began < 10
        assert not held_up.done()
    assert (await held_up).status_code == 202


@asynccontextmanager
async def erasing(service: Service, user_id: str) -> AsyncIterator[None]:
    """Somebody has the person's row as an erasure has it."""
    async with service.database.write() as store:
        await store.session.scalar(select(User).where(User.user_id == user_id).with_for_update())
        yield


async def rows(service: Service, statement: Any) -> list[Any]:
    async with service.database.read() as store:
        return list((await store.session.scalars(statement)).all())


async def find(service: Service, job_id: str) -> Job:
    (job,) = await rows(service, select(Job).where(Job.id == job_id))
    assert isinstance(job, Job)
    return job


async def count(service: Service) -> int:
    (number,) = await rows(service, select(func.count()).select_from(Job))
    return int(number)
