"""`ppd audit`: who did what to which object, and when."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TextIO

import typer

from service.cli.terminal import DataDir, in_parts
from service.infra.parts import Parts

audit = typer.Typer(no_args_is_help=True, help="The audit record.")

_BATCH = 1000


@audit.callback()
def _audit() -> None:
    """Keep `export` a command of its own name."""


@audit.command()
def export(
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="In UTC.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A new file; the default is the screen.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Write the record as JSON Lines, oldest first: at, who, what, object, tenant, detail."""
    at = None if since is None else since.replace(tzinfo=UTC)

    async def write(parts: Parts, to: TextIO) -> None:
        last = 0
        while True:
            async with parts.database.read() as store:
                entries = await store.audit.since(at, last, _BATCH)
            for entry in entries:
                told = entry.columns("who", "what", "object", "tenant", "detail")
                to.write(json.dumps({"at": entry.at.isoformat(), **told}) + "\n")
                last = entry.pk
            if len(entries) < _BATCH:
                return

    if out is None:
        in_parts(data_dir, lambda _, parts: write(parts, sys.stdout))
        return
    with out.open("x", encoding="utf-8") as file:
        out.chmod(0o600)
        in_parts(data_dir, lambda _, parts: write(parts, file))
