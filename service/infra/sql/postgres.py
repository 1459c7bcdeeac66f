"""PostgreSQL through psycopg 3: connections that never hang, and what counts as its being away."""

import errno
import os
import select
import socket
from typing import Any

import psycopg
from psycopg import pq
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from service.infra.sql.connection_limits import ConnectionLimits
from service.infra.sql.json_rows import as_json

_CLIENT_MARGIN_S = 5.0
_IDLE_IN_TRANSACTION_S = 60


def reader(url: str, limits: ConnectionLimits) -> AsyncEngine:
    """Connections without transactions, for what changes nothing.

    Their own pool: a connection that never begins one has nothing to be set when it is taken, and
    nothing to be rolled back when it is given back, each of which costs as much as a short query.
    """
    return _engine(
        url,
        limits,
        isolation_level="AUTOCOMMIT",
        pool_reset_on_return=None,
        skip_autocommit_rollback=True,
    )


def engine(url: str, limits: ConnectionLimits) -> AsyncEngine:
    """Connections to one database, in READ COMMITTED.

    Whoever must not be overtaken locks a row (see `repositories`) and reads after that. At this
    level each statement sees what was committed when it began, so what is read behind the lock is
    true; a transaction of a higher level would still see the state from before its wait, and would
    have to be run again whenever that had changed.
    """
    return _engine(url, limits, isolation_level="READ COMMITTED")


def _engine(url: str, limits: ConnectionLimits, **options: Any) -> AsyncEngine:
    made = create_async_engine(
        url,
        json_serializer=as_json,
        hide_parameters=True,  # errors are logged; prompts and profiles would be in the log
        pool_size=limits.pool_size,
        max_overflow=0,
        pool_timeout=limits.pool_timeout_s,
        **options,
        connect_args={
            "async_creator_fn": _connection_class(limits).connect,
            "connect_timeout": limits.connect_timeout_s,
            "application_name": "ppd",
            "options": " ".join(
                f"-c {name}={int(seconds * 1000)}"
                for name, seconds in {
                    "statement_timeout": limits.statement_timeout_s,
                    "lock_timeout": limits.lock_timeout_s,
                    "idle_in_transaction_session_timeout": _IDLE_IN_TRANSACTION_S,
                }.items()
            ),
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        },
    )
    event.listen(made.sync_engine, "checkout", _refuse_dead)
    return made


def is_away(error: BaseException) -> bool:
    """Whether the database did not answer, or not in time, or cannot take writes now."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, _AWAY):
            return True
        seen.add(id(cause))
        cause = cause.__cause__
    return False


# InternalError: of psycopg's, the states of a transaction, as on a server that became read-only.
_AWAY = (
    exc.OperationalError,
    exc.InterfaceError,
    exc.InternalError,
    exc.TimeoutError,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
)


def _connection_class(limits: ConnectionLimits) -> type[psycopg.AsyncConnection[Any]]:
    """Connections that are cut when the server leaves one waiting too long.

    The server's own timeouts are of no use where the server is stopped, or the network swallows
    what it says.
    """
    patience_s = limits.statement_timeout_s + _CLIENT_MARGIN_S

    class ImpatientConnection(psycopg.AsyncConnection[Any]):
        async def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
            try:
                return await super().wait(gen, *args, **{"timeout": patience_s, **options})
            except psycopg.OperationalError:
                if self.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
                    _cut(self)  # nobody may take it for one that is at rest
                raise

    return ImpatientConnection


def _cut(connection: psycopg.AsyncConnection[Any]) -> None:
    """Whoever waits for this connection sees its end; where the server has ended it, they do so."""
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as line:
        try:
            line.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise


def _refuse_dead(adapted: Any, _: ConnectionPoolEntry, __: Any) -> None:
    """Have the pool make a new connection in the place of one that the server has closed.

    A look at the socket costs no round trip: nobody sends anything to a connection at rest but the
    end of it.
    """
    connection = adapted.driver_connection
    if connection.closed or _has_something_to_say(connection.pgconn.socket):
        raise exc.DisconnectionError("the server closed the connection")


def _has_something_to_say(file_descriptor: int) -> bool:
    poll = select.poll()
    poll.register(file_descriptor, select.POLLIN)
    return bool(poll.poll(0))
