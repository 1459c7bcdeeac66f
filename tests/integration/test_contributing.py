"""Answers that people contribute, exported for training; and what is gone since."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from service.actions.contributing.exporting import Told, export_choices
from service.actions.contributing.pickapic import PICTURES, SCHEMA
from service.infra.whole_files import PART
from tests.integration.conftest import Start
from tests.integration.test_made_pairs import made
from tests.integration.test_object_store import own_pairs, parts_of
from tests.integration.test_preferences import post
from tests.running_service import Service
from tests.s3_server import s3_server
from training.data.pickapic import SCHEMA as PICK_A_PIC
from training.data.pickapic import PickAPic
from training.data.preferences import read_preferences

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


async def contribute(service: Service, user_id: str, yes: bool = True) -> dict[str, Any]:
    answer = await service.client().put(f"/users/{user_id}/contribution", json={"contribute": yes})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def export(service: Service, folder: Path, file_rows: int = 1000) -> Told:
    return await export_choices(parts_of(service), folder, "operator:test", file_rows)


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [
        row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def gone_in(folder: Path) -> list[dict[str, str]]:
    with (folder / "gone.csv").open() as file:
        return list(csv.DictReader(file))


def person_in(folder: Path) -> int:
    """The one person of an export."""
    (person,) = {row["user_id"] for row in rows_in(folder)}
    return int(person)


async def test_contributing_is_off_until_it_is_switched_on_and_everywhere_to_be_seen(
    service: Service,
) -> None:
    client = service.client()
    await service.answer(client, "ann")
    assert (await client.get("/users/ann/preferences")).json()["contribute"] is False
    assert (await client.get("/users/ann/export")).json()["contributes_since"] is None
    on = await contribute(service, "ann")
    assert (on["user_id"], on["contribute"]) == ("ann", True)
    assert (await contribute(service, "ann")) == on, "since when stays"
    assert (await client.get("/users/ann/preferences")).json()["contribute"] is True
    assert (await client.get("/users/ann/export")).json()["contributes_since"][:19] == on["since"][
        :19
    ]
    off = await contribute(service, "ann", yes=False)
    assert (off["contribute"], off["since"]) == (False, None)
    assert (await client.get("/users/ann/preferences")).json()["contribute"] is False
    async with service.database.read() as store:
        noted = [entry.what for entry in await store.audit.since(None, 0, 100)]
    assert [what for what in noted if what.startswith("person")] == [
        "person.contributes",
        "person.withdrew",
    ]


async def test_a_browser_decides_for_its_own_person_alone(service: Service) -> None:
    (ann, ann_id), (bob, _) = await service.session(), await service.session()
    wish = {"contribute": True}
    assert (await bob.put(f"/users/{ann_id}/contribution", json=wish)).status_code == 404
    assert (await ann.get(f"/users/{ann_id}/preferences")).json()["contribute"] is False
    assert (await ann.put(f"/users/{ann_id}/contribution", json=wish)).status_code == 200
    for wrong in ({}, {"contribute": 1}, {"contribute": True, "x": 1}):
        assert (await ann.put(f"/users/{ann_id}/contribution", json=wrong)).status_code == 422


async def test_an_export_has_every_kind_of_answer_of_those_who_contribute(
    service: Service, tmp_path: Path
) -> None:
    client = service.client()
    await service.answer(client, "ann", (0, 1, None, 1))
    await service.answer(client, "bob")
    await post(client, "ann", own_pairs(1)["choices"])
    ids = [await made(service, client), await made(service, client, user_id="ann")]
    await post(client, "ann", [{"image_ids": ids, "preferred": 1}])
    await contribute(service, "ann")
    told = await export(service, tmp_path / "export")
    assert (told.answers, told.ties, told.people, told.files) == (6, 1, 1, 1)
    rows = rows_in(tmp_path / "export")
    assert {(row["model_0"], row["model_1"]) for row in rows} == {
        ("pool", "pool"),
        ("own", "own"),
        ("base", "adapter fake-adapter-1"),
    }
    by_model = {row["model_0"]: row for row in rows}
    picture = await client.get(f"/images/{ids[1]}")
    assert by_model["base"]["jpg_1"] == picture.content
    assert (by_model["base"]["caption"], by_model["base"]["label_1"]) == ("a fox", 1.0)
    assert by_model["base"]["best_image_uid"] == by_model["base"]["image_1_uid"]
    (tie,) = [row for row in rows if row["label_0"] == 0.5]
    assert (tie["label_1"], tie["best_image_uid"], tie["are_different"]) == (0.5, "tie", False)
    for row in rows:
        assert row["created_at"].time().isoformat() == "00:00:00"
        assert row["user_id"] > 2**20
        assert "ann" not in json.dumps(row, default=str)
    about = json.loads((tmp_path / "export" / "export.json").read_text())
    assert (about["complete"], about["export"], about["answers"]) == (True, 1, 6)


async def test_training_reads_an_export_as_it_stands(service: Service, tmp_path: Path) -> None:
    assert SCHEMA.equals(PICK_A_PIC)
    client = service.client()
    for user_id in ("ann", "bob"):
        await service.answer(client, user_id)
        await service.answer(client, user_id, (1, 1, None, 0))
        await contribute(service, user_id)
    await export(service, tmp_path / "export", file_rows=3)
    files = PickAPic([tmp_path / "export"])
    assert len(files.files) == 6
    read = read_preferences(files)
    assert (len(read), read.counts.users, read.counts.ties) == (14, 2, 2)
    assert read.counts.contradictions == read.counts.incomplete == 0


async def test_nobody_contributing_makes_an_empty_export(service: Service, tmp_path: Path) -> None:
    await service.answer(service.client(), "ann")
    told = await export(service, tmp_path / "export")
    assert (told.answers, told.files) == (0, 0)
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == [
        "export.json",
        "gone.csv",
    ]


async def test_numbers_hold_from_export_to_export_and_differ_between_folders(
    service: Service, tmp_path: Path
) -> None:
    client = service.client()
    await service.answer(client, "ann")
    await contribute(service, "ann")
    await export(service, tmp_path / "one")
    first = rows_in(tmp_path / "one")
    inode = (tmp_path / "one" / "choices-00001.parquet").stat().st_ino
    again = await export(service, tmp_path / "one")
    assert (again.export, again.files_written) == (2, 0)
    assert (tmp_path / "one" / "choices-00001.parquet").stat().st_ino == inode
    await service.answer(client, "ann")
    assert (await export(service, tmp_path / "one", file_rows=4)).files_written == 1
    assert rows_in(tmp_path / "one")[:4] == first
    assert person_in(tmp_path / "one") == first[0]["user_id"]
    await export(service, tmp_path / "other")
    numbers = [
        {row[name] for row in rows_in(tmp_path / folder)}
        for folder in ("one", "other")
        for name in ("user_id", "ranking_id")
    ]
    assert numbers[0].isdisjoint(numbers[2])
    assert numbers[1].isdisjoint(numbers[3])


async def test_who_withdraws_is_gone_from_the_next_export_and_named_by_number_alone(
    service: Service, tmp_path: Path
) -> None:
    client, folder = service.client(), tmp_path / "export"
    for user_id in ("ann", "bob"):
        await service.answer(client, user_id)
    await contribute(service, "ann")
    await export(service, folder)
    ann = person_in(folder)
    assert gone_in(folder) == []
    await contribute(service, "ann", yes=False)
    await contribute(service, "bob")
    told = await export(service, folder)
    assert (told.answers, told.people, told.people_gone, told.answers_gone) == (4, 1, 1, 0)
    assert person_in(folder) != ann
    gone = [{"export": "2", "what": "person", "user_id": str(ann), "ranking_id": ""}]
    assert gone_in(folder) == gone
    await contribute(service, "ann")
    await export(service, folder)
    assert ann not in {row["user_id"] for row in rows_in(folder)}, "she comes as somebody new"
    assert len({row["user_id"] for row in rows_in(folder)}) == 2
    assert gone_in(folder) == gone, "which export was the first without her stays"


async def test_who_is_erased_is_gone_from_the_next_export_and_named_by_number_alone(
    service: Service, tmp_path: Path
) -> None:
    client, folder = service.client(), tmp_path / "export"
    await service.answer(client, "ann")
    await post(client, "ann", own_pairs(1)["choices"])
    await contribute(service, "ann")
    await export(service, folder)
    ann = person_in(folder)
    assert (await client.delete("/users/ann")).status_code == 200
    told = await export(service, folder)
    assert (told.answers, told.people_gone, told.answers_gone) == (0, 1, 0)
    assert list(folder.glob("*.parquet")) == []
    assert [one["user_id"] for one in gone_in(folder)] == [str(ann)]


async def test_an_answer_that_is_taken_back_is_named_and_a_changed_one_follows(
    service: Service, tmp_path: Path
) -> None:
    client, folder = service.client(), tmp_path / "export"
    await service.answer(client, "ann", (0, 0, 0, 0))
    await service.answer(client, "ann", (0, 0, 0, 0))
    await contribute(service, "ann")
    await export(service, folder, file_rows=4)
    before = {row["ranking_id"] for row in rows_in(folder)}
    ids = [one["id"] for one in (await client.get("/users/ann/preferences")).json()["choices"]]
    await client.delete(f"/users/ann/preferences/{ids[0]}")
    await client.patch(f"/users/ann/preferences/{ids[1]}", json={"preferred": 1})
    told = await export(service, folder, file_rows=4)
    assert (told.files_written, told.people_gone, told.answers_gone) == (1, 0, 1)
    rows = rows_in(folder)
    assert sorted(row["label_1"] for row in rows) == [0.0] * 6 + [1.0]
    (gone,) = gone_in(folder)
    assert gone["what"] == "answer"
    assert {int(gone["ranking_id"])} == before - {row["ranking_id"] for row in rows}


async def test_a_lost_picture_costs_its_answer_alone_and_is_looked_for_again(
    service: Service, tmp_path: Path
) -> None:
    client, folder = service.client(), tmp_path / "export"
    await service.answer(client, "ann")
    await post(client, "ann", own_pairs(1)["choices"])
    await contribute(service, "ann")
    first, *_ = (service.settings.data_dir / "images").rglob("*.png")
    kept = first.read_bytes()
    first.write_bytes(kept + b"x")
    told = await export(service, folder)
    assert (told.answers, told.picture_lost) == (4, 1)
    first.unlink()
    assert (await export(service, folder)).picture_lost == 1
    first.write_bytes(kept)
    told = await export(service, folder)
    assert (told.answers, told.picture_lost, told.answers_gone) == (5, 0, 0)


async def test_an_export_that_broke_off_goes_on_where_it_was(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, folder = service.client(), tmp_path / "export"
    for _ in range(3):
        await post(client, "ann", own_pairs(1)["choices"])
    await contribute(service, "ann")
    store = parts_of(service).images
    get, asked = store.get, 0

    async def away_at_the_third(key: str) -> bytes:
        nonlocal asked
        asked += 1
        if asked > 2:
            raise OSError("the image store does not answer")
        return bytes(await get(key))

    monkeypatch.setattr(store, "get", away_at_the_third)
    with pytest.raises(OSError, match="does not answer"):
        await export(service, folder, file_rows=1)
    (written,) = folder.glob("*.parquet")
    inode = written.stat().st_ino
    assert json.loads((folder / "export.json").read_text())["complete"] is False
    (folder / f"{PART}left-by-a-kill").write_bytes(b"half a file")
    monkeypatch.setattr(store, "get", get)
    told = await export(service, folder, file_rows=1)
    assert (told.export, told.answers, told.files, told.files_written) == (1, 3, 3, 2)
    assert written.stat().st_ino == inode
    assert not list(folder.glob(f"{PART}*"))


async def test_a_folder_that_holds_something_else_is_refused(
    service: Service, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "letters.txt").write_text("mine")
    (other / f"{PART}letter").write_text("mine, too")
    with pytest.raises(ValueError, match="something else"):
        await export(service, other)
    assert (other / f"{PART}letter").exists()
    (other / "export.json").write_text('{"mark": "of-nobody"}')
    with pytest.raises(ValueError, match="another service"):
        await export(service, other)


@pytest.mark.sqlite_only
async def test_pictures_come_out_of_an_object_store_too(start: Start, tmp_path: Path) -> None:
    with s3_server() as bucket:
        service = await start(**bucket.settings)
        await post(service.client(), "ann", own_pairs(2)["choices"])
        await contribute(service, "ann")
        told = await export(service, tmp_path / "export")
        assert (told.answers, told.files_written) == (2, 1)
        pictures = {row[name] for row in rows_in(tmp_path / "export") for name in PICTURES}
        assert pictures == set(bucket.objects.values())


async def test_every_taste_of_a_person_has_a_number_of_its_own_and_goes_with_the_person(
    service: Service, tmp_path: Path
) -> None:
    client, folder = service.client(), tmp_path / "export"
    await service.answer(client, "ann")
    await contribute(service, "ann")
    quiz = (await client.get("/users/ann/quiz", params={"taste": "work"})).json()
    answer = {"choices": [{"pair_id": quiz["pairs"][0]["pair_id"], "preferred": 1}]}
    posted = await client.post("/users/ann/preferences", params={"taste": "work"}, json=answer)
    assert posted.status_code == 202, posted.text
    told = await export(service, folder)
    assert (told.answers, told.people) == (5, 2)
    numbers = {str(row["user_id"]) for row in rows_in(folder)}
    await client.delete("/users/ann")
    assert (await export(service, folder)).people_gone == 2
    assert {one["user_id"] for one in gone_in(folder)} == numbers
