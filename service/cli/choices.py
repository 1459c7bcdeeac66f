"""`ppd choices`: the answers that people contribute for training."""

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from service.cli.terminal import DataDir, in_parts, operator
from service.wiring import sole_user_of

choices = typer.Typer(no_args_is_help=True, help="Answers that people contribute for training.")


@choices.callback()
def _choices() -> None:
    """Keep `export` a command of its own name."""


@choices.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or an earlier one.")],
    data_dir: DataDir = None,
) -> None:
    """Write the answers of people who contribute, in Pick-a-Pic's columns, for training.

    People have random numbers. Run again on the same folder, it brings that up to date: who
    withdrew or was erased is gone, and named by that number in gone.csv. One that was interrupted
    goes on.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError("pyarrow is not installed here: install the extra `export`")
    from service.actions.contributing.exporting import export_choices

    with sole_user_of(folder, "export"):
        told = in_parts(
            data_dir,
            lambda _, parts: export_choices(
                parts, folder, operator(), told=lambda line: typer.echo(line, err=True)
            ),
        )
    typer.echo(
        f"export {told.export}: {told.answers} answers ({told.ties} ties) of {told.people} people"
        f" in {told.files} files, {told.files_written} of them written now"
    )
    typer.echo(f"gone since the last: {told.people_gone} people, {told.answers_gone} other answers")
    if told.pair_not_in_pool or told.picture_lost:
        typer.echo(
            f"left out: {told.pair_not_in_pool} answers to pairs that the pool no longer has, "
            f"{told.picture_lost} of which a picture is lost"
        )
