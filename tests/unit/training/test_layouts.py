"""Other data sets' layouts, on files that the tests make: what becomes a pair, and whose."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppd_model.pictures.reading import PictureError
from tests.fake_pickapic import jpeg
from tests.small_world import PRESET, write_small_world
from training.data.dataset import load_pairs
from training.data.layouts.catalog import LayoutName, open_files
from training.data.layouts.listed import Answer, ListedFiles
from training.data.pair_files import PairFiles
from training.data.preferences import read_preferences
from training.data.shards import read_lists, read_manifest
from training.precompute import __main__ as precompute_module
from training.precompute.__main__ import precompute
from training.precompute.precompute_config import PrecomputeConfig
from training.precompute.source_plan import plan_of

Record = dict[str, Any]


def rating(person: str, picture: str, score: float, style: str | None = None) -> Record:
    """As PAMELA's annotations have them."""
    return {
        "participant_id": person,
        "original_score": score,
        "image_id": 0,
        "image_path": f"./images/{picture}.png",
        "image_metadata": {
            "group": "still_life",
            "style": style,
            "type": "Art" if style else "Photorealism",
        },
    }


def write_pamela(root: Path, ratings: Sequence[Record]) -> Path:
    (root / "images").mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(ratings):
        name = Path(each["image_path"]).name
        (root / "images" / name).write_bytes(jpeg(number, 16, 16))
    path = root / "annotations" / "pamela_train.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(list(ratings)))
    return path


def answers_of(layout: LayoutName, path: Path) -> list[Answer]:
    files = open_files(layout, [path])
    assert isinstance(files, ListedFiles)
    return files.answers(files.files[0])


def pictures_of(files: PairFiles, *places: tuple[int, int]) -> list[bytes | PictureError]:
    return list(files.pictures(np.array(places, dtype=np.int64)))


def test_of_a_persons_ratings_the_lower_half_meets_the_higher_half(tmp_path: Path) -> None:
    scores = {"a": 5.0, "b": 1.0, "c": 2.0, "d": 4.0, "e": 3.0}
    path = write_pamela(tmp_path, [rating("ada", name, score) for name, score in scores.items()])
    # Sorted: b c e d a. Halves of two: b c and d a; e is left out.
    assert answers_of("pamela", path) == [
        Answer("ada", "Photorealism, still life", ("images/b.png", "images/d.png"), 1),
        Answer("ada", "Photorealism, still life", ("images/a.png", "images/c.png"), 0),
    ]


def test_ratings_of_different_people_and_kinds_of_pictures_never_meet(tmp_path: Path) -> None:
    ratings = [
        rating("ada", "a", 1),
        rating("bob", "b", 5),
        rating("ada", "c", 5, "Synthetic_Cubism"),
        rating("bob", "d", 3),
    ]
    assert answers_of("pamela", write_pamela(tmp_path, ratings)) == [
        Answer("bob", "Photorealism, still life", ("images/b.png", "images/d.png"), 0)
    ]


def test_equal_ratings_are_ties_and_counted_as_such(tmp_path: Path) -> None:
    same = [rating("ada", f"same {n}", 3, "Cubism") for n in range(2)]
    other = [rating("ada", f"other {n}", n) for n in range(8)]
    files = open_files("pamela", [write_pamela(tmp_path, [*same, *other])])
    counts = read_preferences(files).counts
    assert (counts.rows, counts.ties, counts.pairs) == (5, 1, 4)


def test_a_rated_picture_is_its_own_file_and_one_that_is_not_there_says_so(tmp_path: Path) -> None:
    path = write_pamela(tmp_path, [rating("ada", "a", 1), rating("ada", "b", 2)])
    files = open_files("pamela", [path])
    (tmp_path / "images" / "b.png").unlink()
    first, second = pictures_of(files, (0, 0), (0, 1))
    assert first == (tmp_path / "images" / "a.png").read_bytes()
    assert isinstance(second, PictureError)
    assert "b.png: No such file" in str(second)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "images/../../secret"])
def test_no_picture_outside_the_data_sets_folder_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    path = write_pamela(tmp_path / "data", [rating("ada", "a", 1), rating("ada", "b", 2)])
    ratings = json.loads(path.read_text())
    ratings[0]["image_path"] = name
    path.write_text(json.dumps(ratings))
    found = pictures_of(open_files("pamela", [path]), (0, 0), (0, 1))
    assert [str(each) for each in found if isinstance(each, PictureError)] == [
        f"{name!r} lies outside {tmp_path / 'data'}"
    ]


def test_ratings_without_a_score_are_named(tmp_path: Path) -> None:
    ratings = [rating("ada", "a", 1), rating("ada", "b", 2)]
    del ratings[1]["original_score"]
    with pytest.raises(ValueError, match=r"pamela_train.json, rating 1: .*original_score"):
        open_files("pamela", [write_pamela(tmp_path, ratings)])


DATA_FRAME = """
eNqFU01vEzEQTdJsEj7UqiAgSAhFnMKBKG05cECKRCqkEhFE75U1u+tkV931rmyv2kpUggP9kHzr8P/4CfwDGHuz
NCmV8K7sZ/t5/GY887X543Oz5prZzEGEoAZBJvlgJiHlaO7sgob3Dl/hy294in3TZOlconm+TI+F5lJAogYpCJhz
qdDcf5dkweHHck7HzePFCZbEvro+gmaDFSKPg8OEM9+ecWRRpPnJgDnzaZHoGKSEEzLLJA8yobQsAm2ZnmOiaZNx
R7nCSe07jus+nuM+9id1+tbOMNowXqhPcuuKacRv8PKi3F8z9bc4nU4//KbmuklNo3857rbL0NQ6N0akbdPxi5hk
CXLAU0kccHexvc2anTRsH92L1qNNKyd6WIlpOTFd0/i0IuHLDQkjK+EA+/SP20l8yMPeECu0hfzg72Qb4QAtzfPB
kdxYUhysCMaD3iw7RtOCXgSSW4bF6giEpYw9wY+cATtuY7Rboq3Fys5ifF2e0jCnqJMpLjOB0R4nxdEL8rD9vxDU
qxDMlkIQPbv1DcqI/xrVVtrPEZa3tSed5dvOnZ/d1dwM+TFXAx8UZfRdRh6wPbtG7xUx41XY5XZI+Y7/Cu7Q5JV9
DdMuFJcsDtGsSz7jkouAU0IrjebB6gKj0KN5dL2YyyzN9YLcilOqi2EFtgiU+wQS8HkyRBtP0xS2+KbFmQ0lmKe3
eSZBzK1r+3ZccifSU0pNDVJTYpqm0lmOlGoEOIG6s8ltRzVNhUHlbt2vSp+lXIOLB2WJB1pTUZ+SOjZLYO7gE0iS
7EixsMgp/0GT31a5wgtV+IM/VWOioA==
"""
"""zlib, base64: pickle.dumps(pandas.DataFrame(RECORDS), 4) of pandas 2.3.3."""
RECORDS: list[Record] = [
    {
        "user_id": 7,
        "reference_list": [b"liked 0", b"liked 1"],
        "reference_list_bad": [b"bad 0", b"bad 1"],
        "reference_prompt_list": ["a fox", "a hare"],
        "image0": b"new 0",
        "image1": b"new 1",
        "prompt": "a stag",
        "label0": 1.0,
    },
    {
        "user_id": 8,
        "reference_list": [b"liked 2"],
        "reference_list_bad": [b"bad 2"],
        "reference_prompt_list": ["a swan"],
        "image0": b"new 2",
        "image1": b"new 3",
        "prompt": "a heron",
        "label0": 0.0,
    },
    {
        "user_id": 8,
        "reference_list": [],
        "reference_list_bad": [],
        "reference_prompt_list": [],
        "image0": b"new 2",
        "image1": b"new 4",
        "prompt": "a heron",
        "label0": 0.5,
    },
]
SHOWN = [
    ("7", "a fox", b"liked 0", b"bad 0"),
    ("7", "a hare", b"liked 1", b"bad 1"),
    ("7", "a stag", b"new 0", b"new 1"),
    ("8", "a swan", b"liked 2", b"bad 2"),
    ("8", "a heron", b"new 3", b"new 2"),
]
"""Person, caption, and the pictures: the preferred one, the other."""


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    "pickled",
    [
        pytest.param(zlib.decompress(base64.b64decode(DATA_FRAME)), id="data frame"),
        pytest.param(pickle.dumps(RECORDS), id="list of records"),
    ],
)
def test_records_of_a_pickle_become_pairs_of_history_and_candidates(
    tmp_path: Path, pickled: bytes
) -> None:
    path = tmp_path / "bench_test_w_bad.pkl"
    path.write_bytes(pickled)
    *decided, tie = answers_of("learn_user_pref", path)
    found = []
    for answer in decided:
        assert answer.preferred is not None
        ids = [answer.pictures[answer.preferred], answer.pictures[1 - answer.preferred]]
        found.append((answer.person, answer.caption, *ids))
    assert found == [(*who, sha256(better), sha256(worse)) for *who, better, worse in SHOWN]
    assert tie == Answer("8", "a heron", (sha256(b"new 2"), sha256(b"new 4")), None)
    histories = [answer.pictures for answer in decided if answer.caption in ("a fox", "a hare")]
    assert all(shown == tuple(sorted(map(str, shown))) for shown in histories)


def test_pictures_of_a_pickle_are_those_of_its_rows(tmp_path: Path) -> None:
    for number, part in enumerate((RECORDS[:1], RECORDS[1:])):
        (tmp_path / f"bench_train_w_bad_split_{number}.pkl").write_bytes(pickle.dumps(part))
    files = open_files("learn_user_pref", [tmp_path])
    labels = [batch.to_pylist() for _, batch in files.labels()]
    ids = [(each["image_0_uid"], each["image_1_uid"]) for part in labels for each in part]
    places = [(row, side) for row in range(len(files)) for side in (0, 1)]
    bytes_of = [each for each in pictures_of(files, *places) if isinstance(each, bytes)]
    assert [sha256(each) for each in bytes_of] == [uid for pair in ids for uid in pair]
    assert pictures_of(files, (1, 1), (3, 0), (3, 0)) == [
        bytes_of[3],
        bytes_of[6],
        bytes_of[6],
    ]


class Runs:
    """Unpickled as it asks, this would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_nothing_in_a_pickle_runs(tmp_path: Path) -> None:
    path = tmp_path / "bench.pkl"
    path.write_bytes(pickle.dumps([RECORDS[0] | {"user_id": Runs(tmp_path / "ran")}]))
    with pytest.raises(ValueError, match=r"bench.pkl: not read: it asks for posix.mkdir"):
        open_files("learn_user_pref", [path])
    assert not (tmp_path / "ran").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"user_id": 7}, "a dict, expected a list of dictionaries or a data frame"),
        ([{"user_id": 7}], "record 0: no image0, image1"),
        (slice(3), "a slice, expected a list"),
        ([{"user_id": slice(3)}], "a slice where a _reconstruct was expected"),
    ],
)
def test_a_pickle_of_something_else_is_refused_by_name(
    tmp_path: Path, found: object, why: str
) -> None:
    path = tmp_path / "bench.pkl"
    path.write_bytes(pickle.dumps(found))
    with pytest.raises(ValueError, match=rf"bench.pkl.*{why}"):
        open_files("learn_user_pref", [path])


class _Given:
    """Pickled as a call of `what` on arguments, and a state."""

    def __init__(self, what: Any, arguments: tuple[Any, ...], state: Any = None) -> None:
        self.reduced = what, arguments, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def _of_many_nothings() -> Any:
    empty = np.array([], dtype=np.float64)
    reconstruct, arguments, state = empty.__reduce__()[:3]
    assert isinstance(state, tuple)
    rows = (state[0], (10**12, 0), *state[2:])
    return [RECORDS[0] | {"label0": _Given(reconstruct, arguments, rows)}]


def _within_itself() -> Any:
    endless: list[Any] = []
    endless.append(endless)
    return [RECORDS[0] | {"reference_list": endless}]


@pytest.mark.parametrize("crafted", [_of_many_nothings, _within_itself])
def test_a_small_pickle_that_stands_for_endless_lists_is_refused(
    tmp_path: Path, crafted: Callable[[], Any]
) -> None:
    path = tmp_path / "bench.pkl"
    path.write_bytes(pickle.dumps(crafted()))
    with pytest.raises(ValueError, match="not laid out as known"):
        open_files("learn_user_pref", [path])


def test_numbers_as_numpy_pickles_them_are_read(tmp_path: Path) -> None:
    path = tmp_path / "bench.pkl"
    as_numpy = {"user_id": np.int64(7), "label0": np.float32(1)}
    path.write_bytes(pickle.dumps([RECORDS[0] | as_numpy]))
    assert answers_of("learn_user_pref", path)[-1] == Answer(
        "7", "a stag", (sha256(b"new 0"), sha256(b"new 1")), 0
    )


def test_a_ranking_is_the_pairs_of_its_pictures(tmp_path: Path) -> None:
    line = {"person": "7", "caption": "jello", "pictures": ["a", "b", "c"], "ranks": [2, 1, 2]}
    path = tmp_path / "rankings.jsonl"
    path.write_text(json.dumps(line) + "\n")
    assert answers_of("rankings", path) == [
        Answer("7", "jello", ("a", "b"), 1),
        Answer("7", "jello", ("a", "c"), None),
        Answer("7", "jello", ("b", "c"), 0),
    ]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ranks": [1]}, "1 ranks of 2 pictures"),
        ({"pictures": ["a"], "ranks": [1]}, "at least 2 items"),
        ({"rank": 1}, "Extra inputs are not permitted"),
    ],
)
def test_a_ranking_that_is_none_is_named(tmp_path: Path, changes: Record, why: str) -> None:
    line = {"person": "7", "caption": "jello", "pictures": ["a", "b"], "ranks": [1, 2]}
    path = tmp_path / "rankings.jsonl"
    path.write_text(json.dumps(line) + "\n" + json.dumps(line | changes) + "\n")
    with pytest.raises(ValueError, match=rf"(?s)rankings.jsonl, line 2: .*{why}"):
        open_files("rankings", [path])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    write_small_world(folder)
    return folder / "weights"


PEOPLE, PAIRS = 4, 6


def write_layout(layout: LayoutName, folder: Path) -> Path:
    """PEOPLE people with PAIRS pairs each; returns what `data` names."""
    folder.mkdir()
    if layout == "pamela":
        ratings = [
            rating(f"person {person}", f"{person}-{style}-{score}", score, style)
            for person in range(PEOPLE)
            for style in ("Cubism", "Baroque", "Realism")
            for score in range(4)
        ]
        return write_pamela(folder, ratings)
    shown = [
        (person, f"caption {person} {n}", jpeg(9 * (10 * person + n)), jpeg(9 * n + 1, 9, 9 + n))
        for person in range(PEOPLE)
        for n in range(PAIRS)
    ]
    if layout == "learn_user_pref":
        records = [
            RECORDS[2]
            | {"user_id": person, "prompt": caption, "image0": first, "image1": second}
            | {"label0": 1.0}
            for person, caption, first, second in shown
        ]
        (folder / "bench.pkl").write_bytes(pickle.dumps(records))
        return folder
    lines = []
    for number, (person, caption, first, second) in enumerate(shown):
        names = [f"{number}-{side}.jpg" for side in (0, 1)]
        for name, data in zip(names, (first, second), strict=True):
            (folder / name).write_bytes(data)
        line = {"person": str(person), "caption": caption, "pictures": names, "ranks": [1, 2]}
        lines.append(json.dumps(line) + "\n")
    (folder / "rankings.jsonl").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("layout", ["pamela", "learn_user_pref", "rankings"])
def test_other_peoples_data_go_into_precompute_as_they_stand(
    layout: LayoutName, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precompute_module, "get_preset", {"mini": PRESET}.__getitem__)
    config = PrecomputeConfig(
        preset="mini",
        data=str(write_layout(layout, tmp_path / "data")),
        layout=layout,
        weights_dir=weights,
        output_dir=tmp_path / "out",
        held_out="people",
        unseen_people=0,
        seen_people=0,
        support_sets=0,
        vlm=False,
    )
    precompute(config)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["read"]["pairs"] == PEOPLE * PAIRS
    assert summary["unreadable"] == {"pictures": 0, "pairs": 0}
    assert len(load_pairs(tmp_path / "out", "none", PRESET.user_emb_dim)) > 0
    uids = read_lists(tmp_path / "out", "pictures-")
    assert set(plan_of(tmp_path / "out").preferences.pictures) >= set(uids)
    assert read_manifest(tmp_path / "out")["provenance"]["config"]["layout"] == layout
    assert precompute(config, resume=True) == tmp_path / "out"


def test_a_picture_that_was_replaced_by_nothing_is_left_out_with_its_pair(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precompute_module, "get_preset", {"mini": PRESET}.__getitem__)
    data = write_layout("rankings", tmp_path / "data")
    (data / "3-1.jpg").write_bytes(b"")
    config = PrecomputeConfig(
        preset="mini",
        data=str(data),
        layout="rankings",
        weights_dir=weights,
        output_dir=tmp_path / "out",
        held_out="people",
        unseen_people=0,
        seen_people=0,
        support_sets=0,
        vlm=False,
        unreadable_share=0.5,
    )
    precompute(config)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["unreadable"] == {"pictures": 1, "pairs": 1}
