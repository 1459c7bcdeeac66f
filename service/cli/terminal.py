"""What all commands have in common: the data folder, refusals in one line, the stores."""

import asyncio
import getpass
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from service.infra.parts import Parts
from service.infra.sql.store import Store
from service.settings import Settings, read
from service.wiring import open_database, prepare, wire

DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept (PPD_DATA_DIR).")]
_T = TypeVar("_T")


class Refusing(TyperGroup):
    """Commands whose refusals (ValueError, OSError) are a line and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, OSError) as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error


def operator() -> str:
    """Who gives the command, for the audit record."""
    try:
        return f"operator:{getpass.getuser()}"[:160]
    except (KeyError, OSError):  # a number without a name, as in containers
        return f"operator:{os.getuid()}"


def in_parts(data_dir: Path | None, work: Callable[[Settings, Parts], Awaitable[_T]]) -> _T:
    """What `work` gives, over the stores that a running service has as well."""
    settings = _settings_of_a_service(data_dir)

    async def run() -> _T:
        await prepare(settings)
        async with wire(settings, shared=settings.production).opened() as parts:
            return await work(settings, parts)

    return asyncio.run(run())


def in_database(data_dir: Path | None, work: Callable[[Store], Awaitable[_T]]) -> _T:
    """What `work` gives, in one transaction."""
    settings = _settings_of_a_service(data_dir)

    async def run() -> _T:
        await prepare(settings)
        database = open_database(settings)
        try:
            async with database.write() as store:
                return await work(store)
        finally:
            await database.close()

    return asyncio.run(run())


def _settings_of_a_service(data_dir: Path | None) -> Settings:
    """Raises ValueError where no service has ever been: its database is not made in passing."""
    settings = read(data_dir=data_dir)
    if settings.database_url is None and not (settings.data_dir / "ppd.db").exists():
        raise ValueError(
            f"there is no service in {settings.data_dir}: `ppd serve` or `ppd migrate` begins one; "
            "--data-dir (PPD_DATA_DIR) names another folder, PPD_DATABASE_URL a PostgreSQL"
        )
    return settings
