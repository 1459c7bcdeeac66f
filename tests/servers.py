"""A PostgreSQL and a Redis of the tests' own: private folders, free ports, nothing kept.

Their programs are Debian's packages; `make test` installs them where they are missing. What
happens to run on the machine is never used.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis

_READY_S = 60.0


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A server process that can be stopped and started again on its port and folder."""

    command: list[str]
    port: int
    folder: Path
    stop_signal: signal.Signals
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command, stdout=log, stderr=log)
        deadline = time.monotonic() + _READY_S
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log_text = (self.folder / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.command[0]} did not start:\n{log_text}")
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether it takes requests."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop as an operator would; safe to do twice."""
        self._end(self.stop_signal)

    def kill(self) -> None:
        """Stop as a power cut would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(90)
            except subprocess.TimeoutExpired:
                # A PostgreSQL that is asked for connections all the while may not come to its end.
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait(90)
        self._process = None


class Postgres(Server):
    """One cluster; every test gets a database of its own out of `database`."""

    _made = 0

    @property
    def admin_url(self) -> str:
        """The database that is always there."""
        return f"postgresql://ppd@127.0.0.1:{self.port}/postgres"

    def answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.admin_url, connect_timeout=2).close()
            return True
        return False

    def kill(self) -> None:
        """An immediate shutdown: without it the children outlive their killed parent."""
        self._end(signal.SIGQUIT)

    def database(self, template: str | None = None) -> str:
        """The URL of a new database: empty, or a copy of the one with this URL."""
        self._made += 1
        name = f"test_{self._made}"
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            source = "" if template is None else f" TEMPLATE {template.rpartition('/')[2]}"
            connection.execute(f"CREATE DATABASE {name}{source}")
        return f"postgresql://ppd@127.0.0.1:{self.port}/{name}"


class Redis(Server):
    """Keeps nothing on disk: a restart is a restart with empty hands."""

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"redis://127.0.0.1:{self.port}/0"

    def answers(self) -> bool:
        with (
            contextlib.suppress(redis.ConnectionError),
            redis.Redis.from_url(self.url) as client,
        ):
            return bool(client.ping())
        return False

    def empty(self) -> None:
        """Forget everything."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


def _postgres_programs() -> Path:
    """The folder of the newest server that is installed; raises RuntimeError without one."""
    found = list(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    on_path = shutil.which("postgres")
    if found:
        return max(found, key=lambda path: float(path.parts[4])).parent
    if on_path:
        return Path(on_path).parent
    raise RuntimeError("no PostgreSQL server is installed; `make test` installs Debian's")


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A cluster without durability, for the time of the block. Root runs it as another user."""
    programs, port = _postgres_programs(), free_port()
    as_user = []
    with tempfile.TemporaryDirectory(prefix="ppd-postgres-") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        made = [str(programs / "initdb"), "-D", str(folder / "db"), "-U", "ppd", "--auth=trust"]
        subprocess.run(
            [*as_user, *made, "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"],
            check=True,
            capture_output=True,
            cwd="/",
        )
        options = {
            "port": str(port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
        }
        flags = [flag for name, value in options.items() for flag in ("-c", f"{name}={value}")]
        command = [*as_user, str(programs / "postgres"), "-D", str(folder / "db"), *flags]
        server = Postgres(command, port, folder, signal.SIGINT)
        try:
            server.start()
            yield server
        finally:
            server.kill()  # nothing is kept


@contextlib.contextmanager
def redis_server() -> Iterator[Redis]:
    """A Redis for the time of the block."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ppd-redis-") as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        quiet = ["--save", "", "--appendonly", "no"]
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError("no Redis server is installed; `make test` installs Debian's")
        server = Redis([program, *options, *quiet], port, Path(folder), signal.SIGTERM)
        try:
            server.start()
            yield server
        finally:
            server.stop()
