"""`ppd users`: a person's data, for whoever answers their requests."""

import sys
from pathlib import Path
from typing import Annotated, TextIO

import typer

from service.actions.erasure import erase_person
from service.actions.export import export_person
from service.cli.terminal import DataDir, in_parts, operator
from service.infra.parts import Parts

users = typer.Typer(no_args_is_help=True, help="People: everything held about one, or erase it.")

_User = Annotated[str, typer.Argument(metavar="USER", help="The tenant's own id of the person.")]
_Tenant = Annotated[str, typer.Option(help="Whose user it is.")]


@users.command()
def export(
    user: _User,
    tenant: _Tenant = "default",
    out: Annotated[Path | None, typer.Option(help="A new file; the default is the screen.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Write everything held about a person, as JSON. Pictures are named, not held in it."""

    async def write(parts: Parts, to: TextIO) -> bool:
        async with parts.database.read() as store:
            found = await store.users.find(tenant, user)
        if found is None or found.owner_pk is not None:
            return False
        async for piece in export_person(parts, found):
            to.write(piece)
        to.write("\n")
        return True

    if out is None:
        found = in_parts(data_dir, lambda _, parts: write(parts, sys.stdout))
    else:
        with out.open("x", encoding="utf-8") as file:
            out.chmod(0o600)
            found = in_parts(data_dir, lambda _, parts: write(parts, file))
        if not found:
            out.unlink()
    if not found:
        raise _nobody(user, tenant)


@users.command()
def erase(
    user: _User,
    tenant: _Tenant = "default",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Erase a person everywhere, as DELETE /users/{id} does. A running service may go on."""
    if not yes:
        typer.confirm(f"Erase {user} of tenant {tenant}, for good?", abort=True, err=True)
    receipt = in_parts(data_dir, lambda _, parts: erase_person(parts, tenant, user, who=operator()))
    if receipt is None:
        raise _nobody(user, tenant)
    typer.echo(", ".join(f"{count} {what}" for what, count in receipt.erased.items()) + " erased")
    if receipt.pending_images:
        typer.echo(f"{receipt.pending_images} pictures are deleted once the image store is well")
    if not receipt.scrubbed:
        typer.echo("the database's log still holds the rows until its readers let go")


def _nobody(user: str, tenant: str) -> ValueError:
    return ValueError(f"tenant {tenant} has no user {user}")
