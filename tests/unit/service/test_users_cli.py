"""An operator exports and erases a person, and sweeps the image store, without the API."""

import json
import os
import stat
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
    """A person `ann` of tenant `acme` with one picture."""
    monkeypatch.setenv("PPD_DATA_DIR", str(tmp_path))
    url = f"sqlite:///{tmp_path / 'ppd.db'}"
    migrate.upgrade(url)
    engine = create_engine(url)
    with engine.begin() as connection:
        for row in (
            "INSERT INTO users (pk, tenant, user_id, created_at, seen_at)"
            f" VALUES ('u', 'acme', 'ann', '{AT}', '{AT}')",
            "INSERT INTO jobs (id, kind, priority, tenant, user_pk, status, seq, attempt, request,"
            f" created_at) VALUES ('j', 'generate', 1, 'acme', 'u', 'succeeded', 1, 1, '{{}}',"
            f" '{AT}')",
            "INSERT INTO images VALUES "
            f"('i', 'acme', 'u', 'j', 'generated', 0, 'j/1-0.png', 'x', 1, 1, 1, '{AT}')",
        ):
            connection.execute(text(row))
    engine.dispose()
    put(tmp_path, "j/1-0.png")
    return tmp_path


def put(data_dir: Path, key: str) -> Path:
    path = data_dir / "images" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_a_person_is_exported_to_the_screen_or_to_a_private_file(data_dir: Path) -> None:
    shown = RUN.invoke(app, ["users", "export", "ann", "--tenant", "acme"])
    assert shown.exit_code == 0, shown.output
    export = json.loads(shown.stdout)
    assert [image["id"] for image in export["images"]] == ["i"]
    out = data_dir / "ann.json"
    written = ["users", "export", "ann", "--tenant", "acme", "--out", str(out)]
    assert RUN.invoke(app, written).exit_code == 0
    assert json.loads(out.read_text()) == export
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert RUN.invoke(app, written).exit_code == 1, "nothing is written over"


def test_a_person_is_erased_after_a_question(data_dir: Path) -> None:
    command = ["users", "erase", "ann", "--tenant", "acme"]
    assert RUN.invoke(app, command, input="n\n").exit_code == 1
    assert b"acmeann" in (data_dir / "ppd.db").read_bytes()
    assert (data_dir / "images" / "j" / "1-0.png").exists()
    erased = RUN.invoke(app, [*command, "--yes"])
    assert erased.exit_code == 0, erased.output
    assert "1 jobs, 1 images erased" in erased.stdout
    assert list((data_dir / "images").rglob("*.png")) == []
    assert b"acmeann" not in (data_dir / "ppd.db").read_bytes()
    again = RUN.invoke(app, [*command, "--yes"])
    assert (again.exit_code, "has no user ann" in again.stderr) == (1, True)


@pytest.mark.parametrize("command", [["export", "ann"], ["erase", "ann", "--yes"]])
def test_a_person_of_another_tenant_is_not_found(
    data_dir: Path, tmp_path: Path, command: list[str]
) -> None:
    out = ["--out", str(tmp_path / "x.json")] if command[0] == "export" else []
    assert RUN.invoke(app, ["users", *command, *out]).exit_code == 1
    assert not (tmp_path / "x.json").exists()
    assert (data_dir / "images" / "j" / "1-0.png").exists()


def test_old_pictures_without_rows_are_swept(data_dir: Path) -> None:
    lost, fresh = put(data_dir, "lost/1-0.png"), put(data_dir, "fresh/1-0.png")
    for path in (lost, data_dir / "images" / "j" / "1-0.png"):
        os.utime(path, (0, 0))
    swept = RUN.invoke(app, ["images", "sweep"])
    assert swept.stdout == "1 pictures removed\n", swept.output
    assert not lost.exists()
    assert fresh.exists()
    assert RUN.invoke(app, ["images", "sweep", "--older-than-hours", "0"]).exit_code != 0


@pytest.mark.parametrize(
    "command", [["users", "erase", "ann", "--yes"], ["images", "sweep"], ["users", "export", "ann"]]
)
def test_secrets_in_files_name_the_database_here_too(
    data_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    secrets = tmp_path_factory.mktemp("secrets")
    (secrets / "ppd_database_url").write_text("mysql://elsewhere/ppd")
    monkeypatch.setattr("service.settings.SECRETS_DIR", secrets)
    refused = RUN.invoke(app, command)
    assert refused.exit_code == 1
    assert "PPD_DATABASE_URL" in refused.output
