"""Every block of `docs/api.md` runs as it stands."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.api_page import blocks_of
from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = pytest.mark.anyio


async def run(service: Service, folder: Path, *words: str) -> str:
    """What a program writes that knows where the service is; it has to end well."""
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=folder,
        env={**kept, "API": service.url, "KEY": service.key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode() + out.decode()
    return out.decode()


async def test_curl(service: Service, tmp_path: Path) -> None:
    service.runtime.step_s = 0.1
    out = await run(service, tmp_path, "bash", "-euo", "pipefail", "-c", blocks_of("sh"))
    assert '"status":"ready"' in out
    assert "event: step" in out
    assert "succeeded" in out
    assert '"erased":{"jobs":1,"images":2}' in out
    assert (tmp_path / "boat.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "boat.webp").read_bytes()[8:12] == b"WEBP"
    assert (await service.client().get("/users/ada/export")).status_code == 404


async def test_python(start: Start, tmp_path: Path) -> None:
    service: Service = await start()
    service.runtime.preview_every, service.runtime.step_s = 5, 0.05
    (tmp_path / "page.py").write_text(blocks_of("python"))
    out = await run(service, tmp_path, sys.executable, "page.py")
    assert "ready Likes what was chosen" in out
    assert "step 20 of 20" in out
    assert "in their taste: True" in out
    assert "image_generation.partial_image 128x128" in out
    assert "image_generation.completed 128x128" in out


async def test_javascript_in_node(service: Service, tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node is not None, "`make test` needs node for the pages' types as well"
    (tmp_path / "page.mjs").write_text(blocks_of("js"))
    out = await run(service, tmp_path, node, "page.mjs")
    assert "succeeded image/png" in out
