"""What an equal request costs, over HTTP, on the embedded default with the shipped `mini`.

    python -m benchmarks.service.equal_requests --out runs/equal_requests

Starts `ppd serve` on a data folder of its own and measures: (a) the time of a picture asked for the
first time and of the same request again, alternating; (b) a strength changed at a kept seed, as the
studio asks for it, with the base computed anew and with the base that is there: the client's
seconds, and the models' (denoising and decoding, shared with nobody); (c) one request of `n=4`
asked twenty times at once beside eight others: how many different answers there are, by their
bytes. Prints one table and writes JSON. Needs the dev extra.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.servers import free_port

WAIT = {"Prefer": "wait=60"}
PROMPT = "a boat at the sea"
CHOICES = [
    {"pair_id": pair_id, "preferred": preferred}
    for pair_id, preferred in [
        ("fish-night-1", 0),
        ("balloon-hills-1", 1),
        ("tree-sea-1", 0),
        ("house-town-1", 1),
    ]
]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("runs/equal_requests"))
    given = parser.parse_args(argv)
    with served() as (url, key):
        report = asyncio.run(measure(url, key, given.rounds))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "equal_requests.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


@contextmanager
def served() -> Iterator[tuple[str, str]]:
    """A service of its own, ready: its address and its key."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="ppd-equal-") as folder:
        command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port)]
        process = subprocess.Popen(  # noqa: S603
            [*command, "--data-dir", folder],
            env={**os.environ, "PPD_LOG_LEVEL": "WARNING"},
            stdout=subprocess.DEVNULL,
        )
        try:
            _until_ready(url, process)
            yield url, (Path(folder) / "api-key").read_text().strip()
        finally:
            process.terminate()
            process.wait(30)


def _until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            raise RuntimeError(f"ppd serve ended with {process.returncode}")
        try:
            if httpx.get(f"{url}/health/ready", trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError("ppd serve was not ready after two minutes")


async def measure(url: str, key: str, rounds: int) -> dict[str, Any]:
    """All three, one after the other."""
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, timeout=120, trust_env=False
    ) as client:
        answer = await client.post(
            "/users/ann/preferences", json={"choices": CHOICES}, headers=WAIT
        )
        assert answer.json()["status"] == "ready", answer.text
        await generate(client, seed=1)  # warm
        return {
            "asked_again": await asked_again(client, rounds),
            "strength_changed": await strength_changed(client, rounds),
            "under_load": await under_load(client),
        }


async def generate(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """A finished job."""
    answer = await client.post("/generate", json={"prompt": PROMPT, **body}, headers=WAIT)
    job: dict[str, Any] = answer.raise_for_status().json()
    assert job["status"] == "succeeded", job
    return job


async def asked_again(client: httpx.AsyncClient, rounds: int) -> dict[str, float]:
    """Seconds of the first and of the equal request."""
    seconds: dict[str, list[float]] = {"first": [], "again": []}
    for seed in range(100, 100 + rounds):
        for which in seconds:
            began_s = time.perf_counter()
            job = await generate(client, seed=seed, user_id="ann")
            seconds[which].append(time.perf_counter() - began_s)
            assert job["result"]["cached"] is (which == "again")
    return compared(seconds, "first", "again")


async def strength_changed(client: httpx.AsyncClient, rounds: int) -> dict[str, Any]:
    """Two pictures at a kept seed, of which the base was or was not made before."""
    client_s: dict[str, list[float]] = {"both": [], "one": []}
    models_s: dict[str, list[float]] = {"both": [], "one": []}
    await generate(client, seed=7)
    for step in range(rounds):
        for which in client_s:
            strength = (step + 1) / (rounds + 1)
            fresh = which == "both"
            began_s = time.perf_counter()
            jobs = await asyncio.gather(
                generate(client, seed=7, user_id="ann", strength=strength, fresh=True),
                generate(client, seed=7, fresh=fresh),
            )
            client_s[which].append(time.perf_counter() - began_s)
            jobs = [job for job in jobs if not job["result"]["cached"]]
            assert len(jobs) == (2 if fresh else 1)
            alone = [await generate(client, seed=7, fresh=True) for _ in jobs]
            models_s[which].append(sum(map(worked_s, alone)))
    return {
        "client": compared(client_s, "both", "one"),
        "models": compared(models_s, "both", "one"),
    }


def worked_s(job: dict[str, Any]) -> float:
    """Seconds of the models for a job that had them to itself."""
    timings = job["result"]["timings"]
    return float(timings["denoise_s"] + timings["decode_s"])


def compared(seconds: dict[str, list[float]], before: str, after: str) -> dict[str, float]:
    """Medians and their ratio."""
    medians = {f"{which}_s": statistics.median(values) for which, values in seconds.items()}
    return {**medians, "ratio": medians[f"{after}_s"] / medians[f"{before}_s"]}


async def under_load(client: httpx.AsyncClient) -> dict[str, Any]:
    """Different answers to one request asked twenty times at once beside eight others."""
    asked = [generate(client, seed=41, n=4, user_id="ann") for _ in range(12)]
    asked += [generate(client, seed=1000 + i) for i in range(8)]
    asked += [generate(client, seed=41, n=4, user_id="ann") for _ in range(8)]
    jobs = await asyncio.gather(*asked)
    equal = [*jobs[:12], *jobs[20:]]
    answers = set()
    for job in equal:
        pictures = [
            (await client.get(made["url"])).raise_for_status().content
            for made in job["result"]["images"]
        ]
        answers.add(hashlib.sha256(b"".join(pictures)).hexdigest())
    return {
        "asked": len(equal),
        "different_answers": len(answers),
        "computed": sum(not job["result"]["cached"] for job in equal),
    }


if __name__ == "__main__":
    main()
