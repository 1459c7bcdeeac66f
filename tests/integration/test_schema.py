"""What the API does is what its schema says: some hundreds of requests, the same ones every time.

`make fuzz` sends thousands.
"""

from pathlib import Path

import pytest

from tests.fuzz.schemathesis_run import run_schemathesis
from tests.integration.conftest import Start
from tests.renew_openapi import OPENAPI, as_text, served
from tests.running_service import Service

pytestmark = pytest.mark.anyio


async def test_schemathesis_finds_nothing(start: Start, tmp_path: Path) -> None:
    service: Service = await start(max_queued_jobs=100_000)
    done = await run_schemathesis(service, tmp_path, seed=1, examples=8, phases="fuzzing")
    assert done.exit_code == 0, done.output
    assert done.cases >= 150, done.output


async def test_the_schema_that_is_kept_is_the_one_that_is_served(service: Service) -> None:
    """`make openapi` renews it; what clients notice goes into CHANGELOG.md."""
    assert OPENAPI.read_text(encoding="utf-8") == as_text(await served(service))
