"""`ppd jobs`: what waits, runs and failed, and an operator's hand on it."""

import json
from datetime import timedelta
from typing import Annotated, Literal

import typer

from service.actions.canceling import cancel as cancel_job
from service.cli.terminal import DataDir, in_database, in_parts
from service.core.messages import JobStatus
from service.infra.parts import Parts
from service.infra.sql.store import Store
from service.infra.sql.tables import Job, now, seconds_since
from service.settings import Settings

jobs = typer.Typer(no_args_is_help=True, help="Jobs: see them, run one again, cancel one.")

JobId = Annotated[str, typer.Argument(help="The id that `list` shows.")]


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

    async def look(store: Store) -> list[str]:
        return [_line(job, show_request) for job in await store.jobs.page(status, kind, limit)]

    for line in in_database(data_dir, look):
        typer.echo(line)


@jobs.command()
def requeue(job_id: JobId, data_dir: DataDir = None) -> None:
    """Run a failed or expired job again, as a further attempt."""

    async def again(settings: Settings, parts: Parts) -> Job:
        async with parts.database.write() as store:
            return await _again(store, settings)

    async def _again(store: Store, settings: Settings) -> Job:
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

    job = in_parts(data_dir, again)
    typer.echo(f"queued for attempt {job.attempt + 1}")


@jobs.command()
def cancel(job_id: JobId, data_dir: DataDir = None) -> None:
    """End a job that waits or runs, as DELETE /jobs/{id} does."""

    async def end(_: Settings, parts: Parts) -> None:
        job, canceled = await cancel_job(parts, lambda store: _existing(store, job_id))
        if not canceled:
            raise ValueError(f"the job has ended: it is {job.status}")

    in_parts(data_dir, end)
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
