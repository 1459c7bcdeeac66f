"""Scripts of other sites: which may call the API, with a key and never with a cookie."""

from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

_METHODS = ("GET", "POST", "PUT", "DELETE")
_SHOWN = (
    "Location", "Retry-After", "ETag", "Idempotent-Replayed", "Preference-Applied",
    "X-Request-Id", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
)  # fmt: skip
"""Headers that such a script may read."""


def open_to(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """The application, which answers what browsers ask before another site's script may call it.

    Without an origin it is the same. Cookies stay out: a session belongs to our own pages.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=("*",),
        allow_credentials=False,
        expose_headers=_SHOWN,
    )
