"""Reads bodies more strictly than `json.loads`: what passes can be stored and sent back."""

import json
import math
from email.message import Message
from typing import Any

from starlette.requests import Request

from service.core.errors import FieldError, ServiceError

_MAX_DEPTH = 32
_MAX_VALUES = 20_000
_MAX_MARKS = 100_000
"""Of `[`, `{` and commas, in text too; counted first: parsing millions of values takes seconds."""
_MAX_FAULTS = 20
_MAX_CONTENT_TYPE = 256
_MAX_INTEGER = 2**63 - 1


class StrictRequest(Request):
    """A request whose JSON body was parsed by `parse_json` already."""

    parsed: Any = None

    async def json(self) -> Any:
        return self.parsed


def require_json_type(content_type: str | None) -> None:
    """Raise 415 unless the header says application/json (or +json), in UTF-8 if it says so."""
    if content_type == "application/json":
        return
    if len(content_type or "") > _MAX_CONTENT_TYPE:
        raise ServiceError(415, "unsupported_media_type", headers={"Accept": "application/json"})
    message = Message()
    message["content-type"] = content_type or ""
    subtype = message.get_content_subtype()
    is_json = message.get_content_maintype() == "application" and (
        subtype == "json" or subtype.endswith("+json")
    )
    charset = message.get_param("charset", "utf-8")
    if not content_type or not is_json or str(charset).lower() not in ("utf-8", "utf8"):
        raise ServiceError(415, "unsupported_media_type", headers={"Accept": "application/json"})


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`.

    Raises ServiceError: 400 for what is not one JSON object in UTF-8 (repeated names, too deep
    and too many values included), 422 for values that no field takes: numbers that are not
    finite or beyond 64 bits, text with NUL or lone surrogates.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > _MAX_MARKS:
        raise _malformed("The body has too many values, or is nested too deeply.")
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError:
        raise _malformed("The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise _malformed(f"The body is not JSON: see character {error.pos}.") from None
    except RecursionError:
        raise _malformed("The body is nested too deeply.") from None
    except ValueError as error:  # a number of thousands of digits, or our own refusal below
        repeated = isinstance(error, _RepeatedNameError)
        raise _malformed(
            "The body has an object that names a field twice."
            if repeated
            else "The body has a number that is too long."
        ) from None
    if not isinstance(value, dict):
        raise _malformed("The body is not a JSON object.")
    faults = _faults(value)
    if faults:
        raise ServiceError(422, "invalid_request", errors=tuple(faults[:_MAX_FAULTS]))
    return value


def pointer(parts: tuple[int | str, ...]) -> str:
    """A JSON pointer; long or unprintable names are shortened and escaped."""
    return "".join("/" + _shown(str(part)) for part in parts)


class _RepeatedNameError(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _RepeatedNameError
    return value


def _malformed(detail: str) -> ServiceError:
    return ServiceError(400, "malformed_body", detail)


def _shown(name: str) -> str:
    short = name if len(name) <= 64 else name[:64] + "..."
    plain = short.encode("utf-8", "backslashreplace").decode()
    escaped = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in plain)
    return escaped.replace("~", "~0").replace("/", "~1")


def _faults(document: dict[str, Any]) -> list[FieldError]:
    faults: list[FieldError] = []
    values = 0
    stack: list[tuple[Any, tuple[int | str, ...]]] = [(document, ())]
    while stack:
        value, path = stack.pop()
        values += 1
        if isinstance(value, dict | list):
            if len(path) >= _MAX_DEPTH:
                raise _malformed("The body is nested too deeply.")
            values += len(value)
            if values > _MAX_VALUES:
                raise _malformed("The body has too many values.")
            items = value.items() if isinstance(value, dict) else enumerate(value)
            stack.extend((item, (*path, name)) for name, item in items)
            if isinstance(value, dict) and any(_unstorable(name) for name in value):
                faults.append(FieldError(pointer(path), "has a name with forbidden characters"))
        elif isinstance(value, str) and _unstorable(value):
            message = "holds NUL or half of a surrogate pair, which is not text"
            faults.append(FieldError(pointer(path), message))
        elif isinstance(value, float) and not math.isfinite(value):
            faults.append(FieldError(pointer(path), "is not a finite number"))
        elif isinstance(value, int) and abs(value) > _MAX_INTEGER:
            faults.append(FieldError(pointer(path), "is outside the range of 64-bit integers"))
    return faults


def _unstorable(text: str) -> bool:
    if "\0" in text:
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
