"""Wherever a first start is lost, the next one ends with a key file whose key works."""

import asyncio
import stat
from pathlib import Path

import pytest

from service.infra.secrets import key_sha256, session_secret
from service.infra.sql.database import Database
from service.infra.sql.repositories.keys import Keys
from service.settings import Settings
from service.wiring import prepare


class Lost(BaseException):
    """The process ends here."""


def start(data_dir: Path) -> Path | None:
    return asyncio.run(prepare(Settings(data_dir=data_dir)))


def tenants_of_the_key(data_dir: Path) -> str | None:
    key = (data_dir / "api-key").read_text().strip()

    async def look() -> str | None:
        database = Database(Settings(data_dir=data_dir).database)
        try:
            async with database.read() as store:
                assert len(await store.keys.all()) == 1
                found = await store.keys.active([key_sha256(key)])
                return next((row.tenant for row in found.values()), None)
        finally:
            await database.close()

    return asyncio.run(look())


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    path = start(tmp_path)
    assert path == tmp_path / "api-key"
    key = path.read_text()
    assert start(tmp_path) is None
    assert path.read_text() == key
    assert tenants_of_the_key(tmp_path) == "default"
    path.unlink()  # somebody keeps it elsewhere
    assert start(tmp_path) is None
    assert not path.exists()


@pytest.mark.parametrize("lost_in", ["os.fsync", "pathlib.Path.replace", "keys", "commit"])
def test_a_start_that_is_lost_is_taken_up_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost_in: str
) -> None:
    def lost(*_: object) -> None:
        raise Lost

    async def lost_with_the_row(self: Keys, *what: str) -> None:
        await add(self, *what)
        raise Lost

    add = Keys.add
    with monkeypatch.context() as patched:
        if lost_in == "keys":
            patched.setattr(Keys, "add", lost)
        elif lost_in == "commit":
            patched.setattr(Keys, "add", lost_with_the_row)
        else:
            patched.setattr(lost_in, lost)
        with pytest.raises(Lost):
            start(tmp_path)
    assert start(tmp_path) == tmp_path / "api-key"
    assert tenants_of_the_key(tmp_path) == "default"
    assert stat.S_IMODE((tmp_path / "api-key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


@pytest.mark.parametrize("content", ["", "ppd_", "\x00" * 48])
def test_a_file_that_was_cut_short_is_written_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "api-key").write_text(content)
    assert start(tmp_path) == tmp_path / "api-key"
    assert tenants_of_the_key(tmp_path) == "default"


def test_the_session_secret_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:
        raise Lost

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lost)
        with pytest.raises(Lost):
            session_secret(tmp_path)
    assert len(session_secret(tmp_path)) == 64
    assert session_secret(tmp_path) == session_secret(tmp_path)
