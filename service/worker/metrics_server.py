"""The worker's own small `/metrics`: it has no other HTTP."""

import contextlib
from collections.abc import Iterator

from prometheus_client import start_http_server

from service.infra.metrics import Metrics


@contextlib.contextmanager
def serve_metrics(metrics: Metrics, host: str, port: int) -> Iterator[int]:
    """Answer scrapes on `port` (0: a free one) until the end of the block; gives the port.

    Raises OSError when the port is taken.
    """
    server, thread = start_http_server(port, host, registry=metrics.registry)
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
