"""`ppd jobs`: an operator sees jobs, runs a failed one again, and cancels one."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from typer.testing import CliRunner

from service.cli.commands import app
from service.core.messages import first_seq
from service.infra.sql.database import Database
from service.infra.sql.store import Store
from service.infra.sql.tables import Job, Profile, User, now
from service.settings import Settings
from service.wiring import prepare

T = TypeVar("T")


def ppd(data_dir: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["jobs", *words, "--data-dir", str(data_dir)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout + result.stderr


class Told:
    """Delivery that remembers what it was told."""

    def __init__(self) -> None:
        self.tickets: list[tuple[str, int]] = []

    async def enqueue(self, session: AsyncSession, kind: str, count: int) -> None:
        self.tickets.append((kind, count))


def in_database(data_dir: Path, work: Callable[[Store], Awaitable[T]], told: Any = None) -> T:
    settings = Settings(data_dir=data_dir)

    async def run() -> T:
        await prepare(settings)
        database = Database(settings.database, told)
        try:
            async with database.write() as store:
                return await work(store)
        finally:
            await database.close()

    return asyncio.run(run())


def job(data_dir: Path, **values: Any) -> str:
    """A job of a picture in this state."""

    async def add(store: Store) -> str:
        request = {"prompt": "a telling fox"}
        row = Job(kind="generate", priority=1, tenant="shop", request=request, **values)
        return (await store.jobs.add(row)).id

    return in_database(data_dir, add)


def row(data_dir: Path, job_id: str) -> Job:
    async def find(store: Store) -> Job:
        found = await store.jobs.get(job_id)
        assert found is not None
        return found

    return in_database(data_dir, find)


def test_jobs_are_listed_newest_first_and_without_prompts_unless_asked_for(tmp_path: Path) -> None:
    early = job(tmp_path, status="failed", error_code="model_error", created_at=now().replace(2020))
    late = job(tmp_path)
    code, output = ppd(tmp_path, "list")
    assert code == 0
    assert [line.split()[0] for line in output.splitlines()] == [late, early]
    assert "model_error" in output
    assert "telling" not in output
    assert early not in ppd(tmp_path, "list", "--status", "queued")[1]
    assert ppd(tmp_path, "list", "--kind", "encode") == (0, "")
    assert late in ppd(tmp_path, "list", "--limit", "1")[1]
    assert "a telling fox" in ppd(tmp_path, "list", "--show-request")[1]


@pytest.mark.parametrize("status", ["failed", "expired"])
def test_a_job_that_ended_badly_runs_again_as_a_further_attempt(
    tmp_path: Path, status: str
) -> None:
    ended = {"attempt": 3, "seq": 3998, "error_code": "worker_crash", "error_detail": "x"}
    job_id = job(tmp_path, status=status, finished_at=now(), expires_at=now(), **ended)
    assert ppd(tmp_path, "requeue", job_id) == (0, "queued for attempt 4\n")
    again = row(tmp_path, job_id)
    assert (again.status, again.attempt, again.seq) == ("queued", 3, 3999)
    assert again.error_code is again.error_detail is again.finished_at is None
    assert again.expires_at is not None
    assert again.expires_at > now() + timedelta(minutes=50)


@pytest.mark.parametrize("status", ["queued", "running", "succeeded", "canceled"])
def test_no_other_job_runs_again(tmp_path: Path, status: str) -> None:
    job_id = job(tmp_path, status=status)
    code, output = ppd(tmp_path, "requeue", job_id)
    assert code == 1
    assert f"the job is {status}" in output
    assert row(tmp_path, job_id).status == status


def test_seq_grows_however_often_a_job_expires_unbegun(tmp_path: Path) -> None:
    job_id = job(tmp_path)
    seen = [1]
    for _ in range(4):

        async def expire(store: Store) -> int:
            found = await store.jobs.get(job_id)
            assert found is not None
            found.expires_at = now() - timedelta(seconds=1)
            await store.session.flush()
            return (await store.claims.expire())[0].seq

        seen.append(in_database(tmp_path, expire))
        assert ppd(tmp_path, "requeue", job_id)[0] == 0
        again = row(tmp_path, job_id)
        seen.append(again.seq)
        assert first_seq(again.attempt + 1) > again.seq
    assert seen == sorted(set(seen))


def test_workers_are_told_of_a_job_that_runs_again(tmp_path: Path) -> None:
    job_id, told = job(tmp_path, status="failed"), Told()

    async def again(store: Store) -> None:
        found = await store.jobs.get(job_id)
        assert found is not None
        await store.jobs.requeue(found, None)

    in_database(tmp_path, again, told)
    assert told.tickets == [("generate", 1)]


def test_a_failed_reading_is_read_again_and_a_canceled_one_ends(tmp_path: Path) -> None:
    async def encoding(store: Store) -> str:
        user = User(tenant="shop", user_id="ada")
        store.session.add(user)
        await store.session.flush()
        profile = await store.profiles.add(user.pk, "generated", [], 1, None)
        await store.profiles.finish(profile.pk, "failed", error_code="encoder_invalid")
        request = {"profile_version": 1}
        theirs = {"user_pk": user.pk, "profile_pk": profile.pk, "status": "failed"}
        row = Job(kind="encode", priority=0, tenant="shop", request=request, **theirs)
        return (await store.jobs.add(row)).id

    job_id = in_database(tmp_path, encoding)

    async def status(store: Store) -> tuple[str, str | None]:
        found = await store.jobs.get(job_id)
        assert found is not None
        assert found.profile_pk is not None
        profile = await store.session.get(Profile, found.profile_pk)
        assert profile is not None
        return profile.status, profile.error_code

    assert ppd(tmp_path, "requeue", job_id)[0] == 0
    assert in_database(tmp_path, status) == ("encoding", None)
    assert ppd(tmp_path, "cancel", job_id) == (0, "canceled\n")
    assert in_database(tmp_path, status) == ("failed", "canceled")
    code, output = ppd(tmp_path, "cancel", job_id)
    assert code == 1
    assert "it is canceled" in output


def test_an_unknown_job_is_named(tmp_path: Path) -> None:
    job(tmp_path)
    assert ppd(tmp_path, "requeue", "nope") == (1, "there is no job nope\n")
    assert ppd(tmp_path, "cancel", "nope") == (1, "there is no job nope\n")
