"""`ppd images`: what lies in the image store."""

from datetime import timedelta
from typing import Annotated

import typer

from service.actions.leftovers import sweep_orphans
from service.cli.terminal import DataDir, in_parts
from service.infra.sql.tables import now

images = typer.Typer(no_args_is_help=True, help="Pictures in the folder or the bucket.")


@images.callback()
def _images() -> None:
    """Keep `sweep` a command of its own name."""


@images.command()
def sweep(
    older_than_hours: Annotated[
        int, typer.Option(min=1, help="Younger ones may be of a job that has not ended.")
    ] = 24,
    data_dir: DataDir = None,
) -> None:
    """Delete pictures that no row points to. A running service does this once a day by itself."""
    before = now() - timedelta(hours=older_than_hours)
    removed = in_parts(data_dir, lambda _, parts: sweep_orphans(parts, before))
    typer.echo(f"{removed} pictures removed")
