"""What docker-compose.yml starts, as processes here, against a real PostgreSQL and a real Redis.

The commands and the environment are the file's own; only addresses and ports are put in their
place, and pictures lie in a folder, since there is no S3 server to start.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.compose_file import ROOT, our_command, services
from tests.integration.test_kill import eventually
from tests.servers import free_port

PROMPT = "a fish at night"


def environment(name: str, postgres_url: str, redis_url: str, data_dir: Path) -> dict[str, str]:
    """The service's environment as the file says, with addresses that exist here."""
    there = {
        "PPD_DATABASE_URL": postgres_url,
        "PPD_REDIS_URL": redis_url,
        "PPD_SESSION_SECRET": "0123456789abcdef" * 4,
        "PPD_DATA_DIR": str(data_dir),
        "PPD_MIN_FREE_BYTES": "0",
        "PPD_MODEL_THREADS": "1",
    }
    said = {key: str(value) for key, value in services()[name]["environment"].items()}
    said = {key: re.sub(r"\$\{[A-Z_]+:-(.*)\}", r"\1", value) for key, value in said.items()}
    in_a_folder = ("PPD_IMAGES_URL", "PPD_S3_")
    said = {key: value for key, value in said.items() if not key.startswith(in_a_folder)}
    secrets = {name.upper() for name in services()[name]["secrets"]}
    assert set(there) & secrets == {"PPD_DATABASE_URL", "PPD_REDIS_URL", "PPD_SESSION_SECRET"}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PPD_")}
    return {**inherited, **said, **there}


def words_of(name: str, replaced: dict[str, str]) -> list[str]:
    """The command, with options of other values put in their place."""
    words = our_command(name)
    for option, value in replaced.items():
        words[words.index(option) + 1] = value
    return [sys.executable, "-m", "service.cli", *words]


@contextmanager
def process(words: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the end of the block; its output goes to `log`."""
    with log.open("wb") as output:
        started = subprocess.Popen(words, cwd=ROOT, env=env, stdout=output, stderr=output)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


def stopped(running: subprocess.Popen[bytes]) -> int:
    running.send_signal(signal.SIGTERM)
    return running.wait(timeout=90)


@pytest.mark.parametrize("profile", ["cpu"])
def test_migrate_api_and_worker_make_a_picture_in_somebodys_taste(
    profile: str, postgres_url: str, redis_url: str, tmp_path: Path
) -> None:
    assert {"migrate", "api", "worker"} <= set(services(profile))
    port, metrics_port = free_port(), free_port()

    def env(name: str) -> dict[str, str]:
        return environment(name, postgres_url, redis_url, tmp_path)

    migrated = subprocess.run(
        words_of("migrate", {}), cwd=ROOT, env=env("migrate"), capture_output=True, timeout=120
    )
    assert migrated.returncode == 0, migrated.stderr.decode()
    api_words = words_of("api", {"--host": "127.0.0.1", "--port": str(port)})
    metrics = {"--metrics-host": "127.0.0.1", "--metrics-port": str(metrics_port)}
    made = subprocess.run(
        [sys.executable, "-m", "service.cli", "keys", "create", "--name", "test"],
        cwd=ROOT,
        env=env("api"),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    key = made.stdout.strip()
    with (
        process(api_words, env("api"), tmp_path / "api.log") as api,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {key}"},
            timeout=60,
            trust_env=False,
        ) as client,
    ):
        assert eventually(lambda: answers(client, "/health/live", 200))
        alone = eventually(lambda: answers(client, "/health/ready", 503))
        assert "worker" in " ".join(alone["reasons"])
        worker_words = words_of("worker", metrics)
        with process(worker_words, env("worker"), tmp_path / "worker.log") as worker:
            assert eventually(lambda: answers(client, "/health/ready", 200), 180)
            picture = made_picture(client)
            assert picture["personalization_applied"] is True
            scraped = httpx.get(f"http://127.0.0.1:{metrics_port}/metrics", trust_env=False).text
            assert 'ppd_job_seconds_count{code="",kind="generate",outcome="succeeded"}' in scraped
            queue = client.get("/metrics").text
            assert 'ppd_workers{kind="generate",state="ready"} 1.0' in queue
            assert stopped(worker) == 0
        assert stopped(api) in (0, -signal.SIGTERM)
    written = (tmp_path / "api.log").read_text() + (tmp_path / "worker.log").read_text()
    for telling in (PROMPT, "ada-telling", key):
        assert telling not in written


def answers(client: httpx.Client, path: str, status: int) -> dict[str, Any] | None:
    try:
        answer = client.get(path)
    except httpx.TransportError:
        return None
    return dict(answer.json()) if answer.status_code == status else None


def made_picture(client: httpx.Client) -> dict[str, Any]:
    quiz = client.get("/users/ada-telling/quiz").json()
    choices = [{"pair_id": pair["pair_id"], "preferred": 0} for pair in quiz["pairs"]]
    preferences = "/users/ada-telling/preferences"
    client.post(preferences, json={"choices": choices}).raise_for_status()
    ready = eventually(lambda: client.get(preferences).json().get("profile"), 120)
    assert ready["text"]
    body = {"prompt": PROMPT, "user_id": "ada-telling", "seed": 7, "steps": 2}
    job = client.post("/generate", json=body).json()
    ended = eventually(lambda: finished(client, job["id"]), 120)
    assert ended["status"] == "succeeded", ended
    picture = client.get(ended["result"]["images"][0]["url"])
    assert picture.headers["content-type"] == "image/png"
    return dict(ended["result"])


def finished(client: httpx.Client, job_id: str) -> dict[str, Any] | None:
    job = client.get(f"/jobs/{job_id}").json()
    return dict(job) if job["status"] not in ("queued", "running") else None
