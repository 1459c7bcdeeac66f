"""What is pulled is one commit, written down; what is verified is what was pulled."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from ppd_model.files.artifact import ArtifactError, sha256_of
from ppd_model.files.hub import part_files
from ppd_model.files.lock import read_lock
from ppd_model.files.pull import pull
from ppd_model.files.repositories import locate
from ppd_model.presets import DECODER, PRIOR, VLM_7B, Preset, PublishedPart
from ppd_model.verify import verify_part
from service.cli import models as models_cli
from service.cli.commands import app
from tests.tiny_published import (
    COMMITS,
    FolderHub,
    edit_weights,
    modules,
    tiny_preset,
    weight_file,
    write_published,
)

BF16 = torch.bfloat16


@pytest.fixture(scope="module")
def preset() -> Preset:
    return tiny_preset()


@pytest.fixture(scope="module")
def on_the_hub(tmp_path_factory: pytest.TempPathFactory, preset: Preset) -> Path:
    """Both precisions and some that nobody asks for, as in the real repositories."""
    folder = tmp_path_factory.mktemp("hub")
    write_published(folder, preset)
    bf16 = tmp_path_factory.mktemp("bf16")
    write_published(bf16, preset, bf16=True, shard_size="20KB")
    for path in bf16.rglob("*bf16*"):
        shutil.copy(path, folder / path.relative_to(bf16))
    (folder / "stable-cascade-prior" / "LICENSE").write_text("non-commercial", encoding="utf-8")
    (folder / "stable-cascade" / "stage_b.safetensors").write_bytes(b"another layout")
    (folder / "stable-cascade-prior" / "prior").mkdir()
    (folder / "stable-cascade-prior" / "prior" / "config.json").write_text("{}", encoding="utf-8")
    return folder


@pytest.fixture
def hub(on_the_hub: Path) -> FolderHub:
    return FolderHub(on_the_hub, [])


def test_everything_is_fetched_at_one_commit_and_written_down(
    preset: Preset, hub: FolderHub, tmp_path: Path
) -> None:
    seen: list[str] = []
    lock = pull(preset, tmp_path, hub, on_file=lambda name, size: seen.append(name))
    assert lock == read_lock(tmp_path)
    assert {name: entry.commit for name, entry in lock.repositories.items()} == COMMITS
    prior = lock.repositories[PRIOR]
    assert prior.revision == "main"
    assert "LICENSE" in prior.files
    for name, file in prior.files.items():
        path = tmp_path / "stable-cascade-prior" / name
        assert (sha256_of(path), path.stat().st_size) == (file.sha256, file.size_bytes)
    assert "stable-cascade-prior/tokenizer/merges.txt" in seen
    shards = [name for name in seen if name.startswith("stable-cascade/decoder/diff")]
    assert len(shards) > 2
    assert all("bf16" in name for name in shards)
    assert "vqgan/diffusion_pytorch_model.safetensors" in hub.fetched  # runs in float32
    assert "stage_b.safetensors" not in hub.fetched
    assert not any(name.startswith("prior/") for name in hub.fetched)


def test_float32_fetches_the_plain_files(preset: Preset, hub: FolderHub, tmp_path: Path) -> None:
    pull(preset, tmp_path, hub, dtype=torch.float32)
    assert "prior_lite/diffusion_pytorch_model.safetensors" in hub.fetched
    assert not any("bf16" in name for name in hub.fetched)


def test_some_parts_first_and_others_later(preset: Preset, hub: FolderHub, tmp_path: Path) -> None:
    pull(preset, tmp_path, hub, parts=["vlm"])
    assert read_lock(tmp_path).repositories.keys() == {VLM_7B}
    pull(preset, tmp_path, hub, parts=["stage_a"])
    pull(preset, tmp_path, hub, parts=["compressor"])
    files = read_lock(tmp_path).repositories[DECODER].files
    assert "effnet_encoder.safetensors" in files
    assert "vqgan/config.json" in files
    for part in ("vlm", "stage_a", "compressor"):
        verify_part(preset, part, tmp_path, BF16)


def test_another_revision_is_asked_for_by_name(
    preset: Preset, hub: FolderHub, tmp_path: Path
) -> None:
    lock = pull(preset, tmp_path, hub, parts=["tokenizer"], revisions={PRIOR: "v1"})
    assert lock.repositories[PRIOR].revision == "v1"
    with pytest.raises(ValueError, match="uses no someone/else"):
        pull(preset, tmp_path, hub, revisions={"someone/else": "main"})


def test_what_cannot_be_pulled_is_refused_before_anything_is_fetched(
    preset: Preset, hub: FolderHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"no published parts \['stage_d'\]"):
        pull(preset, tmp_path, hub, parts=["stage_d"])
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("ppd_model.files.pull.shutil.disk_usage", lambda _: usage)
    with pytest.raises(ValueError, match=r"bytes to fetch, 1,000 free"):
        pull(preset, tmp_path, hub)
    assert hub.fetched == []


def test_a_repository_without_the_weights_is_named() -> None:
    part = PublishedPart("org/name", "decoder", "model")
    with pytest.raises(FileNotFoundError, match=r"org/name: none of model\.bf16\.safetensors"):
        part_files(["decoder/config.json", "model.safetensors"], part, BF16)
    files = ["decoder/model.safetensors", "decoder/config.json", "decoder/deep/config.json"]
    assert part_files(files, part, BF16) == ["decoder/config.json", "decoder/model.safetensors"]


class CacheHub(FolderHub):
    """Fetches into a cache of its own, one folder for each commit."""

    cache: Path

    def fetch(self, hub_id: str, revision: str, name: str, folder: Path | None) -> Path:
        assert folder is None
        assert revision == ("main" if hub_id == PRIOR else tiny_preset().revisions[hub_id])
        return super().fetch(hub_id, COMMITS[hub_id], name, self.cache / COMMITS[hub_id])


@pytest.mark.parametrize("part", ["stage_c", "compressor", "tokenizer"])
def test_without_a_folder_only_the_parts_files_are_fetched_into_the_cache(
    preset: Preset, on_the_hub: Path, tmp_path: Path, part: str
) -> None:
    hub = CacheHub(on_the_hub, [])
    hub.cache = tmp_path
    found = locate(preset, part, None, BF16, hub)
    where = preset.published[part]
    assert found.commit == COMMITS[where.repository]
    assert found.path == tmp_path / found.commit
    assert {path.parent for path in found.files(where, BF16)} == {found.path / where.folder}
    assert len(found.files(where, BF16)) == len(hub.fetched)


# Verifying


def test_every_part_is_verified_by_its_keys(preset: Preset, hub: FolderHub, tmp_path: Path) -> None:
    pull(preset, tmp_path, hub)
    for part, module in modules(preset).items():
        found = verify_part(preset, part, tmp_path, BF16)
        assert found.keys == len(module.state_dict())
        assert found.parameters == sum(v.numel() for v in module.state_dict().values())
        assert found.commit == COMMITS[preset.published[part].repository]
    assert verify_part(preset, "tokenizer", tmp_path, BF16).keys == 0
    assert verify_part(preset, "stage_a", hub.folder, BF16).commit == ""
    assert verify_part(preset, "vlm", tmp_path, BF16).keys > 30


@pytest.mark.parametrize("part", ["stage_c", "text_encoder", "compressor", "vlm"])
def test_a_misnamed_key_is_found_without_reading_contents(
    preset: Preset, on_the_hub: Path, tmp_path: Path, part: str
) -> None:
    folder = shutil.copytree(on_the_hub, tmp_path / "weights")
    path = weight_file(folder, preset, part)
    while "bf16" in path.name:
        path.unlink()
        path = weight_file(folder, preset, part)
    edit_weights(path, lambda tensors: tensors.update(new=tensors.popitem()[1]))
    with pytest.raises(ArtifactError, match=r"1 keys missing .* 1 keys unknown \['new'\]"):
        verify_part(preset, part, folder, torch.float32, hashes=False)


def test_a_vlm_of_another_width_is_no_vlm_of_this_preset(preset: Preset, on_the_hub: Path) -> None:
    wider = replace(preset, user_emb_dim=2 * preset.user_emb_dim)
    message = f"hidden size is {preset.user_emb_dim}, .* expects {wider.user_emb_dim}"
    with pytest.raises(ArtifactError, match=message):
        verify_part(wider, "vlm", on_the_hub, torch.float32)


def test_a_flipped_byte_is_found_by_its_hash(
    preset: Preset, hub: FolderHub, tmp_path: Path
) -> None:
    pull(preset, tmp_path, hub, dtype=torch.float32)
    path = weight_file(tmp_path, preset, "stage_c")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    verify_part(preset, "stage_c", tmp_path, torch.float32, hashes=False)
    with pytest.raises(ArtifactError, match="sha256 is"):
        verify_part(preset, "stage_c", tmp_path, torch.float32)


# The commands


@pytest.fixture
def cli(preset: Preset, hub: FolderHub, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setattr(models_cli, "_preset", lambda name: preset)
    monkeypatch.setattr("ppd_model.files.hub.HuggingFaceHub", lambda: hub)
    return CliRunner()


def test_the_commands_pull_and_verify(cli: CliRunner, preset: Preset, tmp_path: Path) -> None:
    pulled = cli.invoke(app, ["models", "pull", preset.name, "--dir", str(tmp_path)])
    assert pulled.exit_code == 0, pulled.output
    assert f"{PRIOR} at main: commit {COMMITS[PRIOR]}" in pulled.output
    assert json.loads((tmp_path / "ppd-models.json").read_text())["format"] == "ppd-models-1"

    words = ["models", "verify", preset.name, "--dir", str(tmp_path)]
    verified = cli.invoke(app, words)
    assert verified.exit_code == 0, verified.output
    assert verified.output.count("ok ") == len(preset.published)

    (tmp_path / "stable-cascade" / "vqgan" / "config.json").unlink()
    broken = cli.invoke(app, words)
    assert broken.exit_code == 1
    assert "FAULT   stage_a" in broken.output
    assert broken.output.count("FAULT") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "mini", "--dir", "x"], "the weights of mini are shipped"),
        (["pull", "stable-cascade-2b", "--dir", "x"], "unknown preset 'stable-cascade-2b'"),
        (["pull", "stable-cascade"], "name a folder"),
        (["pull", "stable-cascade", "--dir", "x", "--dtype", "float16"], "the generator runs in"),
        (["pull", "stable-cascade", "--dir", "x", "--revision", "abc"], "REPOSITORY=COMMIT"),
        (["verify", "stable-cascade", "--dir", "x", "--part", "stage_d"], "has no parts"),
    ],
)
def test_what_the_commands_cannot_do_they_say(words: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["models", *words])
    assert result.exit_code == 1
    assert message in result.output
