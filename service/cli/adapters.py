"""`ppd adapters`: which adapter is served, changed while the service runs."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from service.core.ports import ImageStore
from service.infra.adapters import AdapterCopies, keep
from service.infra.sql.database import Database
from service.infra.sql.repositories.adapters import misfit_text
from service.infra.sql.tables import Adapter
from service.settings import Settings, read
from service.wiring import adapter_stores, prepare

adapters = typer.Typer(no_args_is_help=True, help="Adapters: put one into service, or go back.")

DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept (PPD_DATA_DIR).")]
FROM_NOW_ON = "serves every request from now on"


@adapters.command()
def add(
    file: Annotated[Path, typer.Argument(help="An adapter's file.")], data_dir: DataDir = None
) -> None:
    """Keep an adapter where every worker finds it, without serving it yet."""
    settings = _settings(data_dir)
    row = _run(settings, lambda database, images: _add(settings, database, images, file))
    typer.echo(f"adapter {row.version} for {row.base_model} and {row.encoder_id} is kept")


@adapters.command()
def activate(
    adapter: Annotated[str, typer.Argument(help="A file, or a version that `list` shows.")],
    data_dir: DataDir = None,
) -> None:
    """Serve this adapter from the next request on; one that does not fit is refused.

    Jobs that are waiting or running keep the adapter that they came with.
    """
    settings = _settings(data_dir)

    async def work(database: Database, images: ImageStore) -> Adapter:
        async with database.read() as store:
            row = await store.adapters.get(adapter)
        if row is None:
            row = await _add(settings, database, images, Path(adapter))
        else:
            _refuse_other_models(settings, row)
        async with database.write() as store:
            if not await store.adapters.activate(row.version):
                raise ValueError(f"adapter {row.version} was removed meanwhile")
        return row

    row = _run(settings, work)
    _say_override(settings)
    typer.echo(f"adapter {row.version} for {row.base_model} and {row.encoder_id} {FROM_NOW_ON}")


@adapters.command()
def rollback(data_dir: DataDir = None) -> None:
    """Serve what was served before; done again, what was before that."""
    settings = _settings(data_dir)

    async def work(database: Database, _: ImageStore) -> str:
        async with database.write() as store:
            back = await store.adapters.rollback()
            if back is None:
                raise ValueError("there is no earlier adapter to go back to")
            row = None if back.version is None else await store.adapters.get(back.version)
            if row is not None:
                _refuse_other_models(settings, row)
        return "the shipped adapter" if row is None else f"adapter {row.version}"

    back = _run(settings, work)
    _say_override(settings)
    typer.echo(f"{back} {FROM_NOW_ON}")


@adapters.command()
def deactivate(data_dir: DataDir = None) -> None:
    """Serve the shipped adapter from the next request on."""
    settings = _settings(data_dir)

    async def work(database: Database, _: ImageStore) -> None:
        async with database.write() as store:
            if not await store.adapters.deactivate():
                raise ValueError("the shipped adapter is the one in service")

    _run(settings, work)
    _say_override(settings)
    typer.echo(f"the shipped adapter {FROM_NOW_ON}")


@adapters.command()
def remove(
    version: Annotated[str, typer.Argument(help="A version that `list` shows.")],
    data_dir: DataDir = None,
) -> None:
    """Forget an adapter; refused while it is in service or a waiting job needs it."""
    settings = _settings(data_dir)

    async def work(database: Database, images: ImageStore) -> None:
        async with database.write() as store:
            key = await store.adapters.remove(version)
        await images.delete([key])
        await AdapterCopies(settings.adapters_dir, images).forget(version)

    _run(settings, work)
    typer.echo(f"adapter {version} is removed")


@adapters.command("list")
def list_adapters(data_dir: DataDir = None) -> None:
    """Show the adapters that are kept, and which one new requests are made with."""
    settings = _settings(data_dir)

    async def work(database: Database, _: ImageStore) -> list[str]:
        async with database.read() as store:
            active, rows = await store.adapters.active(), await store.adapters.all()
        shown = [("shipped     ", active is None, "with the weights")]
        shown += [
            (
                row.version,
                row.version == active,
                f"{row.created_at:%Y-%m-%d %H:%M}  {row.size_bytes / 1e6:.1f} MB  "
                f"{row.base_model}  {row.encoder_id}",
            )
            for row in rows
        ]
        return [f"{name}  {'active' if on else '      '}  {facts}" for name, on, facts in shown]

    lines = _run(settings, work)
    _say_override(settings)
    for line in lines:
        typer.echo(line)


async def _add(settings: Settings, database: Database, images: ImageStore, file: Path) -> Adapter:
    """Check a file against the models of these settings, and keep it."""
    from service.worker.engine import check_adapter

    base_model, encoder_id = check_adapter(
        settings.preset,
        settings.weights_dir,
        file,
        encoder_place=settings.encoder_place,
        prompt_variant=settings.prompt_variant,
        decoding=settings.decoding,
    )
    data = await asyncio.to_thread(file.read_bytes)
    return await keep(database, images, data, base_model=base_model, encoder_id=encoder_id)


def _refuse_other_models(settings: Settings, row: Adapter) -> None:
    """Raises ValueError with both ids for an adapter of another base model or encoder."""
    from service.worker.engine import served_ids

    base_model, encoder_id = served_ids(
        settings.preset,
        settings.weights_dir,
        encoder_place=settings.encoder_place,
        prompt_variant=settings.prompt_variant,
        decoding=settings.decoding,
    )
    if row.base_model != base_model:
        raise ValueError(misfit_text(row.version, "base model", row.base_model, base_model))
    if row.encoder_id != encoder_id:
        raise ValueError(misfit_text(row.version, "user encoder", row.encoder_id, encoder_id))


def _run(settings: Settings, work: Callable[[Database, ImageStore], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        await prepare(settings)
        async with adapter_stores(settings) as (database, images):
            return await work(database, images)

    try:
        return asyncio.run(run())
    except (ValueError, OSError) as error:
        raise _refuse(str(error)) from error
    except ModuleNotFoundError as error:
        raise _refuse(f"adapters are checked where the models run: {error}") from error


def _say_override(settings: Settings) -> None:
    if settings.adapter is not None:
        typer.echo(
            f"PPD_ADAPTER={settings.adapter} is served with this setting, whatever is activated"
        )


def _settings(data_dir: Path | None) -> Settings:
    try:
        return read(data_dir=data_dir)
    except ValueError as error:
        raise _refuse(str(error)) from error


def _refuse(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(1)
