"""The HTTP server of `ppd serve`."""

import asyncio
import gc
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import typer
import uvicorn

from service.cli.connections import Bounds, Connection, Connections
from service.infra.descriptors import left_for_connections, raise_limit
from service.settings import Settings
from service.wiring import Served

log = logging.getLogger("ppd.http")

KEEP_ALIVE_S = 75
"""How long a connection may rest. Longer than proxies and clients let theirs, or a request could
come just when the server hangs up, and be lost."""
_BACKLOG = 256
_TICKS_PER_LOOK = 10
_ACCEPT_TOLD_EVERY_S = 60.0


def run_server(settings: Settings, parts: Served) -> None:
    """Serve until stopped; followers of events are let go first, then requests end."""
    raise_limit()
    typer.echo(
        f"Open {settings.public_url or f'http://{_to_open(settings.host)}:{settings.port}'}/"
    )
    stay()
    Server(settings, parts).run()


def stay() -> None:
    """What was loaded until now is never garbage: the collector need not read it through again.

    Else each of its full rounds, some of them under every load, reads all of the libraries' objects
    while requests wait.
    """
    gc.collect()
    gc.freeze()


def _to_open(host: str) -> str:
    """What a browser on this machine opens, of an address to listen on."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - nothing is bound here
        return "localhost"
    return f"[{host}]" if ":" in host else host


class Server(uvicorn.Server):
    """Watches its connections. Ends event streams when it stops; they would keep it waiting."""

    def __init__(self, settings: Settings, parts: Served) -> None:
        self._parts = parts
        self._bounds = _bounds(settings)
        self._connections: Connections | None = None
        self._accept_told_s = float("-inf")
        super().__init__(
            uvicorn.Config(
                parts.app,
                host=settings.host,
                port=settings.port,
                http=partial(self._connection),  # type: ignore[arg-type]
                ws="none",
                access_log=False,
                log_config=None,  # its lines go the way of ours
                server_header=False,
                proxy_headers=bool(settings.trusted_proxies),
                forwarded_allow_ips=settings.trusted_proxies,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=settings.shutdown_grace_s,
                backlog=_BACKLOG,
            )
        )

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and say once where the event loop would say it thousands of times."""
        loop = asyncio.get_running_loop()
        self._connections = Connections(self._bounds, loop.time)
        loop.set_exception_handler(self._told_once)
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Every tenth of a second."""
        if self._connections is not None and counter % _TICKS_PER_LOOK == 0:
            self._connections.look()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: Any = None) -> None:
        self._parts.events.close()
        await super().shutdown(sockets)

    def connections_open(self) -> int:
        """How many there are now."""
        return len(self._connections or ())

    def _connection(self, *args: Any, **kwargs: Any) -> Connection:
        assert self._connections is not None, "nobody connects before it listens"
        return Connection(self._connections, *args, **kwargs)

    def _told_once(self, loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        """A connection that cannot be accepted for want of descriptors is no traceback each."""
        if "accept() out of system resource" not in str(context.get("message")):
            loop.default_exception_handler(dict(context))
        elif loop.time() - self._accept_told_s >= _ACCEPT_TOLD_EVERY_S:
            self._accept_told_s = loop.time()
            log.error("no connection is accepted at present: %s", context.get("exception"))


def _bounds(settings: Settings) -> Bounds:
    """As the settings say, where this process may have so many; half of them for one address."""
    connections = min(settings.max_connections, left_for_connections())
    if connections < settings.max_connections:
        log.warning("of %d connections %d may be open", settings.max_connections, connections)
    proxies = settings.trusted_proxies
    return Bounds(
        connections=connections,
        of_address=min(settings.max_connections_per_address, max(1, connections // 2)),
        headers_s=settings.headers_timeout_s,
        body_s=settings.body_timeout_s,
        reading_s=settings.reading_timeout_s,
        proxies=tuple(part.strip() for part in proxies.split(",")) if proxies else (),
    )
