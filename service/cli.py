"""`ppd`: start the service, make keys, bring the schema up to date, look after its health."""

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import uvicorn

from service.adapters_cli import adapters
from service.core.auth import BROWSER_TENANT, TENANT, KeyScope
from service.infra import migrate as migrations
from service.infra.adapters import AdapterFolder
from service.infra.database import Database
from service.infra.repositories import Store
from service.infra.secrets import key_sha256, new_key
from service.models_cli import models
from service.settings import Settings
from service.wiring import Embedded, embedded, free_bytes, prepare, sole_user_of, writable

if TYPE_CHECKING:
    from service.core.ports import ModelRuntime

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
keys = typer.Typer(no_args_is_help=True, help="API keys. A key belongs to one tenant.")
app.add_typer(keys, name="keys")
app.add_typer(models, name="models")
app.add_typer(adapters, name="adapters")

DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept (PPD_DATA_DIR).")]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Start the service: API, pages and worker in one process."""
    settings = _settings(data_dir=data_dir, host=host, port=port)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        if settings.production:
            raise ValueError("PPD_DATABASE_URL: PostgreSQL is not served yet; leave it unset")
        with sole_user_of(settings.data_dir):
            new_key_path = asyncio.run(prepare(settings))
            if new_key_path is not None:
                typer.echo(f"An API key was written to {new_key_path}")
            run_server(settings, embedded(settings, _runtime(settings)))
    except (ValueError, OSError) as error:
        raise _refuse(str(error)) from error


def run_server(settings: Settings, parts: Embedded) -> None:
    """Serve until stopped; followers of events are let go first, then requests end."""
    config = uvicorn.Config(
        parts.app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
    typer.echo(f"Open http://{settings.host}:{settings.port}/")
    Server(config, parts).run()


class Server(uvicorn.Server):
    """Ends event streams when it stops; they would keep it waiting otherwise."""

    def __init__(self, config: uvicorn.Config, parts: Embedded) -> None:
        super().__init__(config)
        self._parts = parts

    async def shutdown(self, sockets: Any = None) -> None:
        """Stop."""
        self._parts.events.close()
        await super().shutdown(sockets)


@app.command()
def migrate(data_dir: DataDir = None) -> None:
    """Bring the database's schema up to date."""
    settings = _settings(data_dir=data_dir)
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    migrations.upgrade(settings.database)
    current, _ = migrations.revision(settings.database)
    typer.echo(f"The schema is at {current}")


@app.command()
def doctor(data_dir: DataDir = None) -> None:
    """Check settings, data folder, database and weights; exit 1 when something is wrong."""
    settings = _settings(data_dir=data_dir)
    for name, value in settings.redacted().items():
        typer.echo(f"{name:>28}  {value}")
    faults = [
        *_check("data folder", lambda: _data_folder(settings)),
        *_check("database", lambda: _database(settings)),
        *_check("pool of pairs", lambda: _pool(settings)),
        *_check("weights", lambda: _weights(settings)),
    ]
    if faults:
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
        raise _refuse(f"{tenant!r} cannot be a tenant: 1 to 64 of A-Za-z0-9._-, not browser")
    key = new_key()

    async def add(store: Store) -> str:
        return (await store.keys.add(tenant, name, key_sha256(key), scope)).pk

    typer.echo(f"id {_in_database(data_dir, add)}", err=True)
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

    for line in _in_database(data_dir, lines):
        typer.echo(line)


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The id that `list` shows.")],
    data_dir: DataDir = None,
) -> None:
    """Revoke a key at once."""
    if not _in_database(data_dir, lambda store: store.keys.revoke(key_id)):
        raise _refuse(f"there is no key {key_id} in use")
    typer.echo("revoked")


def _settings(**given: Any) -> Settings:
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValueError as error:
        raise _refuse(str(error)) from error


def _runtime(settings: Settings) -> "ModelRuntime":
    """The model. Imported here: the other commands need no torch."""
    from ppd_model.presets import get_preset
    from service.worker.engine import PpdRuntime, weights_folder

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
        generator_place=settings.generator_place,
        encoder_place=settings.encoder_place,
        prompt_variant=settings.prompt_variant,
        decoding=settings.decoding,
        threads=settings.model_threads,
        adapter=settings.adapter or AdapterFolder(settings.adapters_dir).active(),
    )


def _in_database(data_dir: Path | None, work: Any) -> Any:
    settings = _settings(data_dir=data_dir)

    async def run() -> Any:
        await prepare(settings)
        database = Database(settings.database)
        try:
            async with database.write() as store:
                return await work(store)
        finally:
            await database.close()

    return asyncio.run(run())


def _check(what: str, look: Any) -> list[str]:
    try:
        typer.echo(f"ok      {what}: {look()}")
    except Exception as error:
        typer.echo(f"FAULT   {what}: {error}")
        return [what]
    return []


def _data_folder(settings: Settings) -> str:
    folder = settings.data_dir
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist; `ppd migrate` makes it")
    if not writable(folder):
        raise ValueError(f"{folder} cannot be written to")
    if free_bytes(folder) < settings.min_free_bytes:
        raise ValueError(
            f"{folder} has {free_bytes(folder) // 2**20} MiB left; below "
            f"{settings.min_free_bytes // 2**20} MiB no picture is stored (PPD_MIN_FREE_BYTES)"
        )
    return f"{folder}, {free_bytes(folder) // 2**30} GiB left"


def _database(settings: Settings) -> str:
    current, head = migrations.revision(settings.database)
    if current != head:
        raise ValueError(f"the schema is at {current}, the newest is {head}; run `ppd migrate`")
    return f"schema {current}"


def _pool(settings: Settings) -> str:
    from service.core.pool import load_pool

    pool = load_pool(settings.pool_dir)
    return f"version {pool.version}, {len(pool.pairs)} pairs"


def _weights(settings: Settings) -> str:
    versions = _runtime(settings).load()
    return (
        f"model {versions.model}, adapter {versions.adapter_version}, "
        f"encoder {versions.encoder_version}"
    )


def _refuse(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(1)


if __name__ == "__main__":
    app()
