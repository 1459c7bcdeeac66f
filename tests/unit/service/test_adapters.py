"""Adapters are put into service by command, alternate bit for bit, and are refused if unfit."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ppd_model.files.artifact import ArtifactSpec, load_artifact, save_artifact, sha256_of
from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.types import ImageRequest
from service.cli.commands import app
from service.cli.terminal import in_database
from service.core.errors import JobFailure
from service.core.ports import AdapterFile
from service.infra.adapters import file_sha256
from service.infra.sql import migrate
from service.infra.sql.database import Database
from service.infra.sql.store import Store
from service.infra.sql.tables import WorkerRow
from service.settings import Settings
from service.worker.model_runtime import PpdRuntime

SHIPPED = MINI_WEIGHTS_DIR / "adapter.safetensors"
SHIPPED_VERSION = file_sha256(SHIPPED)[:12]


def scaled(path: Path, factor: float, encoder_id: str | None = None) -> Path:
    """The shipped adapter with all weights times `factor`."""
    tensors, spec = load_artifact(SHIPPED, kind="adapter")
    extra = spec.extra if encoder_id is None else {**spec.extra, "encoder_id": encoder_id}
    save_artifact(
        path,
        {name: value * factor for name, value in tensors.items()},
        ArtifactSpec(spec.kind, spec.config, spec.base_model, extra),
    )
    return path


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """The data folder of a service that has been there."""
    migrate.upgrade(f"sqlite:///{tmp_path / 'ppd.db'}")
    return tmp_path


def ppd(data_dir: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["adapters", *arguments, "--data-dir", str(data_dir)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def active(data_dir: Path) -> str | None:
    async def look() -> str | None:
        database = Database(Settings(data_dir=data_dir).database)
        async with database.read() as store:
            found = (await store.adapters.serving()).first
        await database.close()
        return found

    return asyncio.run(look())


# The command


def test_the_command_activates_lists_goes_back_and_removes(tmp_path: Path) -> None:
    half = scaled(tmp_path / "half.safetensors", 0.5)
    version = sha256_of(half)[:12]
    code, said = ppd(tmp_path, "activate", str(SHIPPED))
    assert (code, active(tmp_path)) == (0, SHIPPED_VERSION), said
    assert SHIPPED_VERSION in said
    code, said = ppd(tmp_path, "add", str(half))
    assert (code, active(tmp_path)) == (0, SHIPPED_VERSION), said
    assert ppd(tmp_path, "activate", version)[0] == 0
    lines = ppd(tmp_path, "list")[1].splitlines()
    assert [(line.split()[0], "active" in line) for line in lines] == [
        ("shipped", False),
        (SHIPPED_VERSION, False),
        (version, True),
    ]
    assert ppd(tmp_path, "remove", version)[0] == 1
    assert ppd(tmp_path, "rollback")[0] == 0
    assert active(tmp_path) == SHIPPED_VERSION
    code, said = ppd(tmp_path, "remove", version)
    assert code == 0, said
    assert version not in ppd(tmp_path, "list")[1]
    assert ppd(tmp_path, "deactivate")[0] == 0
    assert ppd(tmp_path, "deactivate") == (1, "the shipped adapter is the one in service\n")
    assert ppd(tmp_path, "rollback")[0] == 0
    assert active(tmp_path) == SHIPPED_VERSION
    assert ppd(tmp_path, "rollback")[0] == 0
    assert active(tmp_path) is None
    assert ppd(tmp_path, "rollback") == (1, "there is no earlier adapter to go back to\n")


def test_the_command_serves_a_share_and_withdraws_it(tmp_path: Path) -> None:
    half = scaled(tmp_path / "half.safetensors", 0.5)
    version = sha256_of(half)[:12]
    for wrong in ("0", "1", "1.5", "nan"):
        assert ppd(tmp_path, "activate", str(half), "--share", wrong)[0] == 1
    code, said = ppd(tmp_path, "activate", str(half), "--share", "0.2")
    assert (code, active(tmp_path)) == (0, None), said
    assert "serves 0.2 of the people" in said
    shipped, trial = ppd(tmp_path, "list")[1].splitlines()
    assert shipped.split()[:2] == ["shipped", "active"]
    assert trial.split()[:3] == [version, "trial", "0.2"]
    assert ppd(tmp_path, "remove", version)[0] == 1
    assert ppd(tmp_path, "withdraw") == (0, f"adapter {version} serves nobody from now on\n")
    assert ppd(tmp_path, "withdraw") == (1, "no adapter serves a share of people\n")
    assert f"adapter {version} serves 0.2 of the people" in ppd(tmp_path, "rollback")[1]
    assert ppd(tmp_path, "activate", version)[0] == 0
    assert active(tmp_path) == version
    assert ppd(tmp_path, "activate", version, "--share", "0.2")[0] == 1


def test_what_does_not_fit_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    tensors, spec = load_artifact(SHIPPED, kind="adapter")
    other = scaled(tmp_path / "other.safetensors", 1.0, encoder_id="encoder-9")
    code, said = ppd(tmp_path, "activate", str(other))
    assert code == 1
    assert "user encoder" in said
    assert spec.extra["encoder_id"] in said
    assert "encoder-9" in said
    code, said = ppd(tmp_path, "activate", str(MINI_WEIGHTS_DIR / "stage_a.safetensors"))
    assert code == 1
    assert "kind" in said
    save_artifact(other, {name: value[:1] for name, value in tensors.items()}, spec)
    assert ppd(tmp_path, "activate", str(other))[0] == 1
    assert ppd(tmp_path, "add", str(tmp_path / "nothing"))[0] == 1
    assert not (tmp_path / "images").exists()
    assert active(tmp_path) is None


def test_a_kept_adapter_of_an_earlier_encoder_is_refused_with_both_ids(tmp_path: Path) -> None:
    _, spec = load_artifact(SHIPPED, kind="adapter")
    half = scaled(tmp_path / "half.safetensors", 0.5)
    ppd(tmp_path, "activate", str(half))
    ppd(tmp_path, "activate", str(SHIPPED))
    version = sha256_of(half)[:12]

    async def kept_for_another(store: Store) -> None:
        row = await store.adapters.get(version)
        assert row is not None
        row.encoder_id = "encoder-9"

    in_database(tmp_path, kept_for_another)
    for command in (("activate", version), ("rollback",)):
        code, said = ppd(tmp_path, *command)
        assert code == 1
        assert "encoder-9" in said
        assert spec.extra["encoder_id"] in said
        assert "restart" in said
        assert active(tmp_path) == SHIPPED_VERSION


def test_an_adapter_of_the_settings_is_said_to_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPD_ADAPTER", str(SHIPPED))
    assert f"PPD_ADAPTER={SHIPPED} is served" in ppd(tmp_path, "list")[1]
    monkeypatch.delenv("PPD_ADAPTER")
    assert "PPD_ADAPTER" not in ppd(tmp_path, "list")[1]


def test_activating_promises_nothing_of_processes_started_with_an_adapter_of_their_own(
    tmp_path: Path,
) -> None:
    said = ppd(tmp_path, "activate", str(SHIPPED))[1]
    assert "except in processes that were started with PPD_ADAPTER" in " ".join(said.split())

    async def start_worker(store: Store) -> None:
        await store.workers.put(
            WorkerRow(id="w", kinds=["generate"], adapter_version="aaa", adapter_overrides=True)
        )

    in_database(tmp_path, start_worker)
    assert (
        "a worker was started with PPD_ADAPTER and goes on with adapter aaa"
        in (ppd(tmp_path, "list")[1])
    )


# The model


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, AdapterFile]:
    """The shipped adapter at two strengths, and one of another encoder."""
    folder = tmp_path_factory.mktemp("adapters")
    paths = {
        "half": scaled(folder / "half.safetensors", 0.5),
        "twice": scaled(folder / "twice.safetensors", 2.0),
        "foreign": scaled(folder / "foreign.safetensors", 1.0, encoder_id="encoder-9"),
    }
    return {
        name: AdapterFile(sha256_of(path)[:12], path, sha256_of(path))
        for name, path in paths.items()
    }


def a_runtime(**given: object) -> PpdRuntime:
    chosen = {"prompt_variant": "paper", "decoding": "greedy", "threads": 1, **given}
    return PpdRuntime("mini", None, encoder_place=None, **chosen)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def runtime() -> Iterator[PpdRuntime]:
    before = torch.get_num_threads()
    loaded = a_runtime(kept_adapters=1)
    loaded.load()
    yield loaded
    torch.set_num_threads(before)


SPEC = ImageRequest("a red boat", 1, np.ones(128, np.float32), 1.0, "", 2, 4.0, 128, 128)


def picture(runtime: PpdRuntime, spec: ImageRequest, adapter: AdapterFile | None = None) -> bytes:
    (made,) = runtime.generate(
        [spec], lambda *_: None, lambda: False, lambda _: None, adapter=adapter
    )
    return made.image_HWC.tobytes()


def test_jobs_of_several_adapters_alternate_as_if_each_were_alone(
    runtime: PpdRuntime, files: dict[str, AdapterFile]
) -> None:
    """With room for one adapter in memory, so each of the two makes way for the other."""
    alone = {None: picture(a_runtime_of(SHIPPED), SPEC)}
    for name in ("half", "twice"):
        alone[name] = picture(a_runtime_of(files[name].path), SPEC)
    assert len(set(alone.values())) == 3
    for name in ("half", "twice", None, "half", "half", None, "twice"):
        adapter = None if name is None else files[name]
        assert picture(runtime, SPEC, adapter) == alone[name], name


def a_runtime_of(path: Path) -> PpdRuntime:
    """A process that was started with this adapter and never had another."""
    started = a_runtime(adapter=path)
    versions = started.load()
    assert versions.adapter_version == sha256_of(path)[:12]
    assert versions.adapter_overrides
    return started


def test_without_a_user_or_strength_every_adapter_gives_the_base(
    runtime: PpdRuntime, files: dict[str, AdapterFile]
) -> None:
    nobody = replace(SPEC, user_emb_D=None)
    base = picture(runtime, nobody)
    for adapter in (files["twice"], files["half"], None):
        assert picture(runtime, nobody, adapter) == base
        assert picture(runtime, replace(SPEC, strength=0.0), adapter) == base


def test_a_kept_adapter_is_not_read_again_and_a_dropped_one_is_checked_again(
    files: dict[str, AdapterFile], tmp_path: Path
) -> None:
    runtime = a_runtime(kept_adapters=1)
    runtime.load()
    path = shutil.copyfile(files["half"].path, tmp_path / "half.safetensors")
    half = replace(files["half"], path=path)
    made = picture(runtime, SPEC, half)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert picture(runtime, SPEC, half) == made
    picture(runtime, SPEC, files["twice"])
    with pytest.raises(JobFailure, match="adapter_unavailable") as refused:
        picture(runtime, SPEC, half)
    assert "sha256" in refused.value.detail
    assert picture(runtime, SPEC, files["half"]) == made


def test_an_adapter_that_does_not_belong_here_fails_the_job_and_not_the_next(
    runtime: PpdRuntime, files: dict[str, AdapterFile]
) -> None:
    before = picture(runtime, SPEC)
    with pytest.raises(JobFailure, match="adapter_unavailable") as refused:
        picture(runtime, SPEC, files["foreign"])
    assert "encoder-9" in refused.value.detail
    assert picture(runtime, SPEC) == before
