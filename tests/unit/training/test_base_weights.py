"""Training on a base as it was published, at tiny size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ppd_model.files.artifact import ArtifactError
from tests.tiny_published import modules, tiny_preset
from tests.tiny_training import log_of, tiny_config, tiny_parts, write_world
from training.dpo.base_weights import load_base
from training.train_dpo import train

PRESET = tiny_preset()
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _published() -> Iterator[None]:
    with tiny_parts(PRESET):
        yield


def write_prior(folder: Path) -> Path:
    part = PRESET.published["stage_c"]
    target = folder / part.repository.split("/")[-1] / part.folder
    modules(PRESET)["stage_c"].save_pretrained(target)
    (weights,) = target.glob("*.safetensors")
    return weights


def test_an_adapter_trains_on_a_published_base_in_bf16(tmp_path: Path) -> None:
    write_world(tmp_path, PRESET)
    write_prior(tmp_path / "models")
    options: dict[str, object] = dict(stage_c=tmp_path / "models", base_dtype="bf16", lr=1e-2)
    run = tiny_config(tmp_path, tmp_path / "run", gradient_checkpointing=True, **options)
    trained = load_file(train(run))
    assert {value.dtype for value in trained.values()} == {torch.float32}
    assert all(bool((trained[f"to_v.{block}.weight"] != 0).any()) for block in range(6))
    assert [record["step"] for record in log_of(tmp_path / "run")] == [1, 2, 3]


def test_other_weights_have_another_sha256_and_a_missing_key_is_named(tmp_path: Path) -> None:
    path = write_prior(tmp_path)
    stage_c, digest = load_base(PRESET, tmp_path, torch.bfloat16, CPU)
    assert {p.dtype for p in stage_c.unet.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in stage_c.adapter.parameters()} == {torch.float32}
    tensors = load_file(path)
    tensors["clf.1.bias"] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    assert load_base(PRESET, tmp_path, torch.bfloat16, CPU)[1] != digest
    del tensors["clf.1.bias"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"clf\.1\.bias"):
        load_base(PRESET, tmp_path, torch.bfloat16, CPU)
    with pytest.raises(FileNotFoundError, match="ppd models pull"):
        load_base(PRESET, tmp_path / "elsewhere", torch.bfloat16, CPU)
