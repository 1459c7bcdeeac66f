"""`kill -9` in the middle of a picture: the next start finishes it, once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(data_dir: Path, port: int, step_s: float) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.fake_service", "--port", str(port)]
    command += ["--data-dir", str(data_dir), "--step-s", str(step_s)]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PPD_MIN_FREE_BYTES": "0"}  # a folder in memory may be small
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.DEVNULL)


def ask(url: str, key: str, body: object = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return dict(json.loads(answer.read()))


def eventually(look: Callable[[], Any], timeout_s: float = 90) -> Any:
    """What `look` gives once it gives something; errors count as nothing."""
    ends_s = time.monotonic() + timeout_s
    while time.monotonic() < ends_s:
        try:
            found = look()
        except (OSError, json.JSONDecodeError):
            found = None
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def test_a_killed_service_finishes_the_picture_after_its_next_start(tmp_path: Path) -> None:
    data_dir, port = tmp_path / "d", free_port()
    base = f"http://127.0.0.1:{port}"
    process = start(data_dir, port, step_s=1.0)
    try:
        eventually(lambda: ask(f"{base}/health/ready", "-")["status"] == "ready")
        key = (data_dir / "api-key").read_text().strip()
        job_id = ask(f"{base}/generate", key, {"prompt": "a fox", "seed": 3})["id"]
        eventually(lambda: ask(f"{base}/jobs/{job_id}", key).get("progress"))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = start(data_dir, port, step_s=0.0)

        def finished() -> dict[str, Any] | None:
            job = ask(f"{base}/jobs/{job_id}", key)
            assert job["status"] in ("queued", "running", "succeeded"), job
            return job if job["status"] == "succeeded" else None

        job = eventually(finished)
        assert len(job["result"]["images"]) == 1
        assert len(list((data_dir / "images").rglob("*"))) == 2  # the job's folder and its picture
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
