"""An API replica as its own process, on a machine without torch and the libraries around it."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.production import ROOT, eventually
from tests.servers import free_port

_WITHOUT_MODEL = """
import runpy, sys
for name in ("torch", "diffusers", "transformers", "huggingface_hub", "tokenizers"):
    sys.modules[name] = None
runpy.run_module("service.cli", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def environment(
    postgres_url: str, redis_url: str, tmp_path: Path, pool_dir: Path
) -> dict[str, str]:
    return {
        **os.environ,
        "PPD_DATABASE_URL": postgres_url,
        "PPD_REDIS_URL": redis_url,
        "PPD_SESSION_SECRET": "0" * 32,
        "PPD_DATA_DIR": str(tmp_path / "data"),
        "PPD_POOL_DIR": str(pool_dir),
        "PPD_MIN_FREE_BYTES": "0",
    }


def ppd(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT_MODEL, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def replica(environment: dict[str, str]) -> Iterator[str]:
    assert ppd(environment, "migrate").returncode == 0
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", _WITHOUT_MODEL, "serve", "--port", str(port)],
        cwd=ROOT,
        env=environment,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: ask(f"{url}/health/live")[0] == 200)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(30) in (0, -signal.SIGTERM)
        finally:
            process.kill()
            process.wait(10)


def ask(url: str, key: str = "", body: object = None) -> tuple[int, dict[str, Any]]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_replica_without_torch_takes_jobs_and_says_who_is_missing(
    environment: dict[str, str], replica: str
) -> None:
    made = ppd(environment, "keys", "create", "--name", "first")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert ask(f"{replica}/openapi.json")[0] == 200
    status, job = ask(f"{replica}/generate", key, {"prompt": "a fox"})
    assert (status, job["status"]) == (202, "queued")
    assert ask(f"{replica}/jobs/{job['id']}", key)[1]["status"] == "queued"
    status, answer = ask(f"{replica}/health/ready")
    assert (status, answer["reason"]) == (503, "no worker takes encode jobs")


def test_no_process_starts_on_a_schema_that_is_old(environment: dict[str, str]) -> None:
    for command in (["serve", "--port", "0"], ["worker"]):
        refused = ppd(environment, *command)
        assert refused.returncode == 1
        assert "run `ppd migrate`" in refused.stderr


def test_a_database_that_is_away_is_named_at_the_start(environment: dict[str, str]) -> None:
    environment["PPD_DATABASE_URL"] = f"postgresql://ppd:secret@127.0.0.1:{free_port()}/ppd"
    for command in (["serve", "--port", "0"], ["worker"], ["migrate"], ["keys", "list"]):
        refused = ppd(environment, *command)
        assert refused.returncode == 1
        assert "the database cannot be reached" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert "secret" not in refused.stderr


def test_a_worker_is_for_the_production_scale(environment: dict[str, str]) -> None:
    del environment["PPD_DATABASE_URL"]
    refused = ppd(environment, "worker")
    assert refused.returncode == 1
    assert "PPD_DATABASE_URL=postgresql://" in refused.stderr
