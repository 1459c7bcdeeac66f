"""Precompute from parquet, with random weights and a VLM of a few lines."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from ppd_model.pictures.reading import read_picture
from ppd_model.presets import get_preset
from ppd_model.types import LabelledPair
from ppd_model.user_encoder import EncodedUser, EncodingError
from tests.fake_pickapic import jpeg, row, write
from tests.small_world import PRESET, write_small_world
from tests.stopped_jobs import STATUS, stop
from tests.tiny_published import modules, tiny_preset, write_published
from training.classify_users.peoples_sets import load_sets
from training.data.dataset import load_pairs, read_profiles
from training.data.shards import read_manifest
from training.data.splits import SPLITS, PersonPairs
from training.precompute import __main__ as module
from training.precompute.__main__ import precompute
from training.precompute.frozen_parts import (
    Compressor,
    compressor_side_px,
    load_compressor,
    square,
)
from training.precompute.people_shards import Read
from training.precompute.precompute_config import PrecomputeConfig
from training.precompute.processes import Worker
from training.precompute.source_plan import plan_of
from training.world.truth import GroundTruth

WIDTH = PRESET.user_emb_dim


class FakeEncoder:
    """Its embedding is (answers for the second picture, mean brightness, 1, ...).

    `calls` counts batches; what `unreadable` names as a set's first caption has no profile.
    """

    encoder_version = "fake-1"
    calls = 0
    seeds: list[int] = []  # noqa: RUF012
    unreadable: frozenset[str] = frozenset()

    def encode_batch(
        self, many: Sequence[Sequence[LabelledPair]], *, seed: int
    ) -> list[EncodedUser]:
        FakeEncoder.calls += 1
        FakeEncoder.seeds += range(seed, seed + len(many))
        assert all(len(choices) == 4 for choices in many)
        if any(choices[0].caption in self.unreadable for choices in many):
            raise EncodingError("no profile in the response")
        return [self._encode(choices) for choices in many]

    def _encode(self, choices: Sequence[LabelledPair]) -> EncodedUser:
        emb_D = np.ones(WIDTH, np.float32)
        emb_D[0] = sum(choice.preferred for choice in choices)
        emb_D[1] = np.mean([np.asarray(choice.image_0).mean() for choice in choices])
        return EncodedUser(choices[0].caption, "", emb_D, 0.5, ["warm"], [])


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, and the preferences of 14 people with their ground truth."""
    folder = tmp_path_factory.mktemp("given")
    write_small_world(folder)
    return folder


@pytest.fixture
def config(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[PrecomputeConfig]:
    yield configured(given, tmp_path / "out", monkeypatch)
    FakeEncoder.unreadable = frozenset()


@pytest.fixture(scope="module")
def finished(given: Path) -> PrecomputeConfig:
    """One folder for the tests that only read it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        config = configured(given, given / "finished", monkeypatch)
        precompute(config)
        (given / "seeds.json").write_text(json.dumps(FakeEncoder.seeds))
    return config


def configured(given: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> PrecomputeConfig:
    monkeypatch.setattr(module, "get_preset", {"mini": PRESET}.__getitem__)
    monkeypatch.setattr(module.UserEncoder, "load", lambda *_, **__: FakeEncoder())
    FakeEncoder.calls, FakeEncoder.seeds = 0, []
    return PrecomputeConfig(
        preset="mini",
        data=str(given / "world" / "data"),
        truth=given / "world" / "truth.npz",
        weights_dir=given / "weights",
        output_dir=out,
        held_out="shares",
        unseen_user_share=0.3,
        validation_caption_share=0.1,
        held_out_caption_share=0.3,
        support_sets=2,
        population_samples=200,
        pictures_per_shard=60,
        captions_per_shard=10,
        people_per_shard=4,
        encode_batch=3,
        generation="together",
    )


def content_of_captions(folder: Path) -> list[str]:
    return [
        text
        for path in sorted(folder.glob("texts-*.json"))
        for text in json.loads(path.read_text())
    ]


def uids_of(folder: Path) -> list[str]:
    return [
        uid
        for path in sorted(folder.glob("pictures-*.json"))
        for uid in json.loads(path.read_text())
    ]


def test_a_folder_from_before_there_were_other_layouts_is_still_the_same(
    finished: PrecomputeConfig,
) -> None:
    assert "layout" not in read_manifest(finished.output_dir)["provenance"]["config"]


def test_what_is_written_is_what_the_data_set_reads(
    finished: PrecomputeConfig, given: Path
) -> None:
    folder = finished.output_dir
    pairs = load_pairs(folder, "vlm", WIDTH, SPLITS)
    summary = json.loads((folder / "summary.json").read_text())
    assert len(pairs) == summary["planned"]["query_pairs"]
    assert pairs.people == summary["planned"]["people"]
    assert all(len(pairs.rows_in(split)) == summary["splits"][f"{split}_pairs"] for split in SPLITS)
    assert len(pairs.user_emb_ED) == summary["encoded"]["support_sets"]
    uids, texts = uids_of(folder), content_of_captions(folder)
    assert pairs.latent_NCHW.shape == (len(uids), 16, 8, 8)
    assert len(set(uids)) == len(uids)
    assert len(pairs.text_KST) == len(pairs.pooled_K1T) == len(texts)
    assert len(set(texts)) == len(texts)

    # Each row is a row of the files: the same person, caption and winner.
    asked = {
        (r["user_id"], r["caption"], r["best_image_uid"]): r
        for path in sorted((given / "world" / "data").iterdir())
        for r in module_rows(path)
        if r["has_label"] and r["are_different"]
    }
    people = read_profiles(folder)
    for number in range(len(pairs)):
        user = int(people[pairs.place_U[pairs.person_P[number]]]["user_id"])
        chosen, rejected = uids[pairs.chosen_P[number]], uids[pairs.rejected_P[number]]
        found = asked[user, texts[pairs.caption_P[number]], chosen]
        assert {chosen, rejected} == {found["image_0_uid"], found["image_1_uid"]}


def module_rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def test_a_latent_is_that_of_its_own_picture(finished: PrecomputeConfig) -> None:
    folder = finished.output_dir
    pairs = load_pairs(folder, "none", WIDTH, SPLITS)
    uids = uids_of(folder)
    data = sorted(Path(cast(str, finished.data)).iterdir())
    jpegs = {
        r[f"image_{s}_uid"]: r[f"jpg_{s}"] for p in data for r in module_rows(p) for s in (0, 1)
    }
    compressor = load_compressor(PRESET, finished.weights_dir, torch.device("cpu"))
    for place in (0, len(uids) // 2, len(uids) - 1):
        image = square(read_picture(jpegs[uids[place]]), compressor.side_px)
        own = compressor.latents(image[None], torch.device("cpu"))
        assert torch.allclose(pairs.latent_NCHW[torch.tensor([place])], own, rtol=1e-2, atol=1e-3)


def test_an_embedding_belongs_to_the_answers_beside_it(finished: PrecomputeConfig) -> None:
    folder = finished.output_dir
    for path in sorted(folder.glob("people-*.safetensors")):
        shard = load_file(path)
        profiles = json.loads(
            path.with_name(path.name.replace("people", "profiles")).with_suffix(".json").read_text()
        )
        sets = [each for person in profiles for each in person["sets"]]
        preferred = [[pair["preferred"] for pair in each["pairs"]] for each in sets]
        assert shard["support_preferred_E4"].tolist() == preferred
        assert shard["user_emb_ED"][:, 0].tolist() == [sum(four) for four in preferred]
        truth = GroundTruth.load(cast(Path, finished.truth))
        delta = truth.looks(sets[0]["pairs"][1]["pictures"][1]) - truth.looks(
            sets[0]["pairs"][1]["pictures"][0]
        )
        assert np.allclose(shard["support_delta_E4L"][0, 1], delta)
        tastes = [truth.taste(person["user_id"]) for person in profiles]
        assert np.allclose(shard["taste_UL"], np.stack(tastes))
        for estimate_L in shard["posterior_EL"]:
            assert 0 < estimate_L.norm() < 1


def test_support_pairs_are_no_queries_and_seeds_are_all_different(
    finished: PrecomputeConfig, given: Path
) -> None:
    folder = finished.output_dir
    uids, pairs = uids_of(folder), load_pairs(folder, "vlm", WIDTH, SPLITS)
    for place, person in enumerate(read_profiles(folder)):
        support = {frozenset(p["pictures"]) for each in person["sets"] for p in each["pairs"]}
        rows = torch.nonzero(pairs.place_U[pairs.person_P] == place).flatten().tolist()
        asked = {frozenset((uids[pairs.chosen_P[r]], uids[pairs.rejected_P[r]])) for r in rows}
        assert support
        assert asked
        assert support.isdisjoint(asked)
    seeds = json.loads((given / "seeds.json").read_text())
    assert sorted(seeds) == list(range(len(pairs.user_emb_ED)))


def test_an_interrupted_run_goes_on_where_it_was(
    config: PrecomputeConfig, finished: PrecomputeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_batch = FakeEncoder.encode_batch

    def fail_in_second_shard(
        self: FakeEncoder, many: Sequence[Sequence[LabelledPair]], *, seed: int
    ) -> list[EncodedUser]:
        if (config.output_dir / "people-00000.safetensors").exists():
            raise KeyboardInterrupt
        return encode_batch(self, many, seed=seed)

    with monkeypatch.context() as broken:
        broken.setattr(FakeEncoder, "encode_batch", fail_in_second_shard)
        with pytest.raises(KeyboardInterrupt):
            precompute(config)
    with pytest.raises(ValueError, match="not finished"):
        load_pairs(config.output_dir, "vlm", WIDTH)
    made = {path.name: path.stat().st_mtime_ns for path in config.output_dir.glob("*.safetensors")}
    assert "people-00000.safetensors" in made
    assert "people-00001.safetensors" not in made
    with pytest.raises(ValueError, match="--resume"):
        precompute(config)
    precompute(config, resume=True)
    assert all((config.output_dir / name).stat().st_mtime_ns == made[name] for name in made)
    whole = finished.output_dir
    assert read_manifest(whole)["shards"] == read_manifest(config.output_dir)["shards"]


@pytest.mark.parametrize("how", STATUS)
@pytest.mark.parametrize("at", [3, 17])
def test_a_run_that_is_stopped_while_it_writes_ends_with_the_same_bytes(
    config: PrecomputeConfig, finished: PrecomputeConfig, how: str, at: int
) -> None:
    stop(lambda: precompute(config), how, at)
    precompute(config, resume=True)
    whole = finished.output_dir
    assert read_manifest(whole)["shards"] == read_manifest(config.output_dir)["shards"]
    assert not list(config.output_dir.rglob("*.tmp"))


def test_two_processes_write_what_one_writes(
    config: PrecomputeConfig, finished: PrecomputeConfig
) -> None:
    """Each does its own shards; the barriers are played by turns."""
    together = run_together(config, 2)
    assert read_manifest(together)["shards"] == read_manifest(finished.output_dir)["shards"]
    assert read_manifest(together)["complete"]


def run_together(config: PrecomputeConfig, count: int) -> Path:
    """`count` workers in threads, with a real barrier."""
    barrier = threading.Barrier(count, timeout=60)
    errors: list[BaseException] = []

    def work(index: int) -> None:
        def wait() -> None:
            barrier.wait()

        try:
            precompute(config, worker=Worker(index, count, wait=wait))
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return config.output_dir


@pytest.mark.parametrize("change", [{"support_sets": 1}, {"salt": "other"}, {"truth": None}])
def test_other_values_do_not_continue_a_folder(
    config: PrecomputeConfig, change: dict[str, Any]
) -> None:
    few = config.model_copy(update={"people": 3, "vlm": False})
    precompute(few)
    with pytest.raises(ValueError, match="made with something else"):
        precompute(few.model_copy(update=change), resume=True)


def test_other_data_do_not_continue_a_folder(config: PrecomputeConfig, tmp_path: Path) -> None:
    few = config.model_copy(update={"people": 3, "vlm": False})
    precompute(few)
    first = min(Path(cast(str, config.data)).iterdir())
    with pytest.raises(ValueError, match=r"made with something else: .*files"):
        precompute(few.model_copy(update={"data": str(first)}), resume=True)


def test_without_the_vlm_nobody_is_read(config: PrecomputeConfig) -> None:
    plain = config.model_copy(update={"vlm": False, "people": 5})
    folder = precompute(plain)
    assert FakeEncoder.calls == 0
    assert read_manifest(folder)["provenance"]["encoder_id"] == "none"
    load_pairs(folder, "taste", WIDTH)
    with pytest.raises(ValueError, match="without the VLM"):
        load_pairs(folder, "vlm", WIDTH)


def test_synthetic_users_give_all_their_pairs_and_have_a_column_each(
    config: PrecomputeConfig,
) -> None:
    rewards = config.model_copy(
        update={"vlm": False, "support_sets": 0, "unseen_user_share": 0.0, "truth": None}
    )
    folder = precompute(rewards)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["planned"]["query_pairs"] == summary["read"]["pairs"]
    pairs = load_pairs(folder, "one_hot", WIDTH, SPLITS)
    assert pairs.user_emb_ED.shape == (pairs.people, WIDTH)
    assert pairs.user_emb_ED.sum(1).tolist() == [1.0] * pairs.people
    with pytest.raises(ValueError, match="set vlm to false"):
        precompute(rewards.model_copy(update={"vlm": True, "output_dir": folder / "other"}))


def test_without_the_ground_truth_there_are_no_upper_bounds(config: PrecomputeConfig) -> None:
    folder = precompute(config.model_copy(update={"truth": None, "people": 3}))
    load_pairs(folder, "vlm", WIDTH)
    for bound in ("taste", "posterior"):
        with pytest.raises(ValueError, match="without the ground truth"):
            load_pairs(folder, bound, WIDTH)  # type: ignore[arg-type]


def test_a_set_that_the_vlm_cannot_read_is_left_out_with_the_reason(
    config: PrecomputeConfig, finished: PrecomputeConfig
) -> None:
    person = next(p for p in read_profiles(finished.output_dir) if len(p["sets"]) == 2)
    caption = person["sets"][1]["pairs"][0]["caption"]
    FakeEncoder.unreadable = frozenset({caption})
    folder = precompute(config)
    lacking = next(p for p in read_profiles(folder) if p["user_id"] == person["user_id"])
    assert lacking["sets"][0] == person["sets"][0]
    assert lacking["failed"][-1] == {"set": 1, "reason": "no profile in the response"}
    counts = json.loads((folder / "summary.json").read_text())["encoded"]
    assert counts["failed_sets"] >= 1
    assert len(load_pairs(folder, "vlm", WIDTH, SPLITS).user_emb_ED) == counts["support_sets"]


def test_training_never_meets_a_pair_under_a_set_that_shows_its_caption(
    config: PrecomputeConfig,
) -> None:
    by_people = {"held_out": "people", "unseen_people": 2, "seen_people": 3, "support_sets": 3}
    folder = precompute(config.model_copy(update=by_people))
    pairs = load_pairs(folder, "vlm", WIDTH, SPLITS)
    texts, people = content_of_captions(folder), read_profiles(folder)
    under = 0
    for number in range(len(pairs)):
        sets = people[pairs.place_U[pairs.person_P[number]]]["sets"]
        caption = texts[pairs.caption_P[number]]
        for place, each in enumerate(sets):
            if pairs.sets_P[number] >> place & 1:
                under += 1
                assert caption not in [pair["caption"] for pair in each["pairs"]]
    assert under > len(pairs)
    assert len(pairs.rows_in("unseen_users")) >= 2


def test_sets_that_failed_are_no_choice_of_a_query() -> None:
    person = PersonPairs(
        user=0,
        unseen=False,
        support_E4=np.arange(12).reshape(3, 4),
        query_P=np.arange(12, 15),
        split_P=np.zeros(3, dtype=np.int64),
        sets_P=np.array([0b001, 0b110, 0b111]),
    )
    read = Read(person)
    assert read.sets_of_queries().tolist() == [0b001, 0b110, 0b111]
    read.sets, read.failed = [1, 2], [{"set": 0, "reason": "no profile"}]
    assert read.sets_of_queries().tolist() == [0, 0b11, 0b11]


SHARES = ("unseen_user_share", "validation_caption_share", "held_out_caption_share")
ALONE: dict[str, Any] = {"vlm": False, "support_sets": 0, "truth": None} | dict.fromkeys(
    SHARES, 0.0
)


def cut_short(data: bytes) -> bytes:
    return data[: len(data) // 2]


def test_one_broken_picture_of_a_thousand_costs_its_pairs_alone(
    config: PrecomputeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(broken: bytes) -> list[dict[str, Any]]:
        return [
            row(n % 5, "a boat at night", f"{n}a", f"{n}b", 0, jpg_0=broken if n == 7 else jpeg(n))
            for n in range(500)
        ]

    whole = write(tmp_path / "whole" / "data.parquet", rows(jpeg(7)))
    lacking = write(tmp_path / "lacking" / "data.parquet", rows(cut_short(jpeg(7))))
    large = ALONE | {"pictures_per_shard": 400}
    folders = [
        precompute(
            config.model_copy(update=large | {"data": str(path), "output_dir": path.parent / "out"})
        )
        for path in (whole, lacking)
    ]
    said = "data.parquet, row 7, jpg_0, of person 2: is a damaged JPEG: it is cut short"
    assert f"left out: {said}" in capsys.readouterr().out
    (entry,) = json.loads((folders[1] / "unreadable-00000.json").read_text())
    assert (entry["picture"], entry["person"], entry["file"]) == ("7a", "2", "data.parquet")
    summary = json.loads((folders[1] / "summary.json").read_text())
    assert summary["unreadable"] == {"pictures": 1, "pairs": 1}

    uids = uids_of(folders[0])
    assert uids_of(folders[1]) == uids
    pairs, fewer = (load_pairs(folder, "none", WIDTH, SPLITS) for folder in folders)
    assert len(fewer) == len(pairs) - 1
    lost = uids.index("7a")
    assert lost not in fewer.chosen_P.tolist() + fewer.rejected_P.tolist()
    others = torch.tensor([n for n in range(len(uids)) if n != lost])
    assert fewer.latent_NCHW[others].equal(pairs.latent_NCHW[others])
    assert fewer.latent_NCHW[torch.tensor([lost])].isnan().all()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b"", "has no bytes"),
        (b"no picture", "is no picture of a known format"),
        (jpeg(1, 16_400, 2), "it needs sides of 1 to 16384 px"),
    ],
)
def test_more_unreadable_pictures_than_allowed_end_the_job_and_are_named(
    config: PrecomputeConfig, tmp_path: Path, broken: bytes, reason: str
) -> None:
    rows = [
        row(1, "a boat at night", f"{n}a", f"{n}b", 0, jpg_1=broken if n == 8 else jpeg(n))
        for n in range(9)
    ]
    path = write(tmp_path / "data" / "broken.parquet", rows)
    strict = config.model_copy(update=ALONE | {"data": str(path)})
    message = rf"1 of 18 pictures .*broken\.parquet, row 8, jpg_1, of person 1: .*{reason}"
    with pytest.raises(ValueError, match=message + ".*--unreadable_share"):
        precompute(strict)
    folder = precompute(strict.model_copy(update={"unreadable_share": 0.1}), resume=True)
    assert len(load_pairs(folder, "none", WIDTH, SPLITS)) == 8


def test_a_damaged_part_of_a_file_costs_its_row_group_alone(
    config: PrecomputeConfig, tmp_path: Path
) -> None:
    rows = [row(1, "a boat at night", f"{n}a", f"{n}b", 0, jpg_0=jpeg(n)) for n in range(60)]
    path = write(tmp_path / "data" / "broken.parquet", rows, per_group=20)
    column = pq.ParquetFile(path).metadata.row_group(1)
    (place,) = [
        (each.dictionary_page_offset or each.data_page_offset)
        for each in map(column.column, range(column.num_columns))
        if each.path_in_schema == "jpg_0"
    ]
    with path.open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 64)
    some = ALONE | {"data": str(path), "unreadable_share": 0.5}
    folder = precompute(config.model_copy(update=some))
    assert len(load_pairs(folder, "none", WIDTH, SPLITS)) == 40
    assert json.loads((folder / "summary.json").read_text())["unreadable"]["pairs"] == 20


def test_a_support_set_with_a_broken_picture_is_left_out_and_named(
    config: PrecomputeConfig, finished: PrecomputeConfig, tmp_path: Path
) -> None:
    person = next(p for p in read_profiles(finished.output_dir) if len(p["sets"]) == 2)
    uid = person["sets"][1]["pairs"][2]["pictures"][1]
    for path in sorted(Path(cast(str, config.data)).iterdir()):
        rows = module_rows(path)
        for each in rows:
            for side in (0, 1):
                if each[f"image_{side}_uid"] == uid:
                    each[f"jpg_{side}"] = cut_short(each[f"jpg_{side}"])
        write(tmp_path / "data" / path.name, rows)
    folder = precompute(
        config.model_copy(update={"data": str(tmp_path / "data"), "unreadable_share": 0.1})
    )
    lacking = next(p for p in read_profiles(folder) if p["user_id"] == person["user_id"])
    assert lacking["sets"][0] == person["sets"][0]
    (failed,) = lacking["failed"]
    assert failed["set"] == 1
    assert f"of person {person['user_id']}: is a damaged" in failed["reason"]
    with pytest.raises(ValueError, match=r"more than unreadable_share 0\.0 allows"):
        precompute(
            config.model_copy(
                update={
                    "data": str(tmp_path / "data"),
                    "unreadable_share": 0.0,
                    "output_dir": tmp_path / "strict",
                }
            )
        )


def test_files_may_be_replaced_and_added_without_losing_what_was_made_of_others(
    config: PrecomputeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    captions = ["a boat at night", "a house by day", "a tree in a field"]

    def rows(people: range, *, cut: bool = False) -> list[dict[str, Any]]:
        return [
            row(
                user,
                captions[n % 3],
                f"{user}-{n}a",
                f"{user}-{n}b",
                n % 2,
                jpg_0=cut_short(jpeg(n)) if cut and n < 2 else jpeg(n + user),
            )
            for user in people
            for n in range(12)
        ]

    write(data / "a.parquet", rows(range(4)))
    write(data / "b.parquet", rows(range(4, 6), cut=True))
    changes = dict.fromkeys(SHARES, 0.0) | {
        "data": str(data),
        "truth": None,
        "support_sets": 1,
        "unreadable_share": 0.5,
        "output_dir": tmp_path / "first",
    }
    first = config.model_copy(update=changes)
    precompute(first)
    read_first, calls = len(read_profiles(first.output_dir)), FakeEncoder.calls
    write(data / "b.parquet", rows(range(4, 6)))
    write(data / "c.parquet", rows(range(6, 8)))
    with pytest.raises(ValueError, match="with --reuse this folder"):
        precompute(first, resume=True)

    compressed = count_of_pictures(monkeypatch)
    second = first.model_copy(update={"output_dir": tmp_path / "second", "reuse": first.output_dir})
    FakeEncoder.seeds = []
    precompute(second)
    fresh = {uid for uid in uids_of(second.output_dir) if int(uid.split("-")[0]) >= 4}
    assert sum(compressed) == len(fresh)
    assert len(FakeEncoder.seeds) == len(read_profiles(second.output_dir)) - 4
    assert (read_first, calls) <= (6, FakeEncoder.calls)

    alone = first.model_copy(update={"output_dir": tmp_path / "alone"})
    precompute(alone)
    one, other = (load_pairs(each.output_dir, "vlm", WIDTH, SPLITS) for each in (second, alone))
    assert len(one) == len(other)
    every = torch.arange(len(uids_of(alone.output_dir)))
    assert torch.allclose(
        one.latent_NCHW[every].float(), other.latent_NCHW[every].float(), rtol=1e-2, atol=1e-3
    )
    assert one.user_emb_ED.equal(other.user_emb_ED)
    assert read_profiles(second.output_dir) == read_profiles(alone.output_dir)


def count_of_pictures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the size of each batch that the compressor reads from now on."""
    sizes: list[int] = []
    latents = Compressor.latents

    def counted(self: Compressor, images: Any, device: torch.device) -> torch.Tensor:
        sizes.append(len(images))
        return latents(self, images, device)

    monkeypatch.setattr(Compressor, "latents", counted)
    return sizes


def test_people_with_most_pairs_are_read_from_any_of_them_and_trained_on_none(
    config: PrecomputeConfig, tmp_path: Path
) -> None:
    rows = [
        row(user, f"c{user} {n}", f"{user}-{n}a", f"{user}-{n}b", n % 2)
        for user, pairs in ((1, 5), (2, 23), (3, 13), (4, 3))
        for n in range(pairs)
    ]
    path = write(tmp_path / "data" / "train.parquet", rows)
    changes = {"data": str(path), "truth": None, "reads_only": True, "people": 2}
    folder = precompute(config.model_copy(update=changes | {"support_sets": 4}))
    read = {one["user_id"]: one["sets"] for one in read_profiles(folder)}
    assert {user: len(sets) for user, sets in read.items()} == {"2": 4, "3": 3}
    shown = [pair["pictures"][0] for sets in read.values() for one in sets for pair in one["pairs"]]
    assert len(set(shown)) == len(shown) == 4 * (4 + 3)
    sets = load_sets(folder, people=300, sets=20)
    assert np.bincount(sets.person_E).tolist() == [4, 3]
    assert not list(folder.glob("latents-*"))
    assert plan_of(folder).counts["splits"]["fewest_sets"] == 3


def test_pictures_of_any_size_are_scaled_and_cut_to_a_square() -> None:
    wide = np.zeros((100, 300, 3), dtype=np.uint8)
    wide[:, 100:200] = 200  # the middle square alone is light
    pixels = square(Image.fromarray(wide), 64)
    assert pixels.shape == (64, 64, 3)
    assert (pixels[:, 4:-4] == 200).all()
    tall = square(Image.fromarray(wide.transpose(1, 0, 2).copy()), 128)
    assert (tall[8:-8] == 200).all()
    exact = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert (square(Image.fromarray(exact), 64) == exact).all()


def test_a_published_preset_takes_the_same_path(
    config: PrecomputeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files named and shaped like Stable Cascade's; pictures scaled to what gives 3 x 3 latents."""
    tiny = tiny_preset()
    monkeypatch.setattr(module, "get_preset", {tiny.name: tiny}.__getitem__)
    write_published(tmp_path / "weights", tiny)
    wide = {f"jpg_{side}": jpeg(9 * side, width=40, height=30) for side in (0, 1)}
    rows = [row(1, f"red boat {n}", f"{n}a", f"{n}b", 0, **wide) for n in range(20)]
    path = write(tmp_path / "data" / "train.parquet", rows)
    changes = {
        "preset": tiny.name,
        "data": str(path),
        "weights_dir": tmp_path / "weights",
        "truth": None,
        "vlm": False,
        "unseen_user_share": 0.0,
    }
    folder = precompute(config.model_copy(update=changes))
    pairs = load_pairs(folder, "none", tiny.user_emb_dim, SPLITS)
    assert compressor_side_px(tiny) == 96
    assert pairs.latent_NCHW.shape[1:] == (16, 3, 3)
    assert pairs.text_KST.shape[2] == tiny.text_encoder["hidden_size"]
    own = modules(tiny)["compressor"]
    with torch.inference_mode():
        grey = square(read_picture(jpeg(0, 40, 30)), 96)
        expected = own(torch.tensor(grey).permute(2, 0, 1)[None].float() / 255)
    first = pairs.latent_NCHW[pairs.chosen_P[:1]].float()
    assert torch.allclose(first, expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("preset", "side_px"), [("stable-cascade-1b", 768), ("mini", 128)])
def test_pictures_are_as_large_as_the_presets_latents_ask_for(preset: str, side_px: int) -> None:
    assert compressor_side_px(get_preset(preset)) == side_px


def test_the_compressor_reads_what_gives_the_presets_latents(config: PrecomputeConfig) -> None:
    compressor = load_compressor(PRESET, config.weights_dir, torch.device("cpu"))
    assert compressor.side_px == 128
    pictures = np.zeros((1, 128, 128, 3), dtype=np.uint8)
    latent = compressor.latents(pictures, torch.device("cpu"))
    assert latent.shape == (1, 16, *PRESET.latent_hw(128, 128))
    assert latent.dtype == torch.float16


def test_profiles_whose_heading_had_to_be_given_are_counted(
    config: PrecomputeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = FakeEncoder._encode

    def continued(self: FakeEncoder, choices: Sequence[LabelledPair]) -> EncodedUser:
        return replace(encode(self, choices), heading_given=choices[0].preferred == 1)

    monkeypatch.setattr(FakeEncoder, "_encode", continued)
    folder = precompute(config)
    sets = [each for person in read_profiles(folder) for each in person["sets"]]
    given = [each["pairs"][0]["preferred"] == 1 for each in sets]
    assert [each["heading_given"] for each in sets] == given
    encoded = json.loads((folder / "summary.json").read_text())["encoded"]
    assert encoded["headings_given"] == sum(given) > 0
