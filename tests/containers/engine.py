"""An engine of this run's own: its folder, its bridge, its rules, gone at the end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.containers.host import BRIDGE, Host

BRIDGE_ADDRESS = "172.30.0.1/24"
POOL = "base=172.31.0.0/16,size=24"
START_S = 60


@dataclass(frozen=True)
class Engine:
    """A running engine, and how it is spoken to."""

    docker: str
    environment: dict[str, str]
    log: Path
    """What the commands said."""

    def run(self, *words: str, stdin: bytes | None = None, check: bool = True) -> str:
        """`docker WORDS`; its output. Raises RuntimeError with its last words when it fails."""
        return run([self.docker, *words], self.environment, self.log, stdin, check)


def run(
    words: list[str],
    environment: dict[str, str],
    log: Path,
    stdin: bytes | None = None,
    check: bool = True,
) -> str:
    ended = subprocess.run(
        words, env=environment, input=stdin or b"", capture_output=True, check=False
    )
    said = (ended.stdout + ended.stderr).decode(errors="replace")
    with log.open("a") as file:
        file.write(f"$ {' '.join(words)}\n{said}")
    if ended.returncode and check:
        raise RuntimeError(
            f"{' '.join(words)[:200]} ended with {ended.returncode}:\n{said[-3000:]}"
        )
    return ended.stdout.decode(errors="replace")


@contextmanager
def engine(host: Host, folder: Path) -> Iterator[Engine]:
    """Started over `folder`, which keeps images from run to run; ends with all that it started."""
    state, run_dir, log = folder / "images", folder / "run", folder / "log.txt"
    run_dir.mkdir(parents=True, exist_ok=True)
    rules = subprocess.run(["iptables-save"], capture_output=True, check=True).stdout
    for words in (
        ["link", "add", BRIDGE, "type", "bridge"],
        ["addr", "add", BRIDGE_ADDRESS, "dev", BRIDGE],
        ["link", "set", BRIDGE, "up"],
    ):
        subprocess.run(["ip", *words], check=words[1] == "set")
    address = f"unix://{run_dir / 'socket'}"
    with (folder / "engine.log").open("wb") as output:
        daemon = subprocess.Popen(
            [
                *(host.dockerd, "--data-root", str(state), "--exec-root", str(run_dir / "exec")),
                *("--pidfile", str(run_dir / "pid"), "--host", address, "--bridge", BRIDGE),
                *("--default-address-pool", POOL, "--exec-opt", "native.cgroupdriver=cgroupfs"),
            ],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PPD_")}
    environment = {**kept, "DOCKER_HOST": address, "DOCKER_BUILDKIT": "1"}
    started = Engine(host.docker, environment, log)
    try:
        _until_ready(started, daemon, folder / "engine.log")
        yield started
    finally:
        _remove_all(started)
        daemon.terminate()
        daemon.wait(60)
        subprocess.run(["ip", "link", "delete", BRIDGE], check=False)
        subprocess.run(["iptables-restore"], input=rules, check=False)


def _until_ready(engine: Engine, daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while not engine.run("version", "--format", "{{.Server.Version}}", check=False).strip():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the engine did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.5)


def _remove_all(engine: Engine) -> None:
    """Containers, their volumes and networks; images stay, as what the next run begins with."""
    containers = engine.run("ps", "--all", "--quiet", check=False).split()
    if containers:
        engine.run("rm", "--force", "--volumes", *containers, check=False)
    for kind in ("volume", "network"):
        engine.run(kind, "prune", "--force", check=False)
    volumes = engine.run("volume", "ls", "--quiet", check=False).split()
    if volumes:
        engine.run("volume", "rm", *volumes, check=False)
