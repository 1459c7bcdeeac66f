"""Shards: written by several, resumed, verified, read without being loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from training.data.shards import ShardedRows, ShardFolder, read_manifest, verified


def test_what_several_processes_wrote_is_one_folder(tmp_path: Path) -> None:
    first = ShardFolder(tmp_path, {"encoder_id": "e"}, resume=False)
    second = ShardFolder(tmp_path, {"encoder_id": "e"}, resume=True)
    second.write("rows-00001.safetensors", {"x": torch.ones(2)})
    first.write("rows-00000.safetensors", {"x": torch.zeros(2)})
    second.write_json("names-00001.json", ["ä"])
    assert first.has("rows-00001.safetensors")
    assert not read_manifest(tmp_path)["complete"]
    first.finish()
    manifest = read_manifest(tmp_path)
    assert manifest["complete"]
    assert list(manifest["shards"]) == [
        "names-00001.json",
        "rows-00000.safetensors",
        "rows-00001.safetensors",
    ]
    assert [p.name[5:10] for p in verified(tmp_path, "rows-")] == ["00000", "00001"]
    assert json.loads(verified(tmp_path, "names-")[0].read_text()) == ["ä"]
    assert not list(tmp_path.glob("*.sha256"))


def test_resuming_keeps_finished_shards_and_refuses_other_origins(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, {"encoder_id": "e1"}, resume=False)
    shards.write("rows-00000.safetensors", {"x": torch.zeros(2)})
    with pytest.raises(ValueError, match="--resume"):
        ShardFolder(tmp_path, {"encoder_id": "e1"}, resume=False)
    with pytest.raises(ValueError, match="'e1' there, 'e2' now"):
        ShardFolder(tmp_path, {"encoder_id": "e2"}, resume=True)
    again = ShardFolder(tmp_path, {"encoder_id": "e1"}, resume=True)
    assert again.has("rows-00000.safetensors")
    assert not again.has("rows-00001.safetensors")
    (tmp_path / "rows-00000.safetensors").write_bytes(b"cut short")
    assert not again.has("rows-00000.safetensors")


def test_a_finished_folder_still_knows_its_shards(tmp_path: Path) -> None:
    shards = ShardFolder(tmp_path, {}, resume=False)
    shards.write("rows-00000.safetensors", {"x": torch.zeros(2)})
    shards.finish()
    assert ShardFolder(tmp_path, {}, resume=True).has("rows-00000.safetensors")


def test_rows_are_found_across_shards_in_the_order_asked_for(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.safetensors" for n in range(3)]
    for n, path in enumerate(paths):
        save_file({"x": torch.arange(4.0).view(2, 2) + 10 * n}, path)
    rows = ShardedRows(paths, "x")
    assert rows.shape == (6, 2)
    assert len(rows) == 6
    assert rows[torch.tensor([5, 0, 2, 2])].tolist() == [[22, 23], [0, 1], [10, 11], [10, 11]]
    for wrong in (6, -1):
        with pytest.raises(IndexError, match="of 6"):
            rows[torch.tensor([wrong])]
    save_file({"x": torch.zeros(2, 3)}, paths[1])
    with pytest.raises(ValueError, match="different shapes"):
        ShardedRows(paths, "x")


def test_a_row_that_was_read_is_a_copy(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2, 2)}, tmp_path / "0.safetensors")
    rows = ShardedRows([tmp_path / "0.safetensors"], "x")
    rows[torch.tensor([0])].add_(1)
    assert rows[torch.tensor([0])].tolist() == [[0, 0]]


def test_reading_a_few_rows_does_not_load_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    save_file({"x": torch.zeros(64, 1024, 512, dtype=torch.float16)}, path)  # 64 MiB
    before = own_memory_kib()
    rows = ShardedRows([path], "x")
    rows[torch.arange(0, 64, 16)]
    assert own_memory_kib() - before < 16 * 1024


def own_memory_kib() -> int:
    """Memory that the system could not take back: what is mapped from files does not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError("no RssAnon")
