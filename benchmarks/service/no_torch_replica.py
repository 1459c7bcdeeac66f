"""Starts an API replica with another interpreter, one without torch, and asks it a few things."""

import argparse
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.servers import free_port, postgres_server, redis_server

_READY_S = 180.0


def ask(url: str) -> tuple[int, str]:
    """Status and body; errors of HTTP are answers too."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own address
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def live(base: str, replica: "subprocess.Popen[bytes]") -> float:
    """Wait until it answers; gives how long that took, in seconds."""
    started_s = time.monotonic()
    while time.monotonic() < started_s + _READY_S:
        if replica.poll() is not None:
            raise SystemExit("the replica ended")
        try:
            ask(f"{base}/health/live")
            return time.monotonic() - started_s
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the replica does not answer")


def main() -> None:
    """Migrate, serve, ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", type=Path)
    parser.add_argument("data_dir", type=Path)
    options = parser.parse_args()
    python = str(options.python)
    absent = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, sys.argv[1:])))"
    subprocess.run([python, "-c", absent, "torch", "diffusers", "transformers"], check=True)
    port = free_port()
    with postgres_server() as postgres, redis_server() as redis:
        environment = {
            **os.environ,
            "PPD_DATABASE_URL": postgres.database(),
            "PPD_REDIS_URL": redis.url,
            "PPD_SESSION_SECRET": "not a secret of anybody, for an hour's test",
            "PPD_DATA_DIR": str(options.data_dir),
        }
        ppd = [python, "-m", "service.cli"]
        subprocess.run([*ppd, "migrate"], env=environment, check=True)
        replica = subprocess.Popen([*ppd, "serve", "--port", str(port)], env=environment)
        try:
            base = f"http://127.0.0.1:{port}"
            print(f"answers after {live(base, replica):.1f} s")
            for path in ("/health/ready", "/metrics", "/openapi.json"):
                status, body = ask(base + path)
                print(f"{path}: {status}, {len(body)} bytes: {body.splitlines()[0][:160]}")
            subprocess.run([*ppd, "doctor"], env=environment, check=False)
        finally:
            replica.terminate()
            replica.wait(30)


if __name__ == "__main__":
    main()
