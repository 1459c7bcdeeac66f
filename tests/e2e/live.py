"""The real application on a port of its own, in a thread beside the browser's loop."""

import asyncio
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.cli.server import Server
from service.core.ports import ModelRuntime
from service.settings import Settings
from service.wiring import embedded, prepare

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60


@contextmanager
def running(runtime: ModelRuntime, data_dir: Path) -> Iterator[str]:
    """The URL of a ready service; it stops at the end of the block."""
    live = _Live(runtime, Settings(data_dir=data_dir, port=0, shutdown_grace_s=2))
    thread = threading.Thread(target=live.run, name="ppd-service")
    thread.start()
    try:
        yield live.url()
    finally:
        live.stop()
        thread.join(STOP_TIMEOUT_S)
        assert not thread.is_alive(), "the service did not stop"


class _Live:
    def __init__(self, runtime: ModelRuntime, settings: Settings) -> None:
        self._runtime = runtime
        self._settings = settings
        self._server: Server | None = None
        self._fault: BaseException | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        """Serve until stopped."""
        try:
            asyncio.run(self._serve())
        except BaseException as fault:
            self._fault = fault
            raise
        finally:
            self._ended.set()

    async def _serve(self) -> None:
        await prepare(self._settings)
        parts = embedded(self._settings, self._runtime)
        self._server = Server(self._settings, parts)
        await self._server.serve()

    def url(self) -> str:
        """Wait until a generation would be accepted; raises what kept the service from starting."""
        pause = threading.Event()
        reason = "it does not listen yet"
        for _ in range(START_TIMEOUT_S * 20):
            if self._ended.is_set():
                raise RuntimeError("the service ended early") from self._fault
            if self._server is not None and self._server.started:
                port = self._server.servers[0].sockets[0].getsockname()[1]
                url = f"http://127.0.0.1:{port}"
                try:
                    with urllib.request.urlopen(f"{url}/health/ready") as answer:
                        answer.read()
                    return url
                except urllib.error.HTTPError as refused:
                    with refused:
                        reason = refused.read().decode()
            pause.wait(0.05)
        raise TimeoutError(f"the service was not ready after {START_TIMEOUT_S} s: {reason}")

    def stop(self) -> None:
        """As SIGTERM would."""
        if self._server is not None:
            self._server.should_exit = True
