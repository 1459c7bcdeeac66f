"""A project of docker-compose.yml: started, changed and asked."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.compose_file import ROOT
from tests.containers.engine import Engine, run
from tests.servers import free_port

PROJECT = "ppd-trial"
COMPOSE = Path(sys.executable).with_name("docker-compose")
READY_S = 600.0


class Project:
    """One profile. `ports` are those of its API's replicas on loopback."""

    def __init__(self, engine: Engine, profile: str, secrets: Path) -> None:
        self.engine = engine
        self.profile = profile
        first = _two_free_ports()
        self.ports = (first, first + 1)
        self._environment = engine.environment | {
            "SECRETS_DIR": str(secrets),
            "PORT": f"{first}-{first + 1}" if profile != "embedded" else str(first),
        }

    def compose(self, *words: str, check: bool = True) -> str:
        """`docker-compose WORDS`; its output."""
        command = [str(COMPOSE), "--project-name", PROJECT, "--profile", self.profile]
        command += ["--project-directory", str(ROOT), *words]
        return run(command, self._environment, self.engine.log, check=check)

    def up(self, *words: str) -> None:
        """Start what is missing, and anew what is of another image."""
        self.compose("up", "--detach", "--pull", "never", "--no-build", *words)

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--all", "--quiet", service).split()

    def inspected(self, container: str) -> dict[str, Any]:
        (found,) = json.loads(self.engine.run("inspect", container))
        return dict(found)

    def until_ready(self) -> float:
        """Seconds until the API would take a picture and every container is as it should be."""
        began_s = time.monotonic()
        while (waited_s := time.monotonic() - began_s) < READY_S:
            if any(self.answers(port) for port in self.ports) and not self.unfit():
                return waited_s
            time.sleep(0.5)
        raise RuntimeError(f"not ready in {READY_S:.0f} s: {self.unfit() or self.reasons()}")

    def unfit(self) -> list[str]:
        """Containers that are not healthy; of those without a check, that do not run."""
        found = []
        for container in self.compose("ps", "--all", "--quiet").split():
            state = self.inspected(container)
            name, status = str(state["Name"]), state["State"]
            health = status.get("Health", {}).get("Status")
            if "migrate" in name:
                fine = status["Status"] == "exited" and status["ExitCode"] == 0
            else:
                fine = health == "healthy" if health else bool(status["Running"])
            if not fine:
                found.append(f"{name} is {status['Status']} {health or ''}")
        return found

    def answers(self, port: int) -> bool:
        try:
            url = f"http://127.0.0.1:{port}/health/ready"
            return httpx.get(url, timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def reasons(self) -> str:
        return self.compose("logs", "--tail", "15", check=False)

    def new_key(self) -> str:
        """By the command of docs/deploy.md; embedded, what its first start wrote."""
        if self.profile == "embedded":
            return self.compose("exec", "-T", "embedded", "cat", "/data/api-key").strip()
        words = ("exec", "-T", "api", "python", "-m", "service.cli", "keys", "create")
        return self.compose(*words, "--name", "trial").strip()


@contextlib.contextmanager
def project(engine: Engine, profile: str, folder: Path) -> Iterator[Project]:
    """Its containers, networks and volumes are gone after the block."""
    secrets = folder / "secrets"
    script = ROOT / "docs" / "deploy" / "compose_secrets.sh"
    nothing = folder / "no.env"
    subprocess.run(["sh", str(script), str(secrets), str(nothing)], check=True, capture_output=True)
    opened = Project(engine, profile, secrets)
    try:
        yield opened
    except BaseException:
        (folder / "last_words.txt").write_text(opened.compose("logs", check=False))
        raise
    finally:
        opened.compose("down", "--volumes", "--timeout", "20", check=False)


def _two_free_ports() -> int:
    """The lower of two that follow each other."""
    while True:
        first = free_port()
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", first + 1))
            return first
