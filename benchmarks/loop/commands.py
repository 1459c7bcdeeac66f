"""The commands of the loop, each in a process of its own, and how long they took."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

READY_S = 300
POLL_S = 0.5


@dataclass
class Stage:
    """A row of the table."""

    what: str
    came: str = ""
    seconds: float = 0.0


@dataclass
class Commands:
    """Runs commands against one data folder; all they say goes to `log.txt`."""

    folder: Path
    stages: list[Stage] = field(default_factory=list)

    @property
    def data_dir(self) -> Path:
        return self.folder / "service"

    @property
    def key(self) -> str:
        return (self.data_dir / "api-key").read_text().strip()

    @contextmanager
    def stage(self, what: str) -> Iterator[Stage]:
        """Times a block; whoever runs it says what came of it."""
        stage, started_s = Stage(what), time.monotonic()
        print(f"{what} ...", flush=True)
        yield stage
        stage.seconds = time.monotonic() - started_s
        self.stages.append(stage)
        print(f"    {stage.came} ({stage.seconds:.0f} s)", flush=True)

    def ppd(self, *words: str) -> str:
        """What a command of the service says. Raises RuntimeError where it refuses."""
        return self._run("service.cli", *words)

    def job(self, name: str, *words: str) -> str:
        """The same of a job of training."""
        return self._run(f"training.{name}", *words)

    @contextmanager
    def serving(self) -> Iterator[httpx.Client]:
        """`ppd serve` on a free port until the end of the block, and a client with its key."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port)]
        with (self.folder / "service.log").open("w") as log:
            service = subprocess.Popen(  # noqa: S603 - our own command
                command, env=self._environment(), stdout=log, stderr=log
            )
            try:
                url = f"http://127.0.0.1:{port}"
                self._wait(service, url)
                headers = {"Authorization": f"Bearer {self.key}"}
                with httpx.Client(
                    base_url=url, headers=headers, timeout=300, trust_env=False
                ) as client:
                    yield client
            finally:
                service.terminate()
                service.wait()

    def _wait(self, service: subprocess.Popen[bytes], url: str) -> None:
        for _ in range(int(READY_S / POLL_S)):
            if service.poll() is not None:
                raise RuntimeError(f"the service ended: {self.folder / 'service.log'}")
            try:
                if httpx.get(f"{url}/health/ready", trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(POLL_S)
        raise RuntimeError(f"the service is not ready after {READY_S} s")

    def _run(self, module: str, *words: str) -> str:
        command = [sys.executable, "-m", module, *words]
        with (self.folder / "log.txt").open("a") as log:
            log.write(f"$ python -m {module} {' '.join(words)}\n")
            log.flush()
            ran = subprocess.run(  # noqa: S603 - our own command
                command, env=self._environment(), stdout=subprocess.PIPE, stderr=log, text=True
            )
            log.write(ran.stdout)
        if ran.returncode:
            raise RuntimeError(f"{module} {words[0]} failed: {self.folder / 'log.txt'}")
        return ran.stdout

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PPD_DATA_DIR": str(self.data_dir), "PPD_ADAPTERS_IN_MEMORY": "2"}
