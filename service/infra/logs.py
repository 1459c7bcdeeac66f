"""Log lines, as text or as JSON: with the request's or job's id, without what belongs to people.

Our own lines name routes, ids of jobs and codes. What other code puts into a message or an
exception cannot be known, so it is kept back where it could be a person's (see `error_text`).
"""

import json
import logging
import re
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

from sqlalchemy.exc import DBAPIError

from service.core.errors import JobCanceled, JobFailure, ServiceError

LogFormat = Literal["text", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

OURS = "ppd"
"""The logger above all of ours. Others are heard from WARNING on, whatever the level is: at DEBUG
database drivers write rows and parameters."""

_fields: ContextVar[Mapping[str, Any]] = ContextVar("ppd_log_fields", default=MappingProxyType({}))
_KEY = re.compile(r"ppd_[A-Za-z0-9_-]{20,}")
_BEARER = re.compile(r"(?i)(bearer\s+)[^\s'\",]+")
_USERINFO = re.compile(r"(?<=://)[^/\s@]+@")
_PASSWORD = re.compile(r"(?i)\b(password|passwd|secret|token)(\s*[=:]\s*)[^\s&;,'\")]+")
_MESSAGES_ARE_HARMLESS = (OSError, MemoryError, ImportError, JobFailure, JobCanceled, ServiceError)
_VALUE_ERRORS_OF_SQL = "22"
_HIDDEN = "***"


def begin_request(request_id: str) -> None:
    """From here on every line of this task is this request's."""
    _fields.set({"request_id": request_id})


def request_id() -> str:
    """Of the request that this task answers; - outside of one."""
    return str(_fields.get().get("request_id", "-"))


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Lines of this block say so, and nothing of what is around it: a job's id and attempt, say."""
    token = _fields.set(fields)
    try:
        yield
    finally:
        _fields.reset(token)


def install(form: LogFormat, level: LogLevel, secrets: Collection[str] = ()) -> None:
    """Let every logger of the process write to stderr through one formatter.

    `secrets` are never written, whoever puts them into a line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(secrets) if form == "json" else TextLines(secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(OURS).setLevel(level)
    logging.captureWarnings(True)


def error_text(error: BaseException) -> str:
    """What an exception says, as far as it cannot hold what a person sent.

    Of a database's errors: the state and the first line, never DETAIL or CONTEXT, which quote rows.
    Within a request or a job only messages of kinds that are about the machine are shown: a
    ValueError there may quote a prompt. Its type and its traceback say where it came from.
    """
    if isinstance(error, DBAPIError):
        return "" if error.orig is None else error_text(error.orig)
    if _is_of_a_database(error):
        state = getattr(error, "sqlstate", None)
        if state is not None and state.startswith(_VALUE_ERRORS_OF_SQL):
            return f"SQLSTATE {state}"
        lines = str(error).strip().splitlines()
        first = lines[0] if lines else ""
        return first if state is None else f"SQLSTATE {state}: {first}"
    out_of_memory = type(error).__name__ == "OutOfMemoryError"
    if _fields.get() and not out_of_memory and not isinstance(error, _MESSAGES_ARE_HARMLESS):
        return "(message withheld)"
    return str(error)


def _is_of_a_database(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("psycopg", "sqlite3", "procrastinate")


class Scrubber:
    """Takes keys, passwords and what was named as secret out of a text."""

    def __init__(self, secrets: Collection[str]) -> None:
        self._secrets = sorted((s for s in secrets if len(s) >= 4), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        text = _KEY.sub(_HIDDEN, text)
        text = _BEARER.sub(rf"\1{_HIDDEN}", text)
        text = _USERINFO.sub(f"{_HIDDEN}@", text)
        return _PASSWORD.sub(rf"\1\2{_HIDDEN}", text)


class _Lines(logging.Formatter):
    def __init__(self, secrets: Collection[str]) -> None:
        super().__init__()
        self.scrubbed = Scrubber(secrets)

    def message(self, record: logging.LogRecord) -> str:
        """The message, without what asyncio appends to it: exceptions with their values."""
        said = record.getMessage()
        return said.partition("\n")[0] if record.name == "asyncio" else said

    def trace(self, record: logging.LogRecord) -> str:
        """The chain of exceptions, oldest first: where each was raised, and what may be said."""
        return "" if not record.exc_info else _trace(record.exc_info[1], set())


def _trace(error: BaseException | None, seen: set[int]) -> str:
    if error is None or id(error) in seen:
        return ""
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    return (
        _trace(before, seen)
        + "".join(_trace(one, seen) for one in inner)
        + "Traceback (most recent call last):\n"
        + "".join(traceback.format_tb(error.__traceback__))
        + f"{kind}: {error_text(error)}\n"
    )


class TextLines(_Lines):
    """For people: time, logger, level, message, ids, then the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        ids = "".join(f" {name}={value}" for name, value in _fields.get().items())
        at = f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]
        line = f"{at} {record.name} {record.levelname} {self.message(record)}{ids}"
        trace = self.trace(record).rstrip("\n")
        return self.scrubbed(f"{line}\n{trace}" if trace else line)


class JsonLines(_Lines):
    """For machines: one object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": self.scrubbed(self.message(record)),
            **_fields.get(),
            **getattr(record, "fields", {}),
        }
        trace = self.trace(record)
        if trace:
            line["exception"] = self.scrubbed(trace)
        return json.dumps(line, ensure_ascii=True, default=str)
