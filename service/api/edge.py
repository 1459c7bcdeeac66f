"""The outermost layer: request ids, security headers, one log line and one count per request."""

import logging
import re
import secrets
import time
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.error_handlers import http_problem
from service.infra import logs
from service.infra.metrics import Metrics

log = logging.getLogger("ppd.http")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
}


class Edge:
    """Wraps the whole application, its own error responses included.

    The log names the route, never the path: paths hold user ids, and those can be erased.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        logs.begin_request(request_id)  # for as long as the task: the server's own lines come last
        started = time.monotonic()
        status = 500
        replaced = False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, replaced
            if replaced:
                return
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                if status >= 400 and headers.get("content-type", "").startswith("text/plain"):
                    # The framework's own refusals, of bodies and of ranges, are plain text.
                    replaced = True
                    kept = {name: headers[name] for name in ("content-range",) if name in headers}
                    response = http_problem(scope, status, kept)
                    await response(scope, receive, send_plain)
                    return
                _add_headers(headers, scope, request_id)
            await send(message)

        async def send_plain(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(MutableHeaders(scope=message), scope, request_id)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            took_s = time.monotonic() - started
            route = getattr(scope.get("route"), "path", "-")
            self._metrics.request(scope["method"], route, status, took_s)
            method, took_ms = scope["method"], round(took_s * 1000, 1)
            seen = {"method": method, "route": route, "status": status, "ms": took_ms}
            log.info("%s %s %d %.1f ms", method, route, status, took_ms, extra={"fields": seen})


def _add_headers(headers: MutableHeaders, scope: Scope, request_id: str) -> None:
    headers["X-Request-ID"] = request_id
    for name, value in {**_HEADERS, **scope["state"].get("rate_headers", {})}.items():
        headers.setdefault(name, value)
    cache = "no-cache" if scope["path"].startswith("/static/") else "private, no-store"
    headers.setdefault("Cache-Control", cache)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value).decode()
    return secrets.token_hex(8)
