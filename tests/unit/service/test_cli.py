"""`ppd`: keys by hand, the schema, and a doctor that finds what is wrong."""

import asyncio
import json
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from service.cli.commands import app
from service.cli.doctor import examine
from service.infra.adapters import keep
from service.infra.pictures.folder_store import FolderImageStore
from service.infra.sql import migrate
from service.settings import Settings, read, unknown_variables
from service.wiring import open_database, sole_user_of
from tests.fake_runtime import FakeRuntime


def ppd(data_dir: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, [*words, "--data-dir", str(data_dir)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout + result.stderr


def begun(tmp_path: Path) -> Path:
    """The data folder of a service that has been there."""
    assert ppd(tmp_path / "d", "migrate")[0] == 0
    return tmp_path / "d"


def test_where_no_service_has_been_no_key_is_made(tmp_path: Path) -> None:
    code, output = ppd(tmp_path / "d", "keys", "create", "--name", "mine")
    assert code == 1
    assert f"there is no service in {tmp_path / 'd'}" in output
    assert "PPD_DATABASE_URL" in output
    assert not (tmp_path / "d").exists()


def test_a_key_is_shown_once_listed_without_itself_and_revoked_once(tmp_path: Path) -> None:
    data_dir = begun(tmp_path)
    code, output = ppd(data_dir, "keys", "create", "--name", "mine", "--tenant", "shop")
    assert code == 0
    key = output.split()[0]
    assert key.startswith("ppd_")
    assert len(key) == 47
    _, listed = ppd(data_dir, "keys", "list")
    row = next(line for line in listed.splitlines() if "shop" in line)
    assert "mine" in row
    assert key not in listed
    assert ppd(data_dir, "keys", "revoke", row.split()[0]) == (0, "revoked\n")
    assert ppd(data_dir, "keys", "revoke", row.split()[0])[0] == 1
    assert "revoked" in ppd(data_dir, "keys", "list")[1]


def test_a_key_has_a_scope_and_the_last_admins_end_is_warned_of(tmp_path: Path) -> None:
    data_dir = begun(tmp_path)
    ppd(data_dir, "keys", "create", "--name", "desk", "--scope", "admin")
    assert ppd(data_dir, "keys", "create", "--name", "x", "--scope", "root")[0] == 2
    rows = [line.split() for line in ppd(data_dir, "keys", "list")[1].splitlines()]
    admins = [row[0] for row in rows if "admin" in row]
    assert len(admins) == 2
    assert ppd(data_dir, "keys", "revoke", admins[0]) == (0, "revoked\n")
    code, output = ppd(data_dir, "keys", "revoke", admins[1])
    assert code == 0
    assert "no admin key is in use" in output


def test_a_key_that_is_unknown_is_not_revoked(tmp_path: Path) -> None:
    code, output = ppd(begun(tmp_path), "keys", "revoke", "unknown")
    assert (code, output) == (1, "there is no key unknown in use\n")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 129])
def test_some_names_of_keys_cannot_be(tmp_path: Path, name: str) -> None:
    code, output = ppd(tmp_path / "d", "keys", "create", "--name", name)
    assert code == 1
    assert "cannot be a name" in output


@pytest.mark.parametrize("tenant", ["browser", "", "a b", "../x", "x" * 65])
def test_some_tenants_cannot_be(tmp_path: Path, tenant: str) -> None:
    code, output = ppd(tmp_path / "d", "keys", "create", "--name", "x", "--tenant", tenant)
    assert code == 1
    assert "cannot be a tenant" in output


def test_migrate_says_where_the_schema_is(tmp_path: Path) -> None:
    newest = max((migrate.MIGRATIONS_DIR / "versions").glob("*.py")).name[:4]
    assert ppd(tmp_path / "d", "migrate") == (0, f"The schema is at {newest}\n")


def test_the_doctor_names_every_fault_and_shows_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPD_DATABASE_URL", "postgresql://ppd:s3cret@127.0.0.1:1/ppd")
    monkeypatch.setenv("PPD_REDIS_URL", "redis://:s3cret@127.0.0.1:1/0")
    monkeypatch.setenv("PPD_SESSION_SECRET", "s3cret" * 8)
    monkeypatch.setenv("PPD_REDIS_ULR", "s3cret")
    monkeypatch.setenv("PPD_POOL_DIR", str(tmp_path / "no-pool"))
    monkeypatch.setenv("PPD_WEIGHTS_DIR", str(tmp_path / "no-weights"))
    code, output = ppd(tmp_path / "none", "doctor")
    assert code == 1
    assert f"{tmp_path}/none does not exist" in output
    assert f"{tmp_path}/no-pool" in output
    assert f"{tmp_path}/no-weights" in output
    assert "PPD_REDIS_ULR: no setting has this name" in output
    assert "postgresql+psycopg://127.0.0.1:1/ppd" in output
    assert output.count("FAULT") == 9, output
    assert "s3cret" not in output


def test_the_doctor_finds_nothing_wrong_with_a_fresh_embedded_service(tmp_path: Path) -> None:
    data_dir = tmp_path / "d"
    assert ppd(data_dir, "migrate")[0] == 0
    said: list[str] = []
    settings = Settings(data_dir=data_dir, min_free_bytes=0)
    assert examine(settings, FakeRuntime, said.append), said
    assert any(line.startswith("ok      image store") for line in said)
    assert not list((data_dir / "images").rglob("*.png"))


def test_a_data_folder_has_one_service(tmp_path: Path) -> None:
    with (
        sole_user_of(tmp_path / "d"),
        pytest.raises(ValueError, match="another service"),
        sole_user_of(tmp_path / "d"),
    ):
        pass
    with sole_user_of(tmp_path / "d"):
        assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700


def test_settings_fail_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPD_PORT", "70000")
    with pytest.raises(ValueError, match="port"):
        Settings()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PPD_PORT", "hunter2", "PPD_PORT: "),
        ("PPD_SESSION_SECRET", "hunter2", "PPD_SESSION_SECRET: expected 32 characters or more"),
        ("PPD_DATABASE_URL", "mysql://a:hunter2@b/c", "PPD_DATABASE_URL: expected postgresql://"),
        ("PPD_LOG_LEVEL", "hunter2", "PPD_LOG_LEVEL: "),
        ("PPD_ALLOWED_HOSTS", "https://hunter2", "PPD_ALLOWED_HOSTS: expected * or names"),
        ("PPD_MAX_HELD_BODY_BYTES", "2000000", "PPD_MAX_HELD_BODY_BYTES: browser sessions may"),
        ("PPD_SESSION_SECRET_FILE", "/hunter", "PPD_SESSION_SECRET_FILE: /hunter cannot be read"),
        ("PPD_DATABASE_URL", "postgresql://a:hunter2@b/c", "PPD_REDIS_URL and PPD_SESSION_SECRET"),
    ],
)
def test_a_wrong_setting_is_named_as_its_variable_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    code, output = ppd(tmp_path / "d", "serve")
    assert code == 1
    assert said in output
    assert "hunter2" not in output


def test_a_secret_may_lie_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ppd_session_secret").write_text("f" * 40 + "\n")
    monkeypatch.setattr("service.settings.SECRETS_DIR", tmp_path)
    assert read().secrets == ["f" * 40]


def test_a_secrets_file_may_lie_anywhere_and_is_not_set_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("f" * 40 + "\n")
    monkeypatch.setenv("PPD_SESSION_SECRET_FILE", str(tmp_path / "secret"))
    assert read().secrets == ["f" * 40]
    assert unknown_variables() == []
    monkeypatch.setenv("PPD_SESSION_SECRET", "e" * 40)
    with pytest.raises(ValueError, match="PPD_SESSION_SECRET_FILE too"):
        read()


def test_a_secret_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ppd_redis_url").write_bytes(b"\xff")
    monkeypatch.setattr("service.settings.SECRETS_DIR", tmp_path)
    with pytest.raises(ValueError, match=r"redis_url.*UnicodeDecodeError"):
        read()


def test_the_api_never_imports_torch() -> None:
    code = "import sys, service.cli, service.api.app; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_version_is_the_installed_one() -> None:
    shown = CliRunner().invoke(app, ["--version"])
    assert (shown.exit_code, shown.output) == (0, f"ppd {metadata.version('ppd')}\n")


def test_the_audit_record_is_exported_and_a_picture_that_is_not_there_is_named(
    tmp_path: Path,
) -> None:
    data_dir = begun(tmp_path)
    key_id = ppd(data_dir, "keys", "create", "--name", "mine", "--tenant", "shop")[1].split()[-1]
    out = tmp_path / "audit.jsonl"
    assert ppd(data_dir, "audit", "export", "--out", str(out)) == (0, "")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    entries = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(entry["what"], entry["tenant"]) for entry in entries[-1:]] == [("key.made", "shop")]
    assert entries[-1]["object"] == f"key:{key_id}"
    assert entries[-1]["who"].startswith("operator:")
    assert ppd(data_dir, "audit", "export", "--since", "2999-01-01") == (0, "")
    assert ppd(data_dir, "reports", "list") == (0, "")
    assert ppd(data_dir, "reports", "takedown", "0" * 32)[1].startswith("there is no picture 0")
    assert ppd(data_dir, "reports", "dismiss", "x") == (1, "There is no such report.\n")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "skipped names and proxies: only this machine is served"),
        ({"host": "0.0.0.0"}, "warning names and proxies: beyond loopback it answers"),
        ({"host": "0.0.0.0", "allowed_hosts": "*"}, "ok      names and proxies: every name"),
        ({"host": "0.0.0.0", "allowed_hosts": "a.example"}, "ok      names and proxies: a.example"),
        ({"public_url": "https://a.example"}, "no proxy is trusted: cookies are not Secure"),
        ({"public_url": "https://a.example", "trusted_proxies": "10.1.2.3"}, "ok      names"),
        (
            {"public_url": "https://a.example", "trusted_proxies": "127.0.0.1,10.0.0.0/8"},
            "everybody in 10.0.0.0/8 may say who asks",
        ),
    ],
)
def test_the_doctor_looks_at_names_and_proxies(
    tmp_path: Path, given: dict[str, str], said: str
) -> None:
    lines: list[str] = []
    examine(Settings(data_dir=begun(tmp_path), **given), FakeRuntime, lines.append)  # type: ignore[arg-type]
    assert said in next(line for line in lines if "names and proxies:" in line)


def test_the_doctor_looks_at_the_adapters_in_service(tmp_path: Path) -> None:
    settings = Settings(data_dir=begun(tmp_path), min_free_bytes=0)

    def said(**given: Any) -> str:
        lines: list[str] = []
        looked = settings.model_copy(update=given)
        examine(looked, FakeRuntime, lines.append)
        return next(line for line in lines if "adapters:" in line)

    async def share() -> tuple[str, Path]:
        database = open_database(settings)
        images = FolderImageStore(settings.data_dir / "images")
        one, two = [
            await keep(database, images, data, base_model="m", encoder_id="e")
            for data in (b"one", b"two")
        ]
        async with database.write() as store:
            assert await store.adapters.activate(one.version)
            assert await store.adapters.activate(two.version, 0.2)
        await database.close()
        return two.version, settings.data_dir / "images" / two.key

    assert said() == "ok      adapters: the shipped one serves everybody"
    trial, bytes_of_trial = asyncio.run(share())
    assert said().endswith(f"in service, {trial} for 0.2 of the people")
    assert said(adapters_in_memory=1).startswith("warning adapters: two are in service")
    assert said(adapter=tmp_path / "own").startswith("warning adapters: PPD_ADAPTER=")
    bytes_of_trial.write_bytes(b"other")
    assert said().startswith(f"FAULT   adapters: the bytes of adapter {trial}")
    bytes_of_trial.unlink()
    assert said().startswith("FAULT   adapters:")


def test_the_doctor_warns_of_a_public_host_where_nothing_is_judged(tmp_path: Path) -> None:
    def said(**given: Any) -> str:
        lines: list[str] = []
        examine(Settings(data_dir=begun(tmp_path), **given), FakeRuntime, lines.append)
        return next(line for line in lines if "moderation:" in line)

    assert said().startswith("skipped")
    assert said(host="0.0.0.0").startswith("warning moderation: nothing is judged, and others")
    words = tmp_path / "words.txt"
    words.write_text("grape")
    assert said(host="0.0.0.0", moderation_words=words).startswith("ok")
    assert said(moderation_words=tmp_path / "none").startswith("FAULT")
