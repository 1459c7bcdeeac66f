"""A connection to PostgreSQL that is given up on is cut, whatever became of it."""

import socket
from types import SimpleNamespace
from typing import Any, cast

from service.infra.sql.postgres import _cut


def connection(line: socket.socket) -> Any:
    return cast(Any, SimpleNamespace(pgconn=SimpleNamespace(socket=line.fileno())))


def test_whoever_waits_sees_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _cut(connection(ours))
        assert ours.recv(1) == theirs.recv(1) == b""


def test_a_line_that_the_server_has_ended_is_cut_already() -> None:
    with socket.socket() as ended:  # shutdown() says of it that it is not connected
        _cut(connection(ended))
        assert ended.fileno() >= 0  # and it is the connection's own to close
