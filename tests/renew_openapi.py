"""Writes `docs/openapi.json` anew: `python -m tests.renew_openapi`, or `make openapi`.

A test compares the file with what is served, so that a change of the API is seen in review.
"""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from tests.fake_runtime import FakeRuntime
from tests.running_service import Service, make_pool, running

OPENAPI = Path(__file__).parents[1] / "docs" / "openapi.json"


async def served(service: Service) -> dict[str, Any]:
    """The schema as clients get it."""
    answer = await service.bare().get("/openapi.json")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def as_text(schema: dict[str, Any]) -> str:
    """In the order of names, so that a difference is one of content."""
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def renew() -> None:
    """Write what is served by a service of its own."""
    with tempfile.TemporaryDirectory(prefix="ppd-openapi-") as folder:
        pool = Path(folder, "pool")
        pool.mkdir()
        schema = asyncio.run(_schema(Path(folder, "data"), make_pool(pool)))
    OPENAPI.write_text(as_text(schema), encoding="utf-8")


async def _schema(data_dir: Path, pool_dir: Path) -> dict[str, Any]:
    async with running(FakeRuntime(), data_dir, pool_dir, ready=False) as service:
        return await served(service)


if __name__ == "__main__":
    renew()
