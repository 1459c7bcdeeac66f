"""Times that are compared with stored times come from one clock: the database's.

The clock of a worker's or a replica's machine may be an hour off; every row is written and read by
the database, so its clock is the one that all share. SQLite runs in this process and has no clock
with enough digits of its own, so there these are functions that every connection is given.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, DateTime, Dialect, Float, TypeDecorator, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

SQLITE_FUNCTION = "ppd_in_seconds"


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime, on databases that keep no time zone too."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class _InSeconds(GenericFunction[datetime]):
    name = SQLITE_FUNCTION
    type = UtcDateTime()
    inherit_cache = True


@compiles(_InSeconds, "postgresql")
def _on_postgresql(element: Any, compiler: SQLCompiler, **how: Any) -> str:
    (seconds,) = element.clauses
    # Not now(): that is when the transaction began, which may have waited for a lock since.
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(seconds, **how)}))"


def in_seconds(seconds: float | ColumnElement[float]) -> ColumnElement[datetime]:
    """The time that it will be `seconds` from now (ago, for less than zero)."""
    if not isinstance(seconds, ColumnElement):
        seconds = literal(float(seconds), Float)
    return _InSeconds(seconds)


def present() -> ColumnElement[datetime]:
    return in_seconds(0.0)


def sqlite_in_seconds(seconds: float) -> str:
    """`in_seconds` in the format in which SQLite's times are kept."""
    return f"{datetime.now(UTC) + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S.%f}"
