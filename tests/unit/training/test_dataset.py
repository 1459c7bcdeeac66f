"""Precomputed pairs as batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from training.data.dataset import batch_rows, drawn_set, load_pairs, pad_features, read_profiles
from training.data.shards import ShardFolder
from training.data.splits import SPLITS

TRAIN, VALIDATION, SEEN, UNSEEN = range(4)
EVERY = SPLITS


def write_world(
    folder: Path, *, finish: bool = True, with_vlm: bool = True, with_truth: bool = True
) -> ShardFolder:
    """Two shards of two people; person u has the taste (u, 0) and the embeddings (u, 0), (u, 1).

    People 0 to 2 are seen; of their rows, 0 and 1 train, 3 validates, 2 is held out. Rows 4 and 5
    are person 3's, who is unseen.
    """
    shards = ShardFolder(folder, {"encoder_id": "e1"}, resume=False)
    shards.write("latents-00000.safetensors", {"latent_NCHW": torch.arange(8.0).view(8, 1, 1, 1)})
    for shard, captions in enumerate((torch.arange(2.0), torch.arange(2.0, 3))):
        shards.write(
            f"captions-{shard:05d}.safetensors",
            {"text_KST": captions.view(-1, 1, 1), "pooled_K1T": captions.view(-1, 1, 1).clone()},
        )
    for shard in range(2):
        person = torch.arange(2.0) + 2 * shard
        embedding = torch.stack([person.repeat_interleave(2), torch.tensor([0.0, 1, 0, 1])], 1)
        tensors = {
            "person_E": torch.tensor([0, 0, 1, 1]),
            "person_P": torch.tensor([0, 1, 1]),
            "split_P": torch.tensor([[TRAIN, TRAIN, SEEN], [VALIDATION, UNSEEN, UNSEEN]][shard]),
            "chosen_P": torch.tensor([0, 1, 2]) + 4 * shard,
            "rejected_P": torch.tensor([1, 2, 3]) + 4 * shard,
            "caption_P": torch.tensor([0, 1, 2]),
        }
        if with_truth:
            tensors["taste_UL"] = torch.stack([person, torch.zeros(2)], 1)
            tensors["posterior_EL"] = embedding / 2
        if with_vlm:
            tensors["user_emb_ED"] = embedding
        shards.write(f"people-{shard:05d}.safetensors", tensors)
        profiles = [
            {"user_id": str(int(u)), "sets": [{}, {}], "failed": []} for u in person.tolist()
        ]
        if shard == 0:  # the VLM could read neither of this one's sets
            profiles.insert(1, {"user_id": "lost", "sets": [], "failed": [{}, {}]})
        shards.write_json(f"profiles-{shard:05d}.json", profiles)
    if finish:
        shards.finish()
    return shards


def test_a_row_carries_its_own_persons_pictures_caption_and_embedding(tmp_path: Path) -> None:
    write_world(tmp_path)
    pairs = load_pairs(tmp_path, "vlm", 3, EVERY)
    assert (len(pairs), pairs.people) == (6, 4)
    batch = pairs.batch(torch.tensor([0, 5]), torch.tensor([0.9, 0.1]))
    assert batch.chosen_BCHW.flatten().tolist() == [0.0, 6.0]
    assert batch.rejected_BCHW.flatten().tolist() == [1.0, 7.0]
    assert batch.text_BST.flatten().tolist() == [0.0, 2.0]
    assert batch.user_emb_BD.tolist() == [[0, 1, 0], [3, 0, 0]]  # second of person 0, first of 3
    assert pairs.rows_of(range(1, 3)).tolist() == [1, 2, 3]


def test_pairs_and_people_know_their_split(tmp_path: Path) -> None:
    write_world(tmp_path)
    pairs = load_pairs(tmp_path, "vlm", 3, EVERY)
    rows = {split: pairs.rows_in(split).tolist() for split in SPLITS}
    assert rows == {
        "train": [0, 1],
        "validation": [3],
        "seen_users": [2],
        "unseen_users": [4, 5],
    }
    assert pairs.unseen_U.tolist() == [False, False, False, True]


def test_the_test_splits_are_loaded_only_when_asked_for(tmp_path: Path) -> None:
    write_world(tmp_path)
    training = load_pairs(tmp_path, "vlm", 3)
    assert (len(training), training.people) == (3, 3)
    assert not training.unseen_U.any()
    assert 3.0 not in training.user_emb_ED[:, 0]
    unseen = load_pairs(tmp_path, "vlm", 3, ["unseen_users"])
    assert (unseen.people, unseen.place_U.tolist()) == (1, [3])
    batch = unseen.batch(torch.tensor([0, 1]), torch.tensor([0.0, 0.9]))
    assert batch.user_emb_BD.tolist() == [[3, 0, 0], [3, 1, 0]]
    assert batch.chosen_BCHW.flatten().tolist() == [5.0, 6.0]
    with pytest.raises(ValueError, match="no pair of no split"):
        load_pairs(tmp_path, "vlm", 3, [])


def test_profiles_are_in_the_order_of_the_people(tmp_path: Path) -> None:
    write_world(tmp_path)
    people = read_profiles(tmp_path)
    pairs = load_pairs(tmp_path, "vlm", 3, ["unseen_users"])
    assert [people[place]["user_id"] for place in pairs.place_U.tolist()] == ["3"]
    assert [person["user_id"] for person in people] == ["0", "1", "2", "3"]


def test_the_person_may_be_the_true_taste_or_its_estimate(tmp_path: Path) -> None:
    write_world(tmp_path, with_vlm=False)
    rows, draw = torch.tensor([4]), torch.tensor([0.6])
    taste = load_pairs(tmp_path, "taste", 3, EVERY).batch(rows, draw).user_emb_BD
    assert taste.tolist() == [[3, 0, 0]]
    estimate = load_pairs(tmp_path, "posterior", 3, EVERY).batch(rows, draw).user_emb_BD
    assert estimate.tolist() == [[1.5, 0.5, 0]]
    with pytest.raises(ValueError, match="without the VLM"):
        load_pairs(tmp_path, "vlm", 3)
    with pytest.raises(ValueError, match="wide"):
        pad_features(torch.zeros(1, 4), 3)


@pytest.mark.parametrize("bound", ["taste", "posterior"])
def test_the_upper_bounds_need_the_ground_truth(tmp_path: Path, bound: str) -> None:
    write_world(tmp_path, with_truth=False)
    with pytest.raises(ValueError, match=f"without the ground truth.*'{bound}'"):
        load_pairs(tmp_path, bound, 3)  # type: ignore[arg-type]


def test_the_person_may_be_no_one_or_a_number(tmp_path: Path) -> None:
    write_world(tmp_path, with_vlm=False, with_truth=False)
    rows, draw = torch.tensor([0, 2]), torch.tensor([0.9, 0.2])
    nobody = load_pairs(tmp_path, "none", 5)
    assert nobody.batch(rows, draw).user_emb_BD.tolist() == [[0] * 5] * 2
    assert nobody.user_emb_ED.shape == (6, 5)
    number = load_pairs(tmp_path, "one_hot", 5)
    assert number.batch(rows, draw).user_emb_BD.tolist() == [[1, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
    # The column is the person's, whatever else is loaded.
    unseen = load_pairs(tmp_path, "one_hot", 5, ["unseen_users"])
    assert unseen.user_emb_ED.tolist() == [[0, 0, 0, 1, 0]] * 2
    with pytest.raises(ValueError, match="4 wide"):
        load_pairs(tmp_path, "one_hot", 3)


def test_a_pair_is_met_under_each_of_its_own_sets_and_no_other() -> None:
    sets_B = torch.tensor([0b1, 0b10, 0b1101, 1 << 61])
    draws = torch.linspace(0, 0.999, 50)
    met = torch.stack([drawn_set(sets_B, draw.expand(4)) for draw in draws])
    assert [set(column.tolist()) for column in met.T] == [{0}, {1}, {0, 2, 3}, {61}]
    counts = torch.bincount(met[:, 2])
    assert counts[[0, 2, 3]].min() >= 16


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
