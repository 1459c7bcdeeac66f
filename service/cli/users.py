"""`ppd users`: a person's data, for whoever answers their requests."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TextIO, TypeVar

import typer

from service.actions.erasure import erase_person
from service.actions.export import export_person
from service.infra.parts import Parts
from service.settings import read
from service.wiring import opened_parts, prepare

users = typer.Typer(no_args_is_help=True, help="People: everything held about one, or erase it.")

_T = TypeVar("_T")
_User = Annotated[str, typer.Argument(metavar="USER", help="The tenant's own id of the person.")]
_Tenant = Annotated[str, typer.Option(help="Whose user it is.")]
_DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept (PPD_DATA_DIR).")]


@users.command()
def export(
    user: _User,
    tenant: _Tenant = "default",
    out: Annotated[Path | None, typer.Option(help="A new file; the default is the screen.")] = None,
    data_dir: _DataDir = None,
) -> None:
    """Write everything held about a person, as JSON. Pictures are named, not held in it."""

    async def write(parts: Parts, to: TextIO) -> bool:
        async with parts.database.read() as store:
            found = await store.users.find(tenant, user)
        if found is None:
            return False
        async for piece in export_person(parts, found):
            to.write(piece)
        to.write("\n")
        return True

    try:
        if out is None:
            found = _with_parts(data_dir, lambda parts: write(parts, sys.stdout))
        else:
            with out.open("x", encoding="utf-8") as file:
                out.chmod(0o600)
                found = _with_parts(data_dir, lambda parts: write(parts, file))
            if not found:
                out.unlink()
    except OSError as error:
        raise _refuse(str(error)) from error
    if not found:
        raise _nobody(user, tenant)


@users.command()
def erase(
    user: _User,
    tenant: _Tenant = "default",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: _DataDir = None,
) -> None:
    """Erase a person everywhere, as DELETE /users/{id} does. A running service may go on."""
    if not yes:
        typer.confirm(f"Erase {user} of tenant {tenant}, for good?", abort=True, err=True)
    receipt = _with_parts(data_dir, lambda parts: erase_person(parts, tenant, user))
    if receipt is None:
        raise _nobody(user, tenant)
    typer.echo(", ".join(f"{count} {what}" for what, count in receipt.erased.items()) + " erased")
    if receipt.pending_images:
        typer.echo(f"{receipt.pending_images} pictures are deleted once the image store is well")
    if not receipt.scrubbed:
        typer.echo("the database's log still holds the rows until its readers let go")


def _with_parts(data_dir: Path | None, work: Callable[[Parts], Awaitable[_T]]) -> _T:
    try:
        settings = read(data_dir=data_dir)
    except ValueError as error:
        raise _refuse(str(error)) from error

    async def run() -> _T:
        await prepare(settings)
        async with opened_parts(settings) as parts:
            return await work(parts)

    return asyncio.run(run())


def _nobody(user: str, tenant: str) -> typer.Exit:
    return _refuse(f"tenant {tenant} has no user {user}")


def _refuse(message: str) -> typer.Exit:
    typer.echo(message, err=True)
    return typer.Exit(1)
