"""An operator exports contributed answers, without the API."""

import fcntl
import json
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from service.cli.commands import app
from service.infra.sql import migrate

RUN = CliRunner()
AT = "2026-01-01 00:00:00"


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ann contributes, Bob does not; Ann has also answered to a pair that is no longer there."""
    monkeypatch.setenv("PPD_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    url = f"sqlite:///{tmp_path / 'data' / 'ppd.db'}"
    migrate.upgrade(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        for user, since in (("ann", f"'{AT}'"), ("bob", "NULL")):
            connection.execute(
                text(
                    "INSERT INTO users (pk, tenant, user_id, created_at, contributes_since)"
                    f" VALUES ('{user}', 'shop', '{user}', '{AT}', {since})"
                )
            )
            for pair in ("fish-night-1", "gone-from-the-pool"):
                connection.execute(
                    text(
                        "INSERT INTO choices (user_pk, pair_id, caption, preferred, swapped,"
                        f" created_at) VALUES ('{user}', '{pair}', 'a fish', 1, 0, '{AT}')"
                    )
                )
    engine.dispose()
    return tmp_path / "data"


def test_contributed_answers_are_exported_and_what_is_left_out_is_said(
    data_dir: Path, tmp_path: Path
) -> None:
    done = RUN.invoke(app, ["choices", "export", str(tmp_path / "choices")])
    assert done.exit_code == 0, done.output
    assert "export 1: 1 answers (0 ties) of 1 people in 1 files" in done.stdout
    assert "1 answers to pairs that the pool no longer has" in done.stdout
    about = json.loads((tmp_path / "choices" / "export.json").read_text())
    assert (about["answers"], about["pair_not_in_pool"]) == (1, 1)
    again = RUN.invoke(app, ["choices", "export", str(tmp_path / "choices")])
    assert "export 2: 1 answers (0 ties) of 1 people in 1 files, 0 of them written" in again.stdout


def test_two_exports_at_once_to_one_folder_are_refused(data_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "choices"
    folder.mkdir()
    with (folder / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        refused = RUN.invoke(app, ["choices", "export", str(folder)])
    assert (refused.exit_code, "another export already runs" in refused.stderr) == (1, True)
