"""Scripts of other sites: which may call the API, with a key and never with a cookie."""

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

_METHODS = ("GET", "POST", "PUT", "DELETE")
_SHOWN = (
    "Location", "Retry-After", "ETag", "Idempotent-Replayed", "Preference-Applied",
    "X-Request-Id", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
)  # fmt: skip
"""Headers that such a script may read."""


def allow_origins(app: FastAPI, origins: tuple[str, ...]) -> None:
    """Answer the questions that browsers ask before they let another site's script call.

    Without an origin nothing is added. Cookies stay out: a session belongs to our own pages.
    """
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=("*",),
            allow_credentials=False,
            expose_headers=_SHOWN,
        )
