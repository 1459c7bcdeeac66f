"""START HERE: the HTTP application, from parts that were wired elsewhere."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from service.api.http import error_handlers
from service.api.http.cross_origin import open_to
from service.api.http.hosts import Hosts
from service.api.http.outermost import Outermost
from service.api.http.tracing import telemetry
from service.api.pages import docs, quiz_and_studio
from service.api.pages import wins as wins_page
from service.api.routes import (
    admin_adapters,
    choices,
    generate,
    health,
    images,
    jobs,
    keys,
    metrics,
    openai,
    pairs,
    reports,
    signed_pictures,
    tastes,
    users,
    wins,
)
from service.api.schemas import PROBLEMS
from service.api.services import Services


def create_app(
    services: Services,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> Outermost:
    """The whole API and the pages. `lifespan` is what runs beside it in this process."""
    app = FastAPI(
        title="PPD: pictures in a person's own taste",
        version="1",
        description=docs.DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        max_body_size=services.limits.max_body_bytes,
        responses=PROBLEMS,
        lifespan=lifespan,
        redirect_slashes=False,
        telemetry=telemetry(services.tracer_provider),
    )
    app.state.services = services
    error_handlers.install(app)
    routers: list[Any] = [  # matched in this order: first what is asked most often
        generate,
        jobs,
        health,
        pairs,
        choices,
        users,
        tastes,
        signed_pictures,
        images,
        openai,
        keys,
        admin_adapters,
        reports,
        wins,
        metrics,
        docs,
        quiz_and_studio,
        wins_page,
    ]
    for module in routers:
        sent = services.limits.max_upload_body_bytes if module is choices else None
        app.include_router(module.router, max_body_size=sent)
    static = services.web_dir / "static"
    app.mount("/static", StaticFiles(directory=static, check_dir=False), name="static")
    services.metrics.streams_are(services.streams.count)
    guarded = open_to(app, services.cors_origins)
    return Outermost(app, services.metrics, Hosts(services.allowed_hosts), guarded)
