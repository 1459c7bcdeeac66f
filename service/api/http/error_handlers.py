"""Every error as application/problem+json (RFC 9457) with a stable code, never with the input."""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import MAX_BODY_SIZE_SCOPE_KEY
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from service.api.http.openai_errors import is_openai, openai_error
from service.api.http.strict_json import pointer
from service.core.errors import FieldError, ServiceError

log = logging.getLogger("ppd.http")

_MAX_ERRORS = 20
_CODES = {
    401: "unauthorized",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
    500: "internal",
}


def install(app: FastAPI) -> None:
    """Answer every kind of error through `problem`."""
    app.add_exception_handler(ServiceError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OperationalError, _unavailable)
    app.add_exception_handler(PoolTimeoutError, _unavailable)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _failed)


def problem(scope: Scope, error: ServiceError) -> Response:
    headers = {**error.headers}
    if error.status == 401:
        headers.setdefault("WWW-Authenticate", 'Bearer realm="ppd"')
    if is_openai(scope):
        return openai_error(error, headers)
    body: dict[str, Any] = {
        "type": f"/docs#error-{error.code}",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        "instance": _instance(scope),
        "code": error.code,
        "errors": [_field(fault) for fault in error.errors],
        "request_id": scope.get("state", {}).get("request_id"),
    }
    return Response(
        json.dumps(body, ensure_ascii=True, allow_nan=False),
        status_code=error.status,
        headers=headers,
        media_type="application/problem+json",
    )


def http_problem(scope: Scope, status: int, headers: Mapping[str, str]) -> Response:
    """The response for a refusal of the framework, which has a status and no code of ours."""
    detail = _too_large(scope) if MAX_BODY_SIZE_SCOPE_KEY in scope and status == 413 else None
    code = _CODES.get(status, "http_error")
    return problem(scope, ServiceError(status, code, detail, headers=headers))


def _too_large(scope: Scope) -> str:
    said = Headers(scope=scope).get("content-length", "")
    has = f"The body has {said} bytes" if said.isdecimal() else "The body goes on"
    return f"{has}; at most {scope[MAX_BODY_SIZE_SCOPE_KEY]} are read here."


def _field(fault: FieldError) -> Mapping[str, str]:
    return {"pointer": fault.pointer, "message": fault.message}


def _instance(scope: Scope) -> str:
    return str(scope.get("path", ""))[:256]


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return problem(request.scope, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    faults = tuple(_fault(entry) for entry in error.errors()[:_MAX_ERRORS])
    return problem(request.scope, ServiceError(422, "invalid_request", errors=faults))


def _fault(entry: Mapping[str, Any]) -> FieldError:
    place, *path = entry["loc"]
    message = entry["msg"].removeprefix("Value error, ")
    if place == "body":
        return FieldError(pointer(tuple(path)), message)
    return FieldError("", f"{place} parameter {'.'.join(map(str, path))}: {message}")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code < 400:
        return Response(status_code=error.status_code, headers=error.headers)
    headers = {**(error.headers or {})}
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    return http_problem(request.scope, error.status_code, headers)


def _methods(request: Request) -> list[str]:
    """What the address does answer: the framework names the methods of one of its routes only."""
    methods: set[str] = set()
    for context in iter_route_contexts(request.app.routes):
        matches = getattr(context.original_route, "path_regex", None)
        if matches is not None and matches.match(request.scope["path"]):
            methods |= context.methods or {"GET"}
    return sorted(methods)


async def _unavailable(request: Request, error: Exception) -> Response:
    """SQLite is locked or full: our fault, and worth another try. (PostgreSQL: DatabaseAway.)"""
    log.error("the database does not answer", exc_info=error)
    return problem(request.scope, ServiceError(503, "database", headers={"Retry-After": "5"}))


async def _gone(request: Request, error: Exception) -> Response:
    """The client went away before it had sent its body; nobody reads this answer."""
    return http_problem(request.scope, 400, {})


async def _failed(request: Request, error: Exception) -> Response:
    return problem(request.scope, ServiceError(500, "internal"))
