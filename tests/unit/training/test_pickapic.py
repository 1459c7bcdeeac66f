"""Reading parquet files in Pick-a-Pic's schema."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ppd_model.pictures.reading import PictureError
from tests.fake_pickapic import jpeg, row, write
from training.data.pickapic import LABELS, SCHEMA, PickAPic


def numbered(first: int, count: int) -> list[dict[str, object]]:
    return [
        row(1, f"caption {n}", f"{n}a", f"{n}b", 0, jpg_0=jpeg(n), jpg_1=jpeg(100 + n))
        for n in range(first, first + count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Rows 0 to 9 in row groups of 3, in two files that were not written in order."""
    write(tmp_path / "train-00001.parquet", numbered(6, 4), per_group=3)
    write(tmp_path / "train-00000.parquet", numbered(0, 6), per_group=3)
    return tmp_path


def test_labels_come_in_batches_of_the_needed_columns_over_all_files(folder: Path) -> None:
    files = PickAPic([folder])
    assert len(files) == 10
    batches = list(files.labels(batch_rows=4))
    assert [first for first, _ in batches] == [0, 4, 6]
    assert all(set(batch.schema.names) == set(LABELS) for _, batch in batches)
    read = [text for _, batch in batches for text in batch.column("caption").to_pylist()]
    assert read == [f"caption {n}" for n in range(10)]


def test_a_place_may_be_a_folder_a_file_or_a_pattern_and_counts_once(folder: Path) -> None:
    every = PickAPic([folder, folder / "train-00000.parquet", f"{folder}/train-*.parquet"])
    assert [path.name for path in every.files] == ["train-00000.parquet", "train-00001.parquet"]
    with pytest.raises(ValueError, match=r"nothing\*: no parquet file"):
        PickAPic([f"{folder}/nothing*"])


def test_a_missing_column_is_named_with_its_file(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(numbered(0, 1), schema=SCHEMA)
    path = tmp_path / "lacking.parquet"
    pq.write_table(table.drop_columns(["label_1", "user_id"]), path)
    with pytest.raises(ValueError, match=r"lacking\.parquet: no column 'label_1', 'user_id'"):
        PickAPic([path])


def test_columns_that_are_never_read_may_be_missing(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(numbered(0, 1), schema=SCHEMA)
    path = tmp_path / "mirror.parquet"
    pq.write_table(table.drop_columns(["__index_level_0__", "image_0_url"]), path)
    assert len(PickAPic([path])) == 1


def test_a_column_of_another_type_is_named_with_its_file(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(numbered(0, 1), schema=SCHEMA)
    place = table.schema.get_field_index("label_0")
    path = tmp_path / "typed.parquet"
    pq.write_table(table.set_column(place, "label_0", pa.array(["yes"])), path)
    with pytest.raises(ValueError, match=r"typed\.parquet: column 'label_0' is string"):
        PickAPic([path])


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match=r"broken\.parquet: not a readable parquet file"):
        PickAPic([tmp_path])


def test_pictures_come_as_they_are_in_the_order_asked_for(folder: Path) -> None:
    wanted = np.array([[1, 0], [1, 1], [5, 1], [7, 0], [9, 1]])
    found = list(PickAPic([folder]).pictures(wanted))
    assert found == [jpeg(1), jpeg(101), jpeg(105), jpeg(7), jpeg(109)]
    assert list(PickAPic([folder]).pictures(np.zeros((0, 2), dtype=np.int64))) == []
    with pytest.raises(ValueError, match="in the order of their rows"):
        list(PickAPic([folder]).pictures(wanted[::-1]))


def test_row_groups_without_a_wanted_picture_are_not_read(folder: Path) -> None:
    path = folder / "train-00000.parquet"
    with pq.ParquetFile(path) as file:
        chunk = file.metadata.row_group(0).column(SCHEMA.get_field_index("jpg_0"))
        begin, size = chunk.data_page_offset, chunk.total_compressed_size
    damaged = bytearray(path.read_bytes())
    damaged[begin : begin + size // 2] = bytes(size // 2)
    path.write_bytes(damaged)
    files = PickAPic([folder])
    assert list(files.pictures(np.array([[4, 0]]))) == [jpeg(4)]
    (damage,) = files.pictures(np.array([[1, 0]]))
    assert isinstance(damage, PictureError)
    assert "its part of the file cannot be read" in str(damage)


def test_a_row_without_a_picture_has_the_reason_in_its_place(tmp_path: Path) -> None:
    rows = numbered(0, 5)
    rows[4]["jpg_1"] = None
    write(tmp_path / "gap.parquet", rows, per_group=2)
    files = PickAPic([tmp_path])
    first, gap = files.pictures(np.array([[4, 0], [4, 1]]))
    assert first == jpeg(4)
    assert isinstance(gap, PictureError)
    assert files.place_of(4).endswith("gap.parquet, row 4")


def test_other_contents_have_another_fingerprint(tmp_path: Path) -> None:
    write(tmp_path / "one.parquet", numbered(0, 3))
    before = PickAPic([tmp_path]).fingerprint()
    assert before == PickAPic([tmp_path]).fingerprint()
    assert (before[0]["file"], before[0]["rows"]) == ("one.parquet", 3)
    write(tmp_path / "one.parquet", numbered(1, 3))
    assert PickAPic([tmp_path]).fingerprint() != before


def test_pictures_in_structs_of_bytes_and_path_are_read(tmp_path: Path) -> None:
    rows = numbered(0, 3)
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    for name, field in (("jpg_0", pa.binary()), ("jpg_1", pa.large_binary())):
        column = pa.array(
            [{"path": f"{n}.jpg", "bytes": each[name]} for n, each in enumerate(rows)],
            pa.struct([("bytes", field), ("path", pa.string())]),
        )
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, tmp_path / "structs.parquet")
    found = list(PickAPic([tmp_path]).pictures(np.array([[0, 0], [1, 1], [2, 0]])))
    assert found == [jpeg(0), jpeg(101), jpeg(2)]


def test_a_struct_without_bytes_is_named(tmp_path: Path) -> None:
    rows = numbered(0, 2)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    place = table.schema.get_field_index("jpg_0")
    linked = pa.array([{"bytes": None, "path": "a.jpg"}] * 2, kind)
    pq.write_table(table.set_column(place, "jpg_0", linked), tmp_path / "linked.parquet")
    (found,) = PickAPic([tmp_path / "linked.parquet"]).pictures(np.array([[1, 0]]))
    assert isinstance(found, PictureError)
    paths = pa.array([{"path": "a"}] * 2, pa.struct([("path", pa.string())]))
    pq.write_table(table.set_column(place, "jpg_0", paths), tmp_path / "paths.parquet")
    with pytest.raises(ValueError, match="expected bytes"):
        PickAPic([tmp_path / "paths.parquet"])
