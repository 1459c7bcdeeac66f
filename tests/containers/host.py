"""What differs between machines: found out here, or said by an option."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BRIDGE = "ppd-trial0"
"""Of this engine; it is gone when the engine is."""
LOCAL_CERTIFICATES = Path("/usr/local/share/ca-certificates")
OTHER_ENGINES = tuple(
    Path(trace)
    for trace in ("/sys/class/net/docker0", f"/sys/class/net/{BRIDGE}", "/run/docker.sock")
)
NEEDED = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "debootstrap": "debootstrap",
    "iptables-restore": "iptables",
    "ip": "iproute2",
}
"""Programs, and the packages of Debian that bring them."""


class UnfitError(Exception):
    """This machine cannot do it; the message says what is missing."""


@dataclass(frozen=True)
class Host:
    """Of this machine, what the builds need to know."""

    dockerd: str
    docker: str
    package_index: str | None
    """A mirror of PyPI; None is the Dockerfile's own."""
    torch_wheels: Path | None
    """A folder with a build of torch for CPUs; None is PyTorch's own index."""
    certificates: list[Path]
    """Of authorities that this machine trusts beside the usual ones."""


def look(torch_wheels: Path | None) -> Host:
    """Raises UnfitError with everything that is missing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise UnfitError("an engine of its own is started, which takes Linux and root")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = {
        package for program, package in NEEDED.items() if not shutil.which(program, path=path)
    }
    if missing:
        raise UnfitError(f"apt-get install -y --no-install-recommends {' '.join(sorted(missing))}")
    running = [str(trace) for trace in OTHER_ENGINES if trace.exists()]
    if running:
        raise UnfitError(
            f"another engine runs here ({', '.join(running)}), and would share its rules"
        )
    dockerd = shutil.which("dockerd", path=path) or ""
    folder = torch_wheels or _folder_with_torch()
    if folder is not None and not any(folder.glob("torch-*.whl")):
        raise UnfitError(f"no torch-*.whl in {folder}")
    return Host(
        dockerd=dockerd,
        docker=_client_of(dockerd, path),
        package_index=os.environ.get("UV_DEFAULT_INDEX") or _pip("index-url"),
        torch_wheels=folder,
        certificates=sorted(LOCAL_CERTIFICATES.glob("*.crt")),
    )


def _client_of(dockerd: str, path: str) -> str:
    """The client of the same release: others may leave building to a plugin that is not there."""
    wanted = _release(dockerd)
    for folder in path.split(":"):
        client = shutil.which("docker", path=folder)
        if client and _release(client) == wanted:
            return client
    raise UnfitError(f"no docker of the release of {dockerd}, {wanted}")


def _release(program: str) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.\d+", said.stdout)
    return found[0] if found else said.stdout


def _folder_with_torch() -> Path | None:
    """Of the folders in which pip looks for packages, the first with a torch."""
    folders = [Path(word.removeprefix("file://")) for word in (_pip("find-links") or "").split()]
    return next((folder for folder in folders if any(folder.glob("torch-*.whl"))), None)


def _pip(option: str) -> str | None:
    """What pip was told on this machine: by its files, or else by the environment."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    said = (
        listed.stdout
        or subprocess.run(
            ["pip", "config", "list"], capture_output=True, text=True, check=False
        ).stdout
    )
    found = re.search(rf"\.{option}='([^']*)'", said)
    return found[1] if found else None
