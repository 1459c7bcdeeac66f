"""The outermost layer: request ids, security headers, one log line and one count per request."""

import logging
import re
import secrets
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.http.error_handlers import http_problem, problem
from service.api.http.hosts import Hosts
from service.core.errors import ServiceError
from service.infra import logs
from service.infra.metrics import Metrics

log = logging.getLogger("ppd.http")

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEADERS = tuple(
    (name.lower().encode(), value.encode())
    for name, value in {
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
    }.items()
)
_TWO_LENGTHS = "The request has both Transfer-Encoding and Content-Length."
_HANG_UP = {"Connection": "close"}
_KEPT = ("content-range", "access-control-allow-origin", "access-control-expose-headers", "vary")
_CACHED_AFTER_A_LOOK = (b"cache-control", b"no-cache")
_NEVER_STORED = (b"cache-control", b"private, no-store")


class Outermost:
    """Wraps the whole application, its own error responses included.

    The log names the route, never the path: paths hold user ids, and those can be erased.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, hosts: Hosts, guarded: ASGIApp | None = None
    ) -> None:
        """`guarded`: the application with what stands between; left out, nothing does."""
        self.app = app
        self._hosts = hosts
        self._inner = guarded or app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
                headers = Headers(scope=message) if status >= 400 else None
                if headers and headers.get("content-type", "").startswith("text/plain"):
                    # The framework's own refusals, of bodies and of ranges, are plain text.
                    replaced = True
                    kept = {name: headers[name] for name in _KEPT if name in headers}
                    response = http_problem(scope, status, kept)
                    await response(scope, receive, send_plain)
                    return
                _add_headers(message, scope, request_id)
            await send(message)

        async def send_plain(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_headers(message, scope, request_id)
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is None:
                await self._inner(scope, receive, send_with_headers)
            else:
                await problem(scope, refusal)(scope, receive, send_with_headers)
        finally:
            took_s = time.monotonic() - started
            route = getattr(scope.get("route"), "path", "-")
            self._metrics.request(scope["method"], route, status, took_s)
            if log.isEnabledFor(logging.INFO):
                method, took_ms = scope["method"], round(took_s * 1000, 1)
                seen = {"method": method, "route": route, "status": status, "ms": took_ms}
                log.info("%s %s %d %.1f ms", method, route, status, took_ms, extra={"fields": seen})

    def _refusal(self, scope: Scope) -> ServiceError | None:
        """Why a request goes no further, whatever it asks for."""
        if not self._hosts.answers(scope["headers"], scope["path"]):
            return ServiceError(421, "unknown_host")
        names = [name for name, _ in scope["headers"]]
        if b"transfer-encoding" in names and b"content-length" in names:
            # Proxies that go by the other of the two see another request in what follows.
            return ServiceError(400, "malformed_body", _TWO_LENGTHS, headers=_HANG_UP)
        return None


def _add_headers(message: Message, scope: Scope, request_id: str) -> None:
    """Add ours to those of the answer; where it has one of them already, that stands."""
    headers: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
    there = {name for name, _ in headers}
    rates = scope["state"].get("rate_headers", {})
    is_static = scope["path"].startswith("/static/")
    ours = [
        (b"x-request-id", request_id.encode()),
        *_HEADERS,
        *((name.lower().encode(), value.encode()) for name, value in rates.items()),
        _CACHED_AFTER_A_LOOK if is_static else _NEVER_STORED,
    ]
    message["headers"] = headers + [header for header in ours if header[0] not in there]


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return bytes(value).decode()
    return secrets.token_hex(8)
