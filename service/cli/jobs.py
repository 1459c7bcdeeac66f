"""`ppd jobs`: what waits, runs and failed, and an operator's hand on it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

from service.core.messages import TERMINAL, JobStatus
from service.infra.sql.store import Store
from service.infra.sql.tables import Job, now, seconds_since
from service.settings import Settings, read
from service.wiring import open_database

jobs = typer.Typer(no_args_is_help=True, help="Jobs: see them, run one again, cancel one.")

DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept (PPD_DATA_DIR).")]
JobId = Annotated[str, typer.Argument(help="The id that `list` shows.")]
_T = TypeVar("_T")


@jobs.command("list")
def list_jobs(
    status: Annotated[JobStatus | None, typer.Option(help="Only jobs in this state.")] = None,
    kind: Annotated[
        Literal["encode", "generate"] | None, typer.Option(help="Only jobs of this kind.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    show_request: Annotated[
        bool, typer.Option("--show-request", help="Show what was asked for, prompts included.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Show jobs, newest first: id, kind, state, attempts, age, tenant, worker, error."""

    async def look(store: Store, _: Settings) -> list[str]:
        return [_line(job, show_request) for job in await store.jobs.page(status, kind, limit)]

    for line in _in_database(data_dir, look):
        typer.echo(line)


@jobs.command()
def requeue(job_id: JobId, data_dir: DataDir = None) -> None:
    """Run a failed or expired job again, as a further attempt."""

    async def again(store: Store, settings: Settings) -> Job:
        job = await _existing(store, job_id)
        if job.status not in ("failed", "expired"):
            raise ValueError(f"the job is {job.status}; only a failed or expired one runs again")
        if job.profile_pk is not None and not await store.profiles.reopen(job.profile_pk):
            raise ValueError("the profile version of this job is not one that failed")
        expires_at = None
        if job.kind == "generate":
            expires_at = now() + timedelta(seconds=settings.job_expiry_s)
        await store.jobs.requeue(job, expires_at)
        return job

    job = _in_database(data_dir, again)
    typer.echo(f"queued for attempt {job.attempt + 1}")


@jobs.command()
def cancel(job_id: JobId, data_dir: DataDir = None) -> None:
    """End a job that waits or runs; its worker finds out when it next renews its lease."""

    async def end(store: Store, _: Settings) -> None:
        job = await _existing(store, job_id)
        if job.status in TERMINAL or not await store.jobs.cancel(job):
            raise ValueError(f"the job has ended: it is {job.status}")
        if job.profile_pk is not None:
            await store.profiles.finish(job.profile_pk, "failed", error_code="canceled")

    _in_database(data_dir, end)
    typer.echo("canceled")


async def _existing(store: Store, job_id: str) -> Job:
    job = await store.jobs.get(job_id, lock=True)
    if job is None:
        raise ValueError(f"there is no job {job_id}")
    return job


def _line(job: Job, show_request: bool) -> str:
    age = timedelta(seconds=int(seconds_since(job.created_at)))
    line = (
        f"{job.id}  {job.kind:<8} {job.status:<9} attempt {job.attempt}  {age!s:>15}  "
        f"{job.tenant:<16} {job.worker_id or '-':<12} {job.error_code or ''}"
    ).rstrip()
    return f"{line}\n    {json.dumps(job.request, ensure_ascii=True)}" if show_request else line


def _in_database(data_dir: Path | None, work: Callable[[Store, Settings], Awaitable[_T]]) -> _T:
    async def run(settings: Settings) -> _T:
        database = open_database(settings)
        try:
            async with database.write() as store:
                return await work(store, settings)
        finally:
            await database.close()

    try:
        return asyncio.run(run(read(data_dir=data_dir)))
    except ValueError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
