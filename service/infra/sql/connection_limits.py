"""How much a process asks of a database server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections a process holds, and how long it waits for what.

    Every wait ends in an error that the API answers with 503, never in a hang.
    """

    pool_size: int = 10
    """Connections of one process. No more are made: who finds none free waits."""
    pool_timeout_s: float = 5.0
    """Longest wait for a free connection."""
    connect_timeout_s: int = 5
    lock_timeout_s: float = 5.0
    """Longest wait for a row that another transaction holds."""
    statement_timeout_s: float = 15.0
    """Longest statement, as the server counts. A little later the client gives the server up."""
