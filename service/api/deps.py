"""What every router asks for: the services, the caller, and two request headers."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

from fastapi import Depends, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import APIKeyCookie, HTTPBearer
from itsdangerous import BadSignature, URLSafeTimedSerializer
from pydantic import BaseModel, ValidationError
from starlette.types import Message

from service.actions.gate import HeldBytes, place_of
from service.actions.limits import Limits
from service.api.http.rates import address_of, count_caller, count_stranger
from service.api.http.strict_json import StrictRequest, parse_json, require_json_type
from service.api.services import Services
from service.core.auth import BROWSER_TENANT, TASTE, USER_ID, Caller, named
from service.core.errors import ServiceError
from service.core.turns import Path as Place
from service.core.turns import path_of

COOKIE = "ppd_session"
SECURE_COOKIE = f"__Host-{COOKIE}"
"""Over https: browsers take this name from this very host only, and not over plain http."""
MAX_WAIT_S = 60
_SMALL_BODY_BYTES = 2**16
"""As many small ones are held as there are connections."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_WAIT = re.compile(r"\s*wait\s*=\s*\"?(\d{1,6})\"?\s*", re.IGNORECASE)
_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="A tenant's API key.")
_cookie = APIKeyCookie(
    name=COOKIE,
    auto_error=False,
    scheme_name="BrowserSession",
    description=(
        "The signed session that the pages give a browser; it owns exactly one user. "
        f"Over https it is called {SECURE_COOKIE}."
    ),
)


BY_KEY_OR_SESSION: dict[str, Any] = {"security": [{"ApiKey": []}, {"BrowserSession": []}]}
"""`openapi_extra` of a protected route that does not take `CallerDep`: the schema says the same."""


def services_of(request: Request) -> Services:
    """The parts that were wired into this application."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


def known_caller(request: Request) -> Caller:
    """The caller that `ProtectedRoute` let in.

    What is asked most often calls this, and `services_of`, by itself: see `read_by`.
    """
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller


Read = Callable[[StrictRequest], Awaitable[Response | None]]
"""Reads a request and has it answered; None leaves it to the framework."""
_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])
_Body = TypeVar("_Body", bound=BaseModel)
_readers: dict[Callable[..., Any], Read] = {}


def read_by(read: Read) -> Callable[[_Endpoint], _Endpoint]:
    """Mark an endpoint that is asked so often that it has its request read by this.

    The framework looks each header and dependency up anew for each request, which takes longer
    than all that is done with them. The endpoint's signature is what the schema tells: it and
    `read` are to say the same, so `read` calls the signature's own dependencies.
    """

    def mark(endpoint: _Endpoint) -> _Endpoint:
        _readers[endpoint] = read
        return endpoint

    return mark


def is_read_directly(endpoint: Callable[..., Any]) -> bool:
    return endpoint in _readers


def read_body(kind: type[_Body], request: StrictRequest) -> _Body:
    """The body as the framework would give it; raises what it would raise."""
    try:
        return kind.model_validate(request.parsed)
    except ValidationError as error:
        faults = [
            {**fault, "loc": ("body", *fault["loc"])} for fault in error.errors(include_url=False)
        ]
        raise RequestValidationError(faults) from None


class StrictRoute(APIRoute):
    """A route that reads its body strictly; it needs no key."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Check type and content of the body before the framework, or the reader, reads it."""
        handle, read = super().get_route_handler(), _readers.get(self.endpoint)

        async def strict(request: Request) -> Response:
            inner = StrictRequest(request.scope, request.receive)
            await self.admit(inner)
            if self.body_field is None:
                answer = None if read is None else await read(inner)
                return await handle(inner) if answer is None else answer
            require_json_type(inner.headers.get("content-type"))
            services = services_of(inner)
            with services.gate.holding_bytes(self.place(inner)) as held:
                counted = _counted(inner, held, services.limits)
                counted.parsed = parse_json(await counted.body())
                answer = None if read is None else await read(counted)
                return await handle(counted) if answer is None else answer

        return strict

    async def admit(self, request: Request) -> None:
        """Let everybody in."""

    def place(self, request: Request) -> Place:
        """Whose share of the bodies a request takes."""
        return path_of("", address_of(request), None)


class CountedRoute(StrictRoute):
    """A route for everybody that costs something: counted by address."""

    async def admit(self, request: Request) -> None:
        """Raise 429 for an address that asks too often."""
        await count_stranger(request, services_of(request).rates)


class ProtectedRoute(StrictRoute):
    """A route for callers with a key or a session; they are known before anything is read.

    Where there is no room for more, its POST, PUT and PATCH are refused.
    """

    adds = True

    async def admit(self, request: Request) -> None:
        rates = services_of(request).rates
        try:
            caller = await authenticate(request)
        except ServiceError:
            await count_stranger(request, rates)
            raise
        request.state.caller = caller
        await count_caller(request, rates, caller)
        if self.adds and request.method in ("POST", "PUT", "PATCH"):
            await services_of(request).room.check(caller)

    def place(self, request: Request) -> Place:
        return place_of(known_caller(request), request.path_params.get("user_id"))


class AdminRoute(ProtectedRoute):
    """A route under /admin, for keys of the scope admin only; open where there is no room, too."""

    adds = False

    async def admit(self, request: Request) -> None:
        """Raise 403 for everybody else who is let in elsewhere."""
        await super().admit(request)
        if not request.state.caller.is_admin:
            raise ServiceError(403, "admin_only")


def _counted(request: StrictRequest, held: HeldBytes, limits: Limits) -> StrictRequest:
    """The request, whose body is counted: before it is read where it says how long it is.

    Raises 429 or 503 there, or while it is read, when there is no room for it.
    """
    said = request.headers.get("content-length", "")
    if said.isdecimal():
        if not _SMALL_BODY_BYTES < int(said) <= limits.max_upload_body_bytes:  # more is 413
            return request
        held.expect(int(said))

    async def receive() -> Message:
        message = await request.receive()
        held.came(len(message.get("body", b"")))
        return message

    return StrictRequest(request.scope, receive)


async def authenticate(request: Request) -> Caller:
    """Who calls: by API key, else by browser session.

    Raises 401 without either, 403 for a session's change that another site's page may have sent.
    """
    services = services_of(request)
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _, key = header.partition(" ")
        if scheme.lower() != "bearer":
            raise ServiceError(401, "unauthorized")
        caller = await services.keys.caller(key.strip())
        if caller is None:
            raise ServiceError(401, "unauthorized")
        return caller
    user_id = session_user(request, services)
    if user_id is None:
        raise ServiceError(401, "unauthorized")
    if request.method not in _SAFE_METHODS and not _same_origin(request, services.public_url):
        raise ServiceError(403, "forbidden_origin")
    return Caller(BROWSER_TENANT, user_id, lane=_lane(address_of(request), services))


def session_user(request: Request, services: Services) -> str | None:
    """The user whom the request's session cookie owns, if it is signed and fresh."""
    cookie = request.cookies.get(_cookie_name(request))
    if not cookie:
        return None
    try:
        user_id = _signer(services).loads(cookie, max_age=services.limits.session_max_age_s)
    except BadSignature:
        return None
    return user_id if isinstance(user_id, str) and re.fullmatch(USER_ID, user_id) else None


def start_session(request: Request, response: Response, services: Services, user_id: str) -> None:
    """Give the browser a session that owns `user_id`."""
    response.set_cookie(
        _cookie_name(request),
        _signer(services).dumps(user_id),
        max_age=services.limits.session_max_age_s,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def new_session_user() -> str:
    return f"me-{secrets.token_hex(12)}"


def end_session(request: Request, response: Response) -> None:
    """Take the browser's session away."""
    response.delete_cookie(
        _cookie_name(request),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def _lane(address: str, services: Services) -> str:
    """The address so that nobody reads it who does not know it, the same for all replicas."""
    secret = services.session_secret.encode()
    return hmac.digest(secret, f"lane {address}".encode(), "sha256").hex()[:16]


def _cookie_name(request: Request) -> str:
    return SECURE_COOKIE if request.url.scheme == "https" else COOKIE


def _signer(services: Services) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(services.session_secret, salt="ppd-session-1")


def _same_origin(request: Request, public_url: str | None) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    if origin is None:
        return False
    try:
        sent = urlsplit(origin)
    except ValueError:  # brackets that are no address, say
        return False
    if public_url is not None and origin == public_url:
        return True
    return (sent.scheme, sent.netloc) == (request.url.scheme, request.headers.get("host"))


async def _services(request: Request) -> Services:
    # Like every dependency here a coroutine: the framework runs plain functions in a thread each.
    return services_of(request)


async def caller_of(
    request: Request,
    _key: Annotated[Any, Depends(_bearer)],
    _session: Annotated[Any, Depends(_cookie)],
) -> Caller:
    """The caller that `ProtectedRoute` let in; the schemes are named for the schema's sake."""
    return known_caller(request)


async def allowed_user(
    user_id: Annotated[str, Path(pattern=USER_ID, description="The tenant's own name of a user.")],
    caller: Annotated[Caller, Depends(caller_of)],
) -> str:
    """The user id of the path; 404 when it is not the session's own."""
    if not caller.may_use(user_id):
        raise ServiceError(404, "user_not_found")
    return user_id


async def named_taste(
    user_id: Annotated[str, Depends(allowed_user)],
    taste: Annotated[
        str | None,
        Query(pattern=TASTE, description="Which of the person's tastes; left out: the first."),
    ] = None,
) -> str:
    """The name under which the taste that is meant is kept: see `service.core.auth.named`."""
    return named(user_id, taste)


async def prefer_wait(
    prefer: Annotated[
        str | None, Header(description="`wait=N`: answer within N seconds, 60 at most.")
    ] = None,
) -> float | None:
    """Seconds that the client is ready to wait; None when it did not say. Other words pass."""
    for part in re.split(r"[,;]", prefer or ""):
        match = _WAIT.fullmatch(part)
        if match and int(match[1]) > 0:
            return float(min(int(match[1]), MAX_WAIT_S))
    return None


async def fingerprint(request: Request, whose: str = "") -> str:
    """What must be the same for a repeated request to be the same."""
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    seen = hashlib.sha256(f"{request.method} {asked}{whose}\n".encode())
    seen.update(await request.body())
    return seen.hexdigest()


ServicesDep = Annotated[Services, Depends(_services)]
CallerDep = Annotated[Caller, Depends(caller_of)]
UserIdDep = Annotated[str, Depends(allowed_user)]
TasteDep = Annotated[str, Depends(named_taste)]
WaitDep = Annotated[float | None, Depends(prefer_wait)]
