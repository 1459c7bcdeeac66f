"""Schemathesis as a process beside a service. What it found goes into its output."""

import asyncio
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.api_calls import annes
from tests.running_service import Service

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
TIMEOUT_S = 3600


@dataclass(frozen=True)
class Fuzzed:
    """How many requests were sent, and what came of it."""

    cases: int
    exit_code: int
    output: str


async def run_schemathesis(
    service: Service, folder: Path, *, seed: int, examples: int, phases: str
) -> Fuzzed:
    """Run every check with the service's first key, an admin's; `examples` for every operation.

    Half of the ids are those of a filled user, so that requests reach something.
    """
    configuration = folder / "schemathesis.toml"
    known = _dictionaries(await _real_values(service))
    configuration.write_text(CONFIGURATION.read_text() + known)
    log = folder / "schemathesis.txt"
    with log.open("wb") as file:
        exit_code = await _run(service, configuration, file, seed, examples, phases)
    output = log.read_text(errors="replace")
    counted = re.search(r"(\d+) generated", output)
    return Fuzzed(int(counted[1]) if counted else 0, exit_code, output)


async def _run(
    service: Service, configuration: Path, log: BinaryIO, seed: int, examples: int, phases: str
) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "schemathesis.cli", f"--config-file={configuration}"),
        *("run", f"{service.url}/openapi.json", "--no-color", "--continue-on-failure"),
        *("--checks=all", f"--seed={seed}", f"--max-examples={examples}", f"--phases={phases}"),
        *("--generation-database=none", "--suppress-health-check=all"),
        *("-H", f"Authorization: Bearer {service.key}"),
        cwd=configuration.parent,
        stdout=log,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()


async def _real_values(service: Service) -> Mapping[str, Sequence[str | int]]:
    client = service.client()
    ids = await annes(service, client, "ann")
    body = {"prompt": "a fox", "user": "ann", "steps": 2, "response_format": "url"}
    made = (await client.post("/v1/images/generations", json=body)).json()
    return {
        "people": [ids["user_id"]],
        "jobs": [ids["job_id"]],
        "images": [ids["image_id"]],
        "tokens": [made["data"][0]["url"].rsplit("/", 1)[1]],
        "models": [ids["model"]],
        "adapters": [ids["version"]],
        "tastes": [ids["taste"]],
        "codes": [ids["code"]],
        "files": ["pair-00-a.webp"],
        "sides": [128],
    }


def _dictionaries(values: Mapping[str, Sequence[str | int]]) -> str:
    return "".join(
        f"\n[dictionaries.{name}]\nvalues = {json.dumps(list(known))}\n"
        for name, known in values.items()
    )
