"""`ppd adapters`: which adapters are served, and to whom, changed while the service runs."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from service.cli.terminal import DataDir, in_parts, operator
from service.core.proof.serving import Serving
from service.infra.adapters import AdapterCopies, keep
from service.infra.parts import Parts
from service.infra.sql.repositories.adapters import misfit
from service.infra.sql.tables import Adapter
from service.settings import Settings, read
from service.wiring import SILENT_TIMES

adapters = typer.Typer(no_args_is_help=True, help="Adapters: put one into service, or go back.")

TO_A_SHARE = "serves {share} of the people, the same ones as long as it does"
FROM_NOW_ON = (
    "serves every request from now on, except in processes that were started with PPD_ADAPTER"
)


@adapters.command()
def add(
    file: Annotated[Path, typer.Argument(help="An adapter's file.")], data_dir: DataDir = None
) -> None:
    """Keep an adapter where every worker finds it, without serving it yet."""
    row = in_parts(data_dir, lambda settings, parts: _add(settings, parts, file))
    typer.echo(f"adapter {row.version} for {row.base_model} and {row.encoder_id} is kept")


@adapters.command()
def activate(
    adapter: Annotated[str, typer.Argument(help="A file, or a version that `list` shows.")],
    share: Annotated[
        float | None,
        typer.Option(help="Serve it to this part of people only, between 0 and 1, as a trial."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Serve this adapter from the next request on; one that does not fit is refused.

    Jobs that are waiting or running keep the adapter that they came with. With --share the others
    stay with the adapter in service, and `ppd wins` says which is better: then activate the trial
    without --share, or `withdraw` it.
    """
    if share is not None and not 0 < share < 1:
        raise ValueError(f"--share {share}: expected a number between 0 and 1")

    async def work(settings: Settings, parts: Parts) -> Adapter:
        async with parts.database.read() as store:
            row = await store.adapters.get(adapter)
        if row is None:
            row = await _add(settings, parts, Path(adapter))
        else:
            _refuse_other_models(settings, row)
        async with parts.database.write() as store:
            if not await store.adapters.activate(row.version, share):
                raise ValueError(f"adapter {row.version} was removed meanwhile")
            of = f"adapter:{row.version}"
            if share is None:
                await store.audit.note(operator(), "adapter.activated", of)
            else:
                await store.audit.note(operator(), "adapter.shared", of, share=share)
        return row

    row = in_parts(data_dir, work)
    settings = _say_override(data_dir)
    now = FROM_NOW_ON if share is None else TO_A_SHARE.format(share=f"{share:.4g}")
    typer.echo(f"adapter {row.version} for {row.base_model} and {row.encoder_id} {now}")
    if share is not None and settings.adapters_in_memory < 2:
        typer.echo("PPD_ADAPTERS_IN_MEMORY=1: with two it is not read anew as jobs alternate")


@adapters.command()
def withdraw(data_dir: DataDir = None) -> None:
    """End a trial: everybody is served the first adapter from the next request on."""

    async def work(settings: Settings, parts: Parts) -> str:
        async with parts.database.write() as store:
            trial = await store.adapters.withdraw()
            if trial is None:
                raise ValueError("no adapter serves a share of people")
            await store.audit.note(operator(), "adapter.withdrawn", f"adapter:{trial}")
        return trial

    typer.echo(f"adapter {in_parts(data_dir, work)} serves nobody from now on")


@adapters.command()
def rollback(data_dir: DataDir = None) -> None:
    """Serve what was served before; done again, what was before that."""

    async def work(settings: Settings, parts: Parts) -> str:
        async with parts.database.write() as store:
            back = await store.adapters.rollback()
            if back is None:
                raise ValueError("there is no earlier adapter to go back to")
            for version in back.versions:
                row = await store.adapters.get(version)
                if row is not None:
                    _refuse_other_models(settings, row)
            of = f"adapter:{back.first or 'shipped'}"
            await store.audit.note(operator(), "adapter.rolled_back", of, **back.told)
        first = "the shipped adapter" if back.first is None else f"adapter {back.first}"
        if back.trial is None:
            return f"{first} {FROM_NOW_ON}"
        share = f"adapter {back.trial} {TO_A_SHARE.format(share=f'{back.share:.4g}')}"
        return f"{first} {FROM_NOW_ON}\n{share}"

    back = in_parts(data_dir, work)
    _say_override(data_dir)
    typer.echo(back)


@adapters.command()
def deactivate(data_dir: DataDir = None) -> None:
    """Serve everybody the shipped adapter from the next request on."""

    async def work(settings: Settings, parts: Parts) -> None:
        async with parts.database.write() as store:
            if not await store.adapters.deactivate():
                raise ValueError("the shipped adapter is the one in service")
            await store.audit.note(operator(), "adapter.deactivated", "adapter:shipped")

    in_parts(data_dir, work)
    _say_override(data_dir)
    typer.echo(f"the shipped adapter {FROM_NOW_ON}")


@adapters.command()
def remove(
    version: Annotated[str, typer.Argument(help="A version that `list` shows.")],
    data_dir: DataDir = None,
) -> None:
    """Forget an adapter; refused while it is in service or a waiting job needs it."""

    async def work(settings: Settings, parts: Parts) -> None:
        async with parts.database.write() as store:
            key = await store.adapters.remove(version)
            await store.audit.note(operator(), "adapter.removed", f"adapter:{version}")
        await parts.images.delete([key])
        await AdapterCopies(settings.adapters_dir, parts.images).forget(version)

    in_parts(data_dir, work)
    typer.echo(f"adapter {version} is removed")


@adapters.command("list")
def list_adapters(data_dir: DataDir = None) -> None:
    """Show the adapters that are kept, which one is in service, and a trial's share of people."""

    async def work(settings: Settings, parts: Parts) -> list[str]:
        async with parts.database.read() as store:
            serving, rows = await store.adapters.serving(), await store.adapters.all()
        shown: list[tuple[str, str | None, str]] = [("shipped     ", None, "with the weights")]
        shown += [
            (
                row.version,
                row.version,
                f"{row.created_at:%Y-%m-%d %H:%M}  {row.size_bytes / 1e6:.1f} MB  "
                f"{row.base_model}  {row.encoder_id}",
            )
            for row in rows
        ]
        return [f"{name}  {_state(serving, it):<12}  {facts}" for name, it, facts in shown]

    lines = in_parts(data_dir, work)
    _say_override(data_dir)
    for line in lines:
        typer.echo(line)


def _state(serving: Serving, version: str | None) -> str:
    if version == serving.first:
        return "active"
    share = serving.share_of(version)
    return f"trial {share:.4g}" if share else ""


async def _add(settings: Settings, parts: Parts, file: Path) -> Adapter:
    """Check a file against the models of these settings, and keep it."""
    from service.worker.model_runtime import check_adapter

    base_model, encoder_id = _served_ids(settings)
    check_adapter(file, settings.preset, base_model, encoder_id)
    data = await asyncio.to_thread(file.read_bytes)
    row = await keep(
        parts.database, parts.images, data, base_model=base_model, encoder_id=encoder_id
    )
    async with parts.database.write() as store:
        await store.audit.note(operator(), "adapter.kept", f"adapter:{row.version}")
    return row


def _refuse_other_models(settings: Settings, row: Adapter) -> None:
    """Raises ValueError with both ids for an adapter of another base model or encoder."""
    why = misfit(row, *_served_ids(settings))
    if why is not None:
        raise ValueError(why)


def _served_ids(settings: Settings) -> tuple[str, str]:
    """The base model and the encoder that are served with these settings."""
    from service.worker.model_runtime import served_ids

    return served_ids(
        settings.preset,
        settings.weights_dir,
        encoder_place=settings.encoder_place,
        prompt_variant=settings.prompt_variant,
        decoding=settings.decoding,
    )


def _say_override(data_dir: Path | None) -> Settings:
    """Who goes on with another adapter: whoever is started with this setting, and was."""
    settings = read(data_dir=data_dir)
    if settings.adapter is not None:
        typer.echo(
            f"PPD_ADAPTER={settings.adapter} is served with this setting, whatever is activated"
        )

    async def running(settings: Settings, parts: Parts) -> list[str]:
        async with parts.database.read() as store:
            seen = await store.workers.seen(SILENT_TIMES * settings.worker_seen_every_s)
        return [row.adapter_version or "another one" for row in seen if row.adapter_overrides]

    for version in sorted(set(in_parts(data_dir, running))):
        typer.echo(f"a worker was started with PPD_ADAPTER and goes on with adapter {version}")
    return settings
