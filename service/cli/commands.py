"""`ppd`: start the service, make keys, bring the schema up to date, look after its health."""

import asyncio
import importlib.util
import logging
import os
from collections.abc import Callable, Collection
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from service.cli.adapters import adapters
from service.cli.audit import audit
from service.cli.choices import choices
from service.cli.doctor import examine
from service.cli.images import images
from service.cli.jobs import jobs
from service.cli.models import models
from service.cli.reports import reports
from service.cli.server import run_server
from service.cli.terminal import DataDir, Refusing, in_database, operator
from service.cli.users import users
from service.cli.wins import wins
from service.core.auth import BROWSER_TENANT, TENANT, KeyScope
from service.core.messages import KINDS
from service.infra.secrets import key_sha256, new_key
from service.infra.sql import migrate as migrations
from service.infra.sql.store import Store
from service.settings import Settings, read
from service.wiring import api, embedded, prepare, sole_user_of, start_logs
from service.wiring import worker as run_worker

if TYPE_CHECKING:
    from service.core.ports import ModelRuntime

app = typer.Typer(cls=Refusing, no_args_is_help=True, add_completion=False, help=__doc__)
keys = typer.Typer(no_args_is_help=True, help="API keys. A key belongs to one tenant.")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ppd {metadata.version('ppd')}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and end.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    """Options of the program itself."""


app.add_typer(keys, name="keys")
app.add_typer(models, name="models")
app.add_typer(adapters, name="adapters")
app.add_typer(images, name="images")
app.add_typer(users, name="users")
app.add_typer(choices, name="choices")
app.add_typer(jobs, name="jobs")
app.add_typer(reports, name="reports")
app.add_typer(audit, name="audit")
app.command()(wins)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Start the service: API, pages and worker in one process.

    With PPD_DATABASE_URL=postgresql://... API and pages only: `ppd worker` runs the jobs.
    """
    settings = read(data_dir=data_dir, host=host, port=port)
    start_logs(settings)
    if settings.production:
        asyncio.run(prepare(settings))
        run_server(settings, api(settings))
        return
    with sole_user_of(settings.data_dir):
        new_key_path = asyncio.run(prepare(settings))
        if new_key_path is not None:
            typer.echo(f"An API key was written to {new_key_path}")
        run_server(settings, embedded(settings, _runtime(settings)))


@app.command()
def worker(
    queues: Annotated[str, typer.Option(help="Kinds of job to take, with commas between.")] = (
        ",".join(KINDS)
    ),
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Jobs under way at once.")] = 4,
    metrics_port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port of its own /metrics; none without.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="Address of that.")] = "127.0.0.1",
    data_dir: DataDir = None,
) -> None:
    """Start a worker of the production scale; SIGTERM lets its jobs end."""
    settings = read(data_dir=data_dir)
    kinds = {name.strip() for name in queues.split(",")}
    if not kinds or not kinds <= set(KINDS):
        raise ValueError(f"--queues {queues!r}: expected {' and '.join(KINDS)}, or one of them")
    if not settings.production:
        raise ValueError(
            "`ppd worker` needs PPD_DATABASE_URL=postgresql://...; "
            "without it `ppd serve` runs the jobs itself"
        )
    start_logs(settings)
    metrics = None if metrics_port is None else (metrics_host, metrics_port)
    work(settings, lambda: _runtime(settings, kinds, concurrency), kinds, concurrency, metrics)


def work(
    settings: Settings,
    runtime: Callable[[], "ModelRuntime"],
    kinds: set[str],
    concurrency: int,
    metrics_at: tuple[str, int] | None = None,
) -> NoReturn:
    """Be a worker process, to its end.

    That end does not wait for the model's thread: no loading and no reading of choices can be cut
    short, and what that thread still does is nobody's any more.
    """
    asyncio.run(prepare(settings))
    status = asyncio.run(run_worker(settings, runtime(), kinds, concurrency, metrics_at))
    logging.shutdown()
    os._exit(status)


@app.command()
def migrate(data_dir: DataDir = None) -> None:
    """Bring the database's schema up to date."""
    settings = read(data_dir=data_dir)
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    migrations.revision(settings.database)  # one that is away is named, within seconds
    migrations.upgrade(settings.database)
    current, _ = migrations.revision(settings.database)
    typer.echo(f"The schema is at {current}")


@app.command()
def doctor(data_dir: DataDir = None) -> None:
    """Check settings, stores, workers and weights; exit 1 when something is wrong."""
    settings = read(data_dir=data_dir)
    if not examine(settings, lambda: _runtime(settings), typer.echo):
        raise typer.Exit(1)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    tenant: Annotated[str, typer.Option(help="Whose users, jobs and pictures it opens.")] = (
        "default"
    ),
    scope: Annotated[
        KeyScope, typer.Option(help="client: people and pictures; admin: the service as well.")
    ] = "client",
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it once."""
    if not TENANT.fullmatch(tenant) or tenant == BROWSER_TENANT:
        raise ValueError(f"{tenant!r} cannot be a tenant: 1 to 64 of A-Za-z0-9._-, not browser")
    if not name.strip() or len(name) > 128 or not name.isprintable():
        raise ValueError(f"{name!r} cannot be a name: 1 to 128 printable characters")
    key = new_key()

    async def add(store: Store) -> str:
        row = await store.keys.add(tenant, name, key_sha256(key), scope)
        await store.audit.note(operator(), "key.made", f"key:{row.pk}", tenant, scope=scope)
        return row.pk

    typer.echo(f"id {in_database(data_dir, add)}", err=True)
    typer.echo(key)


@keys.command("list")
def list_keys(data_dir: DataDir = None) -> None:
    """Show all keys; the keys themselves are not kept."""

    async def lines(store: Store) -> list[str]:
        return [
            f"{row.pk}  {row.tenant:<16} {row.scope:<6} {row.created_at:%Y-%m-%d %H:%M}  "
            f"{'revoked' if row.revoked_at else 'in use ':<8} {row.name}"
            for row in await store.keys.all()
        ]

    for line in in_database(data_dir, lines):
        typer.echo(line)


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The id that `list` shows.")],
    data_dir: DataDir = None,
) -> None:
    """Revoke a key at once."""

    async def revoke(store: Store) -> tuple[bool, bool]:
        revoked = await store.keys.revoke(key_id)
        if revoked:
            await store.audit.note(operator(), "key.revoked", f"key:{key_id}")
        in_use = [key for key in await store.keys.all() if key.revoked_at is None]
        return revoked, any(key.scope == "admin" for key in in_use)

    revoked, has_admin = in_database(data_dir, revoke)
    if not revoked:
        raise ValueError(f"there is no key {key_id} in use")
    typer.echo("revoked")
    if not has_admin:
        typer.echo(
            "warning: no admin key is in use now; `ppd keys create --scope admin` makes one",
            err=True,
        )


def _runtime(
    settings: Settings, kinds: Collection[str] = KINDS, jobs_at_once: int = 4
) -> "ModelRuntime":
    """The model, as far as these kinds of job need it. Imported here: all else needs no torch.

    OpenMP, which torch brings, reads its environment when it is loaded. As it comes, its threads
    spin while they wait for each other, for which a core that others use as well has no time:
    reading four choices then takes many times as long (`benchmarks.service.reading_beside`).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if importlib.util.find_spec("torch") is None:
        raise ValueError(
            "torch is not installed here, so this process can run no model: install the extra "
            "`model`, or, for an API replica, set PPD_DATABASE_URL=postgresql://..."
        )
    from ppd_model.presets import get_preset
    from service.worker.model_runtime import PpdRuntime, weights_folder

    folder = weights_folder(settings.preset, settings.weights_dir)
    is_own = not get_preset(settings.preset).published
    if is_own and not (folder / "manifest.json").is_file():
        raise ValueError(
            f"no weights of {settings.preset} at {folder}: there is no manifest.json. "
            "`make mini` trains those of mini; PPD_WEIGHTS_DIR names another folder"
        )
    return PpdRuntime(
        settings.preset,
        settings.weights_dir,
        generator_place=settings.generator_place if "generate" in kinds else None,
        encoder_place=settings.encoder_place if "encode" in kinds else None,
        prompt_variant=settings.prompt_variant,
        decoding=settings.decoding,
        threads=settings.model_threads,
        adapter=settings.adapter,
        kept_adapters=settings.adapters_in_memory,
        jobs_at_once=jobs_at_once,
        timeout_s=settings.job_timeout_s,
        preview_every=settings.preview_every,
    )
