"""Endpoints that have their requests read past the framework."""

import pytest
from fastapi.dependencies.utils import get_flat_dependant

from service.api.deps import StrictRoute, is_read_directly
from service.api.routes import generate, jobs


@pytest.mark.parametrize(
    ("router", "path", "read"),
    [
        (generate.router, "/generate", {"body", "prefer", "Idempotency-Key"}),
        (jobs.router, "/jobs/{job_id}", {"job_id"}),
    ],
)
def test_a_reader_reads_all_that_its_endpoint_takes(
    router: object, path: str, read: set[str]
) -> None:
    """A parameter that is added to the endpoint alone would be in the schema and do nothing."""
    (route,) = (
        route
        for route in router.routes  # type: ignore[attr-defined]
        if route.path == path and is_read_directly(route.endpoint)
    )
    assert isinstance(route, StrictRoute)
    taken = get_flat_dependant(route.dependant)
    fields = [
        *taken.path_params,
        *taken.query_params,
        *taken.header_params,
        *taken.cookie_params,
        *taken.body_params,
    ]
    assert {field.alias for field in fields} == read
