"""Artifacts come back as they were saved, and a wrong file is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ppd_model.files.artifact import (
    ArtifactError,
    ArtifactSpec,
    load_artifact,
    load_strict,
    save_artifact,
    sha256_of,
    verify_manifest,
    write_manifest,
)

SPEC = ArtifactSpec("adapter", {"width": 3}, "base-1", {"encoder_id": "encoder-1"})


@pytest.fixture
def module() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.fixture
def artifact(tmp_path: Path, module: nn.Module) -> Path:
    path = tmp_path / "adapter.safetensors"
    save_artifact(path, module.state_dict(), SPEC)
    return path


def test_tensors_and_spec_come_back(artifact: Path, module: nn.Module) -> None:
    tensors, spec = load_artifact(artifact, kind="adapter", sha256=sha256_of(artifact))
    assert spec == SPEC
    fresh = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    load_strict(fresh, tensors)
    for name, value in module.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value)


def test_equal_weights_and_specs_make_equal_files(tmp_path: Path, module: nn.Module) -> None:
    spec = ArtifactSpec("adapter", {"name": 'é "quoted" \n'}, "base-1", {"b": "2", "a": "1"})
    digests = {
        save_artifact(tmp_path / f"{number}.safetensors", module.state_dict(), spec)
        for number in range(12)
    }
    assert len(digests) == 1
    tensors, found = load_artifact(tmp_path / "0.safetensors", kind="adapter")
    assert found == spec
    load_strict(module, tensors)


def test_saving_names_the_files_own_hash_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "new" / "part.safetensors"
    digest = save_artifact(path, {"w": torch.ones(2)}, SPEC)
    assert digest == sha256_of(path)
    assert [p.name for p in path.parent.iterdir()] == ["part.safetensors"]


def test_weights_stored_in_half_precision_load_into_single(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    steps = torch.tensor([7])
    save_artifact(path, {"w": torch.tensor([1 / 3]), "steps": steps}, SPEC, dtype=torch.float16)
    tensors, _ = load_artifact(path, kind="adapter")
    assert tensors["w"].dtype == torch.float16
    assert tensors["steps"].dtype == torch.int64
    module = nn.Module()
    module.w = nn.Parameter(torch.zeros(1))
    module.register_buffer("steps", torch.zeros(1, dtype=torch.int64))
    load_strict(module, tensors)
    assert module.w.dtype == torch.float32
    assert module.w.item() == pytest.approx(1 / 3, abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_neither_saved_nor_loaded(tmp_path: Path, value: float) -> None:
    path = tmp_path / "bad.safetensors"
    with pytest.raises(ArtifactError, match="w holds NaN or infinity"):
        save_artifact(path, {"w": torch.tensor([value])}, SPEC)
    assert not path.exists()
    header = {"format": "ppd-artifact-1", "spec": json.dumps(vars(SPEC))}
    save_file({"w": torch.tensor([value])}, path, metadata=header)
    with pytest.raises(ArtifactError, match="w holds NaN or infinity"):
        load_artifact(path, kind="adapter")


def test_a_value_that_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="w holds NaN or infinity"):
        save_artifact(tmp_path / "x", {"w": torch.tensor([1e6])}, SPEC, dtype=torch.float16)


def test_nothing_is_not_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nothing to save"):
        save_artifact(tmp_path / "x", {}, SPEC)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no stage_c weights at .*gone\.safetensors"):
        load_artifact(tmp_path / "gone.safetensors", kind="stage_c")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_an_empty_or_truncated_file_is_refused(artifact: Path, keep: int) -> None:
    artifact.write_bytes(artifact.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match="not a readable safetensors file"):
        load_artifact(artifact, kind="adapter")


def test_a_flipped_data_byte_is_refused_by_its_hash(artifact: Path) -> None:
    expected = sha256_of(artifact)
    content = bytearray(artifact.read_bytes())
    content[-1] ^= 1
    artifact.write_bytes(content)
    found = sha256_of(artifact)
    load_artifact(artifact, kind="adapter")  # safetensors alone does not notice
    with pytest.raises(ArtifactError, match=f"sha256 is '{found}', expected '{expected}'"):
        load_artifact(artifact, kind="adapter", sha256=expected)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"kind": "stage_c"}, "kind is 'adapter', expected 'stage_c'"),
        (
            {"kind": "adapter", "base_model": "base-2"},
            "base model is 'base-1', expected 'base-2'",
        ),
        (
            {"kind": "adapter", "encoder_id": "encoder-2"},
            "user encoder is 'encoder-1', expected 'encoder-2'",
        ),
    ],
)
def test_an_artifact_of_something_else_is_refused_with_both_ids(
    artifact: Path, asked: dict[str, str], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        load_artifact(artifact, **asked)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "format is 'none'"),
        ({"format": "ppd-artifact-0"}, "format is 'ppd-artifact-0'"),
        ({"format": "ppd-artifact-1"}, "no readable spec"),
        ({"format": "ppd-artifact-1", "spec": "{"}, "no readable spec"),
        ({"format": "ppd-artifact-1", "spec": '{"kind": "adapter"}'}, "no readable spec"),
        ({"format": "ppd-artifact-1", "spec": "[]"}, "no readable spec"),
    ],
)
def test_a_file_without_our_header_is_refused(
    tmp_path: Path, metadata: dict[str, str] | None, message: str
) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"w": torch.ones(1)}, path, metadata=metadata)
    with pytest.raises(ArtifactError, match=message):
        load_artifact(path, kind="adapter")


def test_a_missing_and_an_unknown_key_are_refused_by_name(module: nn.Module) -> None:
    tensors = module.state_dict()
    with pytest.raises(ArtifactError, match=r"1 keys unknown \['2.weight'\]"):
        load_strict(module, {**tensors, "2.weight": torch.ones(1)})
    del tensors["0.bias"]
    with pytest.raises(ArtifactError, match=r"1 keys missing \['0.bias'\]"):
        load_strict(module, tensors)


def test_no_keys_on_either_side_is_not_a_match() -> None:
    with pytest.raises(ArtifactError, match="no weights to load"):
        load_strict(nn.ReLU(), {})


def test_another_shape_is_refused_with_both_shapes(module: nn.Module) -> None:
    tensors = {**module.state_dict(), "0.bias": torch.ones(5)}
    with pytest.raises(ArtifactError, match=r"0.bias has shape \(5,\), expected \(4,\)"):
        load_strict(module, tensors)


def test_a_refused_file_leaves_the_module_as_it_was(module: nn.Module) -> None:
    before = {name: value.clone() for name, value in module.state_dict().items()}
    bad = {name: torch.ones_like(value) for name, value in before.items()}
    bad["0.weight"][0, 0] = float("nan")
    with pytest.raises(ArtifactError, match="NaN"):
        load_strict(module, bad)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())


def test_a_manifest_names_every_file_and_its_hash(artifact: Path) -> None:
    (artifact.parent / "tokenizer.json").write_text("{}", encoding="utf-8")
    (artifact.parent / "README.md").write_text("a model card", encoding="utf-8")
    written = write_manifest(artifact.parent)
    assert written.keys() == {"adapter.safetensors", "tokenizer.json"}
    assert verify_manifest(artifact.parent) == written


def test_a_folder_without_a_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no weights at .*manifest\.json does not exist"):
        verify_manifest(tmp_path)
    with pytest.raises(ArtifactError, match="no artifacts to list"):
        write_manifest(tmp_path)


def test_a_folder_that_is_not_what_its_manifest_says_is_refused(artifact: Path) -> None:
    folder = artifact.parent
    write_manifest(folder)
    content = artifact.read_bytes()

    artifact.write_bytes(content[:-1] + b"!")
    with pytest.raises(ArtifactError, match=r"adapter\.safetensors: sha256 is"):
        verify_manifest(folder)

    artifact.unlink()
    with pytest.raises(ArtifactError, match=r"adapter\.safetensors is listed .* and missing"):
        verify_manifest(folder)

    artifact.write_bytes(content)
    (folder / "other.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"does not list: \['other.safetensors'\]"):
        verify_manifest(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sha256": []}'])
def test_a_damaged_manifest_is_refused(artifact: Path, text: str) -> None:
    (artifact.parent / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match="not a manifest"):
        verify_manifest(artifact.parent)
