"""`ppd wins`: what people's blind choices say of the adapters."""

from collections.abc import Sequence
from typing import Annotated

import typer

from service.cli.terminal import DataDir, in_parts
from service.core.proof.wins import MOST_EACH, AdapterWins, ShareWins, Tallies, Wins, WinsReport
from service.infra.parts import Parts
from service.settings import Settings

_HEAD = "adapter        won  lost  tied  inconsistent  people  observed  wins    interval"


def wins(
    each: Annotated[
        int,
        typer.Option(min=1, max=MOST_EACH, help="Decided choices of a person for an observation."),
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="As GET /admin/wins gives it.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show how often people preferred the picture in their taste to the base, asked blind.

    By adapter version, over people, with intervals that hold however often one looks; and of two
    adapters that were served side by side, which is better. Settle --each before the first look.
    """

    async def count(_: Settings, parts: Parts) -> Tallies:
        async with parts.database.read(snapshot=True) as store:
            return await store.blind_choices.tallied(each)

    report = in_parts(data_dir, count).report()
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
        return
    for line in _lines(report):
        typer.echo(line)


def _lines(report: WinsReport) -> Sequence[str]:
    if not report.results:
        return ["nobody has chosen blind yet between a picture in their taste and the base"]
    of_each = "first decided choice" if report.each == 1 else f"first {report.each} decided choices"
    head = f"wins over the base, of each person's {of_each}; {report.confidence:.0%} intervals"
    lines = [head, "", _HEAD, *(_adapter(one) for one in report.results)]
    return lines if report.share is None else [*lines, "", *_share(report.share)]


def _adapter(one: AdapterWins) -> str:
    counts = one.choices
    return (
        f"{one.adapter_version:<12} {counts.won:>5} {counts.lost:>5} {counts.tied:>5} "
        f"{counts.inconsistent:>13} {one.people:>7} {one.observed:>9}  {_estimate(one)}"
    )


def _share(share: ShareWins) -> Sequence[str]:
    first = "the shipped adapter" if share.first is None else share.first
    until = "now" if share.until is None else f"{share.until:%Y-%m-%d %H:%M}"
    lines = [
        f"{share.trial}, served to {share.share:.4g} of the people, against {first}, "
        f"{share.since:%Y-%m-%d %H:%M} until {until}",
        f"  trial  {share.of_trial.observed:>6} people  {_estimate(share.of_trial)}",
        f"  first  {share.of_first.observed:>6} people  {_estimate(share.of_first)}",
    ]
    if share.difference is None or share.interval is None:
        return [*lines, "  the difference is not known: of one of them nobody was observed yet"]
    low, high = share.interval
    verdict = {
        "trial": "the trial is better",
        "first": "the first is better",
        None: "neither is known to be better",
    }[share.better]
    return [*lines, f"  difference {share.difference:+.3f} [{low:+.3f}, {high:+.3f}]: {verdict}"]


def _estimate(one: Wins) -> str:
    if one.wins is None or one.interval is None:
        return "-"
    return f"{one.wins:.3f}  [{one.interval[0]:.3f}, {one.interval[1]:.3f}]"
