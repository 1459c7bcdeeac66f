"""`ppd reports`: pictures that people reported, and an operator's decision."""

from typing import Annotated, Literal

import typer

from service.actions import moderating
from service.cli.terminal import DataDir, in_database, in_parts, operator
from service.core.errors import ServiceError
from service.infra.parts import Parts
from service.infra.sql.store import Store
from service.infra.sql.tables import Report
from service.settings import Settings

reports = typer.Typer(no_args_is_help=True, help="Reports of pictures: see them, decide on them.")

Status = Literal["open", "dismissed", "taken_down"]


@reports.command("list")
def list_reports(
    status: Annotated[Status | None, typer.Option(help="Only those in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    data_dir: DataDir = None,
) -> None:
    """Show reports, newest first: id, state, time, tenant, picture, who, why."""

    async def lines(store: Store) -> list[str]:
        return [_line(report) for report in await store.reports.page(status, None, limit)]

    for line in in_database(data_dir, lines):
        typer.echo(line)


@reports.command()
def takedown(
    picture: Annotated[str, typer.Argument(help="A picture's id, or that of a report of it.")],
    data_dir: DataDir = None,
) -> None:
    """Take a picture away for good, bytes too, whether it was reported or not."""

    async def work(_: Settings, parts: Parts) -> None:
        async with parts.database.write() as store:
            report = await store.reports.get(picture)
            image_id = picture if report is None else report.image_id
            keys = await moderating.take_down(store, image_id, operator())
        if not keys:
            raise ValueError(f"there is no picture {image_id}")
        await moderating.settle(parts, keys)

    in_parts(data_dir, work)
    typer.echo("taken down")


@reports.command()
def dismiss(
    report_id: Annotated[str, typer.Argument(help="The id that `list` shows.")],
    data_dir: DataDir = None,
) -> None:
    """Let the picture stay."""

    async def work(store: Store) -> None:
        try:
            await moderating.dismiss(store, report_id, operator())
        except ServiceError as error:
            raise ValueError(error.detail) from error

    in_database(data_dir, work)
    typer.echo("dismissed")


def _line(report: Report) -> str:
    # In ASCII: what a stranger wrote must not steer the terminal.
    return (
        f"{report.id}  {report.status:<10} {report.created_at:%Y-%m-%d %H:%M}  {report.tenant:<16} "
        f"{report.image_id}  {report.reported_by}  {report.reason!a}"
    )
