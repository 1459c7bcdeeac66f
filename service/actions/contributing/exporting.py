"""START HERE: contributed answers to a folder of Pick-a-Pic files, and what of them is gone since.

A folder belongs to a row of `exports`, which gives its people and answers random numbers: the same
from one export to the next, and derived from nothing. Every answer has its file. A file that was
made of what it is to be made of stays as it is, so an interrupted export goes on, and a later one
reads the pictures of what is new. Nothing but one group of rows is held in memory.

    FOLDER/choices-00001.parquet ...   what is contributed now
    FOLDER/gone.csv                    what earlier exports had and this one has not
    FOLDER/export.json                 which export this is; "complete": false while it is under way
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service.actions.contributing.pickapic import is_made_of, made_of, pickapic_file, row_of
from service.core.pool import Pool
from service.infra.parts import Parts
from service.infra.pictures.verified import DamagedPicture, read_verified
from service.infra.sql.oversight.exports import Contributed
from service.infra.sql.tables import Export
from service.infra.whole_files import PART, whole_file, write_whole

ABOUT = "export.json"
GONE = "gone.csv"
FILE_ROWS = 1000
_READ_AT_ONCE = 8
"""Answers whose pictures are asked of the store together."""


@dataclass
class Told:
    """What an export came to. Ties are among the answers; what was left out is not."""

    export: int
    answers: int = 0
    ties: int = 0
    people: int = 0
    files: int = 0
    files_written: int = 0
    pair_not_in_pool: int = 0
    """Answers to pairs that the service's pool no longer has."""
    picture_lost: int = 0
    """Answers of which a picture is not in the image store, or is damaged."""
    people_gone: int = 0
    """Since the export before, as the next."""
    answers_gone: int = 0


async def export_choices(
    parts: Parts,
    folder: Path,
    who: str,
    file_rows: int = FILE_ROWS,
    told: Callable[[str], None] = lambda _: None,
) -> Told:
    """Bring a folder up to what is contributed now; `who` does it, for the audit record.

    One export at a time may write to a folder. Raises ValueError for a folder that holds something
    else or another service's export, and OSError where a store does not answer: run it again.
    """
    mark = _prepared(folder)
    export = await _export_of(parts, folder, mark)
    _about(folder, export, {"complete": False})
    after_pk: int | None = 0
    while after_pk is not None:
        async with parts.database.write() as store:
            after_pk = await store.exports.take_in(export, after_pk, file_rows)
    async with parts.database.write() as store:
        await store.exports.note_gone(export)
    counts = Told(export.number + 1)
    async with parts.database.read() as store:
        files = await store.exports.files(export)
        counts.people = await store.exports.people(export)
    pool = _PoolPictures(parts.pool)
    for number in range(1, files + 1):
        written = await _file(parts, export, number, folder, pool, counts)
        if written is not None:
            told(f"{written} ({number} of {files})")
    await _gone(parts, export, folder / GONE, counts)
    async with parts.database.write() as store:
        finished_at = await store.exports.finish(export)
        await store.audit.note(who, "choices.exported", f"export:{export.mark}", **asdict(counts))
    said = {"complete": True, "finished_at": finished_at.isoformat(), **asdict(counts)}
    _about(folder, export, said)
    return counts


def _prepared(folder: Path) -> str | None:
    """The mark of the export that a folder holds; None for an empty one. Makes it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    parts = list(folder.glob(f"{PART}*"))
    about, mark = folder / ABOUT, None
    if about.exists():
        mark = str(json.loads(about.read_text(encoding="utf-8")).get("mark"))
    elif any(path.name != "lock" and path not in parts for path in folder.iterdir()):
        raise ValueError(f"{folder} holds something else than an export: name a new folder")
    for part in parts:
        part.unlink()
    return mark


async def _export_of(parts: Parts, folder: Path, mark: str | None) -> Export:
    """The row that a folder belongs to; a new one's for an empty folder."""
    if mark is None:
        async with parts.database.write() as store:
            return await store.exports.begin()
    async with parts.database.read() as store:
        export = await store.exports.of(mark)
    if export is None:
        raise ValueError(f"{folder} holds the export of another service: name a new folder")
    return export


def _about(folder: Path, export: Export, said: dict[str, Any]) -> None:
    text = json.dumps({"mark": export.mark, "export": export.number + 1, **said}, indent=1)
    write_whole(folder / ABOUT, f"{text}\n".encode())


async def _file(
    parts: Parts,
    export: Export,
    number: int,
    folder: Path,
    pool: "_PoolPictures",
    counts: Told,
) -> str | None:
    """One file brought up to date; its name where it was written."""
    async with parts.database.read() as store:
        found = await store.exports.answers(export, number)
    asked = [one for one in found if one.images is not None or pool.has(one.choice.pair_id)]
    counts.pair_not_in_pool += len(found) - len(asked)
    rows = [row_of(one, *_named(one, pool)) for one in asked]
    path = folder / f"choices-{number:05}.parquet"
    digest = made_of(rows)
    lost: set[int] = set()
    whole = is_made_of(path, digest, len(rows))
    if not whole:
        lost = await _write(parts, path, digest, asked, rows, pool)
    if len(lost) == len(rows):
        path.unlink(missing_ok=True)
        whole = True
    counts.files += len(rows) > len(lost)
    counts.files_written += not whole
    counts.picture_lost += len(lost)
    counts.answers += len(rows) - len(lost)
    counts.ties += sum(one.choice.preferred is None for one in asked if one.answer not in lost)
    return None if whole else path.name


async def _write(
    parts: Parts,
    path: Path,
    digest: str,
    asked: Sequence[Contributed],
    rows: Sequence[dict[str, Any]],
    pool: "_PoolPictures",
) -> set[int]:
    """Write a file; gives the answers whose pictures are lost, which are not in it."""
    lost = set()
    with pickapic_file(path, digest) as file:
        for start in range(0, len(asked), _READ_AT_ONCE):
            part = asked[start : start + _READ_AT_ONCE]
            pictures = await asyncio.gather(*(_pictures(parts, one, pool) for one in part))
            for row, both in zip(rows[start:], pictures, strict=False):
                if both is None:
                    lost.add(int(row["ranking_id"]))
                else:
                    file.add(row, both)
    return lost


async def _pictures(
    parts: Parts, one: Contributed, pool: "_PoolPictures"
) -> tuple[bytes, bytes] | None:
    """Both files; None where one is lost."""
    try:
        if one.images is None:
            return pool.both(one.choice.pair_id)
        first, second = [await read_verified(parts.images, image) for image in one.images]
        return first, second
    except (FileNotFoundError, DamagedPicture):
        return None


def _named(one: Contributed, pool: "_PoolPictures") -> tuple[Sequence[str], Sequence[str]]:
    """The names of an answer's pictures, by their bytes, and what made them."""
    if one.images is None:
        return pool.uids(one.choice.pair_id), ("pool", "pool")
    return [image.sha256 for image in one.images], _models(one.choice.made)


def _models(made: dict[str, Any] | None) -> tuple[str, str]:
    if made is None:
        return "own", "own"
    if made.get("personal") is None:
        return "made", "made"
    personal = f"adapter {made['adapter_version']}"
    return (personal, "base") if made["personal"] == 0 else ("base", personal)


class _PoolPictures:
    """The pool's files, and their names."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._uid_of: dict[str, str] = {}

    def has(self, pair_id: str | None) -> bool:
        return pair_id is not None and self._pool.get(pair_id) is not None

    def both(self, pair_id: str | None) -> tuple[bytes, bytes]:
        first, second = (path.read_bytes() for path in self._paths(pair_id))
        return first, second

    def uids(self, pair_id: str | None) -> tuple[str, str]:
        first, second = (self._uid(path) for path in self._paths(pair_id))
        return first, second

    def _paths(self, pair_id: str | None) -> list[Path]:
        pair = None if pair_id is None else self._pool.get(pair_id)
        assert pair is not None
        return [self._pool.image_path(image) for image in pair.images]

    def _uid(self, path: Path) -> str:
        if path.name not in self._uid_of:
            self._uid_of[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._uid_of[path.name]


async def _gone(parts: Parts, export: Export, path: Path, counts: Told) -> None:
    """Who and what is gone: all of it, with the export that was the first without it."""
    with whole_file(path) as file:
        file.write(b"export,what,user_id,ranking_id\n")
        async with parts.database.read() as store:
            async for one in store.exports.gone(export):
                what = "person" if one.answer is None else "answer"
                answer = "" if one.answer is None else one.answer
                file.write(f"{one.export},{what},{one.person},{answer}\n".encode())
                if one.export == counts.export:
                    counts.people_gone += one.answer is None
                    counts.answers_gone += one.answer is not None
