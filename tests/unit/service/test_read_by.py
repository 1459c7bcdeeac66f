"""Endpoints that have their requests read past the framework."""

import pytest
from fastapi import APIRouter, FastAPI

from service.api.deps import StrictRoute, is_read_directly
from service.api.routes import generate, jobs


@pytest.mark.parametrize(
    ("router", "path", "method", "read"),
    [
        (generate.router, "/generate", "post", {"Prefer", "Idempotency-Key"}),
        (jobs.router, "/jobs/{job_id}", "get", {"job_id"}),
    ],
)
def test_a_reader_reads_all_that_its_endpoint_takes(
    router: APIRouter, path: str, method: str, read: set[str]
) -> None:
    """A parameter that is added to the endpoint alone would be in the schema and do nothing."""
    app = FastAPI()
    app.include_router(router)
    told = app.openapi()["paths"][path][method]["parameters"]
    assert {one["name"].lower() for one in told} == {name.lower() for name in read}


def test_which_endpoints_those_are() -> None:
    routes = [route for module in (generate, jobs) for route in module.router.routes]
    read = [
        (route.path, *route.methods)
        for route in routes
        if isinstance(route, StrictRoute) and is_read_directly(route.endpoint)
    ]
    assert read == [("/generate", "POST"), ("/jobs/{job_id}", "GET")]
