"""docker-compose.yml, without Docker: its commands, settings, secrets and fences are real."""

import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer
import yaml

from service.cli.commands import app
from service.settings import Settings, read, variable
from tests.compose_file import ROOT, RUN, our_command, services
from tests.servers import Postgres

OURS = ["migrate", "api", "worker", "worker-gpu"]
SETTING = re.compile(r"\bPPD_[A-Z0-9_]*[A-Z0-9]\b")
OUR_SECRETS = [name for name in services()["api"]["secrets"] if name.startswith("ppd_")]
TEXT = (ROOT / "docker-compose.yml").read_text()


def command_of(words: list[str]) -> Any:
    """The subcommand that these words name; fails when there is none."""
    found: Any = typer.main.get_command(app)
    for word in words:
        if not hasattr(found, "commands"):
            break
        assert word in found.commands, f"{word} is no command of ppd"
        found = found.commands[word]
    return found


def dockerfile_commands() -> list[list[str]]:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    found = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    commands = [yaml.safe_load(words) for words in found]
    assert len(commands) == 3
    assert all(words[: len(RUN)] == RUN for words in commands)
    return [words[len(RUN) :] for words in commands]


@pytest.mark.parametrize("words", [*map(our_command, OURS), *dockerfile_commands()], ids=" ".join)
def test_every_command_is_one_of_ppd_with_options_that_it_has(words: list[str]) -> None:
    options = {name for parameter in command_of(words).params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_every_setting_in_it_is_one() -> None:
    known = {variable(name) for name in Settings.model_fields}
    assert {variable(name.removeprefix("ppd_")) for name in OUR_SECRETS} <= known
    named = set(SETTING.findall(TEXT + (ROOT / "Dockerfile").read_text()))
    assert named
    assert named <= known


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("cpu", {"postgres", "redis", "s3", "migrate", "api", "worker"}),
        ("gpu", {"postgres", "redis", "s3", "migrate", "api", "worker-gpu"}),
        ("embedded", {"embedded"}),
    ],
)
def test_a_profile_is_whole(profile: str, expected: set[str]) -> None:
    chosen = services(profile)
    assert set(chosen) == expected
    for name, service in chosen.items():
        for other, how in service.get("depends_on", {}).items():
            assert other in chosen
            if how["condition"] == "service_healthy":
                assert "healthcheck" in chosen[other], (name, other)


def test_the_worker_on_a_gpu_reserves_one() -> None:
    reserved = services()["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


@pytest.mark.parametrize("name", services())
def test_every_container_is_fenced_in(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert service["networks"]
    published = service.get("ports", [])
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert bool(published) is (name in ("api", "embedded"))
    if "build" not in service:
        assert re.fullmatch(r"[a-z/]+:v?[0-9]+\.[0-9].*", service["image"]), "not pinned"


def test_the_stores_are_reachable_from_inside_only() -> None:
    networks = yaml.safe_load(TEXT)["networks"]
    assert networks["stores"]["internal"] is True
    for name in ("postgres", "redis", "s3"):
        assert services()[name]["networks"] == ["stores"]


def made_secrets(folder: Path, env: Path) -> dict[str, str]:
    """What the script leaves in the folder."""
    script = [str(ROOT / "docs/deploy/compose_secrets.sh"), str(folder), str(env)]
    subprocess.run(script, check=True, capture_output=True)
    return {path.name: path.read_text().removesuffix("\n") for path in folder.iterdir()}


def test_secrets_are_files_that_the_script_makes_and_are_in_no_environment(tmp_path: Path) -> None:
    files = yaml.safe_load(TEXT)["secrets"]
    made = made_secrets(tmp_path / "secrets", tmp_path / "none")
    assert set(made) == set(files)
    for name, where in files.items():
        assert where == {"file": f"${{SECRETS_DIR:-./secrets}}/{name}"}
        assert any(name in service.get("secrets", ()) for service in services().values()), name
    fresh = {name: text for name, text in made.items() if not name.endswith("_url")}
    assert len(set(fresh.values())) == len(fresh)
    assert all(re.fullmatch("[0-9a-f]{64}", text) for text in fresh.values())
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert made_secrets(tmp_path / "secrets", tmp_path / "none") == made
    for name, service in services().items():
        told = {key for key, value in service.get("environment", {}).items() if value}
        secret = {key for key in told if re.search("PASSWORD|SECRET|_URL$", key)}
        public = {"PPD_IMAGES_URL", "PPD_PUBLIC_URL"}
        assert {key for key in secret - public if not key.endswith("_FILE")} == set(), name


def test_the_program_reads_its_secrets_as_the_script_writes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_secrets(tmp_path, tmp_path / "none")
    monkeypatch.setattr("service.settings.SECRETS_DIR", tmp_path)
    monkeypatch.setenv("PPD_S3_ACCESS_KEY_ID", "ppd")
    settings = read()
    assert settings.production
    assert f":{made['postgres_password']}@postgres:5432/ppd" in settings.database
    assert settings.s3_secret_access_key is not None
    read_key = settings.s3_secret_access_key.get_secret_value()
    assert read_key == made["ppd_s3_secret_access_key"]


def test_secrets_of_an_older_env_are_taken_over(tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("PORT=81\nPOSTGRES_PASSWORD=no\nPOSTGRES_PASSWORD='old'\nREDIS_PASSWORD=older\n")
    made = made_secrets(tmp_path / "secrets", env)
    assert made["postgres_password"] == "old"
    assert made["ppd_database_url"] == "postgresql://ppd:old@postgres:5432/ppd"
    assert made["ppd_redis_url"] == "redis://:older@redis:6379/0"
    assert len(made["ppd_session_secret"]) == 64


def test_a_folder_of_secrets_that_others_could_open_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir(mode=0o755)
    made_secrets(tmp_path / "secrets", tmp_path / "none")
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


def test_a_worker_is_given_longer_than_it_takes_to_stop() -> None:
    for name in ("worker", "worker-gpu"):
        grace_s = int(services()[name]["stop_grace_period"].removesuffix("s"))
        assert grace_s > Settings().shutdown_grace_s
        assert grace_s > Settings().job_lease_s


def test_the_examples_for_kubernetes_and_systemd_run_real_commands() -> None:
    examples = sorted((ROOT / "docs/deploy").glob("*"))
    manifests = [path for path in examples if path.suffix == ".yaml"]
    assert manifests
    known = {variable(name) for name in Settings.model_fields}
    for path in manifests:
        for document in yaml.safe_load_all(path.read_text()):
            template = document.get("spec", {}).get("template", {}).get("spec", {})
            for container in template.get("containers", []):
                words = container["command"]
                assert words[: len(RUN)] == RUN
                options = {o for p in command_of(words[len(RUN) :]).params for o in p.opts}
                assert {word for word in words if word.startswith("--")} <= options, path
            assert [one["command"][-1] for one in template.get("initContainers", [])] == (
                ["migrate"] if document["kind"] == "Deployment" else []
            )
    units = [path for path in examples if path.suffix == ".service"]
    assert units
    for path in units:  # whatever ends them, and however often
        lines = path.read_text().splitlines()
        assert {"StartLimitIntervalSec=0", "Restart=always", "RestartSec=2"} <= set(lines), path
    for path in units:
        words = re.findall(r"^ExecStart=\S+ -m service\.cli (.*)$", path.read_text(), re.MULTILINE)
        assert words
        options = {o for p in command_of(words[0].split()).params for o in p.opts}
        assert {word for word in words[0].split() if word.startswith("--")} <= options, path
    for path in examples:
        assert set(SETTING.findall(path.read_text())) <= known, path


def test_the_database_gives_the_program_a_role_that_is_no_superuser(
    postgres: Postgres, tmp_path: Path
) -> None:
    script = ROOT / "docs/deploy/postgres_role.sh"
    mounted = f"./{script.relative_to(ROOT)}:/docker-entrypoint-initdb.d/role.sh:ro"
    assert mounted in services()["postgres"]["volumes"]
    text = script.read_text().replace("--username postgres", "--username ppd")  # the tests' own
    text = text.replace(" ppd LOGIN", " app LOGIN").replace(
        "DATABASE ppd OWNER ppd", "DATABASE app OWNER app"
    )
    (tmp_path / "password").write_text("a'b\\c\n")
    server = {"PGHOST": "127.0.0.1", "PGPORT": str(postgres.port)}
    server["ROLE_PASSWORD_FILE"] = str(tmp_path / "password")
    subprocess.run(["sh", "-c", text], check=True, env={**os.environ, **server})
    with psycopg.connect(postgres.admin_url.replace("ppd@", "app@")) as connection:
        found = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        assert found.fetchone() == (False,)
        encoding = connection.execute("SHOW server_encoding").fetchone()
        assert encoding == ("UTF8",)
