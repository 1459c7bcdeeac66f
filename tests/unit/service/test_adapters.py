"""Adapters are put into service by content, and one that does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ppd_model.checkpoint import load_artifact, save_artifact
from ppd_model.pipeline import MINI_WEIGHTS_DIR
from service.cli import app
from service.infra.adapters import AdapterFolder, file_sha256
from service.settings import Settings
from service.worker.engine import PpdRuntime

SHIPPED = MINI_WEIGHTS_DIR / "adapter.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> AdapterFolder:
    return AdapterFolder(tmp_path / "adapters")


def a_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_without_any_the_shipped_adapter_is_served(folder: AdapterFolder) -> None:
    assert folder.active() is None
    assert folder.kept() == []
    assert not folder.deactivate()


def test_an_earlier_adapter_can_be_put_back(folder: AdapterFolder, tmp_path: Path) -> None:
    first = folder.activate(a_file(tmp_path / "a", b"first"))
    second = folder.activate(a_file(tmp_path / "b", b"second"))
    assert folder.active() == folder.find(second)
    earlier = folder.find(first)
    assert earlier is not None
    assert folder.activate(earlier) == first
    assert {one.version: one.active for one in folder.kept()} == {first: True, second: False}
    assert folder.deactivate()
    assert folder.active() is None


def test_the_file_that_was_activated_is_kept_and_checked(
    folder: AdapterFolder, tmp_path: Path
) -> None:
    source = a_file(tmp_path / "a", b"first")
    folder.activate(source)
    source.unlink()
    kept = folder.active()
    assert kept is not None
    kept.write_bytes(b"changed")
    with pytest.raises(ValueError, match=r"has sha256 .* was activated"):
        folder.active()
    kept.unlink()
    with pytest.raises(ValueError, match="is missing"):
        folder.active()


def test_a_pointer_that_cannot_be_read_is_an_error(folder: AdapterFolder, tmp_path: Path) -> None:
    folder.activate(a_file(tmp_path / "a", b"first"))
    (tmp_path / "adapters" / "active.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        folder.active()


def ppd(tmp_path: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["adapters", *arguments, "--data-dir", str(tmp_path)])
    return result.exit_code, result.output


def test_the_command_activates_lists_and_goes_back(tmp_path: Path) -> None:
    version = file_sha256(SHIPPED)[:12]
    code, said = ppd(tmp_path, "activate", str(SHIPPED))
    assert code == 0, said
    assert version in said
    assert AdapterFolder(tmp_path / "adapters").active() is not None
    assert f"{version}  active" in ppd(tmp_path, "list")[1]
    assert ppd(tmp_path, "deactivate")[0] == 0
    assert ppd(tmp_path, "activate", version)[0] == 0
    assert ppd(tmp_path, "deactivate")[0] == 0
    assert ppd(tmp_path, "deactivate") == (1, "the shipped adapter is the one in service\n")


def test_what_does_not_fit_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    tensors, spec = load_artifact(SHIPPED, kind="adapter")
    other = tmp_path / "other.safetensors"
    save_artifact(other, tensors, spec.__class__(spec.kind, spec.config, spec.base_model, {}))
    code, said = ppd(tmp_path, "activate", str(other))
    assert code == 1
    assert "user encoder" in said
    assert spec.extra["encoder_id"] in said
    code, said = ppd(tmp_path, "activate", str(MINI_WEIGHTS_DIR / "stage_a.safetensors"))
    assert code == 1
    assert "kind" in said
    narrow = {name: value[:1] for name, value in tensors.items()}
    save_artifact(other, narrow, spec)
    assert ppd(tmp_path, "activate", str(other))[0] == 1
    assert ppd(tmp_path, "activate", str(tmp_path / "nothing"))[0] == 1
    assert not (tmp_path / "adapters").exists()


def test_the_service_answers_with_the_adapter_it_was_given(tmp_path: Path) -> None:
    tensors, spec = load_artifact(SHIPPED, kind="adapter")
    other = tmp_path / "other.safetensors"
    digest = save_artifact(other, {name: value * 0.5 for name, value in tensors.items()}, spec)
    settings = Settings(data_dir=tmp_path)
    runtime = PpdRuntime(
        settings.preset,
        None,
        prompt_variant=settings.prompt_variant,
        decoding=settings.decoding,
        threads=1,
        adapter=other,
    )
    assert runtime.load().adapter_version == digest[:12]
