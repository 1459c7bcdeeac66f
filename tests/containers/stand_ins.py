"""Images under the names of the upstream ones, made of Debian's packages; and our own, built.

So our own file, entry points, users, read-only roots, health checks and networks are tried, and
the upstream images are not.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.compose_file import ROOT, services
from tests.containers.engine import Engine
from tests.containers.host import Host

HERE = Path(__file__).parent
PACKAGES = "python3,python3-pip,python3-venv,ca-certificates,netbase,tzdata"
INDEX_PORT = 39767
"""The same each time: the engine builds anew what has other arguments."""
TARGETS = {"api": "ppd-api", "worker": "ppd-worker", "embedded": "ppd"}
"""Of the Dockerfile, with the names that docker-compose.yml gives them."""
_ENVIRONMENT = "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"
STORES = ("postgres", "redis", "s3")


def python_image() -> str:
    """The base that the Dockerfile names."""
    found = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found
    return found[1]


def make_stand_ins(engine: Engine, host: Host, folder: Path) -> None:
    """The base and the three stores, where they are not there from an earlier run."""
    base = python_image()
    if not _there(engine, base):
        archive = base_archive(host, folder)
        engine.run("import", "--change", _ENVIRONMENT, str(archive), base)
    for name in STORES:
        engine.run(
            *("build", "--network=host", "--build-arg", f"BASE={base}"),
            *("--tag", services()[name]["image"]),
            *("--file", str(HERE / f"{name}.Dockerfile"), str(HERE.parent)),
        )


def base_archive(host: Host, folder: Path) -> Path:
    """A small Debian with Python, as a tar file; made once."""
    archive, root = folder / "base.tar", folder / "base"
    if archive.exists():
        return archive
    shutil.rmtree(root, ignore_errors=True)
    with (folder / "log.txt").open("ab") as log:
        said = {"stdout": log, "stderr": log, "check": True}
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)],
            **said,
        )
        for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
        (root / "usr/bin/python").symlink_to("python3")
        for certificate in host.certificates:
            shutil.copy(certificate, root / "usr/local/share/ca-certificates")
        subprocess.run(["chroot", str(root), "update-ca-certificates"], **said)
        shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
        part = folder / "base.part"
        subprocess.run(["tar", "-C", str(root), "-cf", str(part), "."], **said)
    part.rename(archive)
    shutil.rmtree(root)
    return archive


def build(engine: Engine, host: Host, version: str, index: str | None) -> None:
    """Every target of the Dockerfile, as NAME:VERSION."""
    given = {"UV_DEFAULT_INDEX": host.package_index, "TORCH_INDEX_ROOT": index}
    arguments = [f"--build-arg={name}={value}" for name, value in given.items() if value]
    for target, name in TARGETS.items():
        engine.run(
            *("build", "--network=host", *arguments, "--target", target),
            *("--tag", f"{name}:{version}", str(ROOT)),
        )


def put_code(engine: Engine, source: Path, version: str, packages: str) -> None:
    """The same images with the code of `source`, and the packages of a version that is there."""
    for name in TARGETS.values():
        engine.run(
            *("build", "--build-arg", f"PACKAGES={name}:{packages}", "--tag", f"{name}:{version}"),
            *("--file", str(HERE / "code.Dockerfile"), str(source)),
        )


def use(engine: Engine, version: str) -> None:
    """From now on Compose starts this version."""
    for name in TARGETS.values():
        engine.run("tag", f"{name}:{version}", f"{name}:latest")


@contextmanager
def torch_index(host: Host, folder: Path) -> Iterator[str | None]:
    """The root of an index with this machine's own torch, as long as the block runs."""
    if host.torch_wheels is None:
        yield None
        return
    listed = folder / "index" / "cpu" / "torch"
    shutil.rmtree(folder / "index", ignore_errors=True)
    listed.mkdir(parents=True)
    for wheel in host.torch_wheels.glob("torch-*.whl"):
        (listed / wheel.name).symlink_to(wheel)
    serve = functools.partial(_Quiet, directory=str(folder / "index"))
    with ThreadingHTTPServer(("127.0.0.1", INDEX_PORT), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _there(engine: Engine, tag: str) -> bool:
    return bool(engine.run("images", "--quiet", tag).strip())
