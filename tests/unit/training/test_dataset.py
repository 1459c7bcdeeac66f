"""Shards and batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.dataset import batch_rows, load_pairs, pad_features
from training.shards import ShardFolder


def write_world(folder: Path, *, finish: bool = True, with_vlm: bool = True) -> ShardFolder:
    """Two shards of two people; person u has the taste (u, 0) and the embeddings (u, 0), (u, 1)."""
    shards = ShardFolder(folder, {"encoder_id": "e1"}, resume=False)
    shards.write("latents-00000.safetensors", {"latent_NCHW": torch.arange(8.0).view(8, 1, 1, 1)})
    shards.write(
        "captions.safetensors",
        {
            "text_KST": torch.arange(3.0).view(3, 1, 1),
            "pooled_K1T": torch.arange(3.0).view(3, 1, 1),
        },
    )
    for shard in range(2):
        person = torch.arange(2.0) + 2 * shard
        embedding = torch.stack([person.repeat_interleave(2), torch.tensor([0.0, 1, 0, 1])], 1)
        tensors = {
            "taste_UL": torch.stack([person, torch.zeros(2)], 1),
            "person_E": torch.tensor([0, 0, 1, 1]),
            "posterior_EL": embedding / 2,
            "person_P": torch.tensor([0, 1, 1]),
            "chosen_P": torch.tensor([0, 1, 2]) + 4 * shard,
            "rejected_P": torch.tensor([1, 2, 3]) + 4 * shard,
            "caption_P": torch.tensor([0, 1, 2]),
        }
        if with_vlm:
            tensors["user_emb_ED"] = embedding
        shards.write(f"people-{shard:05d}.safetensors", tensors)
    if finish:
        shards.finish()
    return shards


def test_a_row_carries_its_own_persons_pictures_caption_and_embedding(tmp_path: Path) -> None:
    write_world(tmp_path)
    pairs = load_pairs(tmp_path, "vlm", 3)
    assert (len(pairs), pairs.people) == (6, 4)
    batch = pairs.batch(torch.tensor([0, 5]), torch.tensor([0.9, 0.1]))
    assert batch.chosen_BCHW.flatten().tolist() == [0.0, 6.0]
    assert batch.rejected_BCHW.flatten().tolist() == [1.0, 7.0]
    assert batch.text_BST.flatten().tolist() == [0.0, 2.0]
    assert batch.user_emb_BD.tolist() == [[0, 1, 0], [3, 0, 0]]  # second of person 0, first of 3
    assert pairs.rows_of(range(1, 3)).tolist() == [1, 2, 3]


def test_the_person_may_be_the_true_taste_or_its_estimate(tmp_path: Path) -> None:
    write_world(tmp_path, with_vlm=False)
    rows, draw = torch.tensor([4]), torch.tensor([0.6])
    assert load_pairs(tmp_path, "taste", 3).batch(rows, draw).user_emb_BD.tolist() == [[3, 0, 0]]
    estimate = load_pairs(tmp_path, "posterior", 3).batch(rows, draw).user_emb_BD
    assert estimate.tolist() == [[1.5, 0.5, 0]]
    with pytest.raises(ValueError, match="without the VLM"):
        load_pairs(tmp_path, "vlm", 3)
    with pytest.raises(ValueError, match="wide"):
        pad_features(torch.zeros(1, 4), 3)


def test_an_epoch_meets_every_row_once_and_the_next_in_another_order() -> None:
    rows = torch.arange(10, 22)
    first = torch.cat([batch_rows(rows, 4, step, seed=0) for step in range(3)])
    second = torch.cat([batch_rows(rows, 4, step, seed=0) for step in range(3, 6)])
    assert sorted(first.tolist()) == sorted(second.tolist()) == rows.tolist()
    assert first.tolist() != second.tolist()
    assert batch_rows(rows, 4, 4, seed=0).equal(second[4:8])


def test_an_unfinished_or_damaged_folder_is_refused(tmp_path: Path) -> None:
    write_world(tmp_path / "unfinished", finish=False)
    with pytest.raises(ValueError, match="not finished"):
        load_pairs(tmp_path / "unfinished", "vlm", 2)
    write_world(tmp_path / "damaged")
    path = tmp_path / "damaged" / "people-00001.safetensors"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"people-00001.*sha256"):
        load_pairs(tmp_path / "damaged", "vlm", 2)
    with pytest.raises(ValueError, match=r"manifest\.json"):
        load_pairs(tmp_path / "nowhere", "vlm", 2)


def test_resuming_keeps_finished_shards_and_refuses_other_origins(tmp_path: Path) -> None:
    write_world(tmp_path, finish=False)
    with pytest.raises(ValueError, match="--resume"):
        ShardFolder(tmp_path, {"encoder_id": "e1"}, resume=False)
    with pytest.raises(ValueError, match="'e1' there, 'e2' now"):
        ShardFolder(tmp_path, {"encoder_id": "e2"}, resume=True)
    again = ShardFolder(tmp_path, {"encoder_id": "e1"}, resume=True)
    assert again.has("people-00001.safetensors")
    (tmp_path / "people-00001.safetensors").write_bytes(b"cut short")
    assert not again.has("people-00001.safetensors")
    assert not again.has("people-00002.safetensors")
