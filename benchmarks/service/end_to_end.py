"""Simulated people use a running service over REST, as its clients do, and are measured.

    ppd serve &
    python -m benchmarks.service.end_to_end --key-file data/api-key --people 16

Each person fetches their quiz, looks at the pictures, answers four pairs, waits for the profile,
and asks for pictures with and without it. Reports the seconds a client waits, whether the same
request gives the same bytes, and the wins by the world's measured looks. Unlike training.evaluate
it meets the quiz's own choice of pairs. Needs the train extra (for the world) and httpx.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from training.reports.statistics import clustered_mean, wins
from training.world import captions, tastes
from training.world.looks import Standardizer, measure
from training.world.people import answer, person_seeds, taste_of
from training.world.scene import CONTENTS, SETTINGS, SUBJECTS

WEIGHTS_DIR = Path(__file__).parents[2] / "ppd_model" / "mini"
STRENGTH_OFF = 0.0
POLL_S = 0.5
"""Between looks at what takes longer than a request may wait: the machine may be busy."""


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--standardizer", type=Path, default=WEIGHTS_DIR / "standardizer.json")
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--first-person", type=int, default=500)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    headers = {"Authorization": f"Bearer {given.key_file.read_text().strip()}"}
    with httpx.Client(base_url=given.url, headers=headers, timeout=120) as client:
        report = measure_service(
            client,
            Standardizer.load(given.standardizer),
            person_seeds("test", given.people, given.first_person),
            given.prompts,
        )
    text = json.dumps(report, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")


def measure_service(
    client: httpx.Client, standardizer: Standardizer, seeds: Sequence[int], prompts: int
) -> dict[str, Any]:
    """Seconds, byte identity and wins over all people."""
    population = tastes.Population()
    outcome: list[float] = []
    person_of: list[int] = []
    profile_s: list[float] = []
    picture_s: list[float] = []
    identical = True
    for index, seed in enumerate(seeds):
        rng = np.random.default_rng([seed, 14])
        taste_L = taste_of(population, seed)
        user_id = f"bench-{seed}-{int(time.time())}"
        choices = answer_quiz(client, user_id, taste_L, standardizer, rng)
        profile_s.append(post_choices(client, user_id, choices))
        for _ in range(prompts):
            content = int(rng.integers(CONTENTS))
            request = {
                "prompt": captions.caption(*divmod(content, len(SETTINGS)), rng),
                "user_id": user_id,
                "seed": int(rng.integers(2**32)),
            }
            own, seconds = generate(client, request)
            base, _ = generate(client, request | {"strength": STRENGTH_OFF})
            picture_s.append(seconds)
            if len(outcome) == 0:
                identical = generate(client, request)[0] == own
            own_L = looks_of(own, content, standardizer)
            base_L = looks_of(base, content, standardizer)
            outcome.append(
                wins(tastes.utility(taste_L, own_L), tastes.utility(taste_L, base_L)).item()
            )
            person_of.append(index)
        print(f"person {index + 1}/{len(seeds)}: wins {np.mean(outcome):.2f}", flush=True)
    estimate = clustered_mean(np.array(outcome), np.array(person_of), np.random.default_rng(0))
    return {
        "wins": estimate.to_dict(),
        "profile_ready_s": {"median": float(np.median(profile_s)), "max": max(profile_s)},
        "picture_s": {"median": float(np.median(picture_s)), "max": max(picture_s)},
        "identical_bytes": identical,
    }


def answer_quiz(
    client: httpx.Client,
    user_id: str,
    taste_L: Any,
    standardizer: Standardizer,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """The first quiz of this person: every pair looked at and answered, ties as null."""
    quiz = json_of(client.get(f"/users/{user_id}/quiz"))
    choices: list[dict[str, Any]] = []
    for pair in quiz["pairs"]:
        content = content_of(pair["caption"])
        looks_2L = [
            looks_of(client.get(image["url"]).raise_for_status().content, content, standardizer)
            for image in pair["images"]
        ]
        preferred = answer(taste_L, looks_2L[0], looks_2L[1], rng, tie_below=0.1)
        choices.append({"pair_id": pair["pair_id"], "preferred": preferred})
        if sum(choice["preferred"] is not None for choice in choices) == quiz["needed"]:
            break
    return choices


def post_choices(client: httpx.Client, user_id: str, choices: list[dict[str, Any]]) -> float:
    """Post and wait until the profile is ready; returns the seconds that took."""
    started_s = time.perf_counter()
    body = json_of(
        client.post(
            f"/users/{user_id}/preferences",
            json={"choices": choices},
            headers={"Prefer": "wait=60"},
        )
    )
    if body["status"] != "ready":
        raise RuntimeError(f"{user_id}: no profile after 60 s: {body}")
    return time.perf_counter() - started_s


def generate(client: httpx.Client, request: dict[str, Any]) -> tuple[bytes, float]:
    """The picture's bytes, and the seconds until the job had succeeded."""
    started_s = time.perf_counter()
    (url, *_) = made(client, request)
    seconds = time.perf_counter() - started_s
    return client.get(url).raise_for_status().content, seconds


def made(client: httpx.Client, request: dict[str, Any]) -> list[str]:
    """Addresses of the pictures of a request, when all are made."""
    job = json_of(client.post("/generate", json=request, headers={"Prefer": "wait=60"}))
    while job["status"] in ("queued", "running"):
        time.sleep(POLL_S)
        job = json_of(client.get(f"/jobs/{job['id']}"))
    if job["status"] != "succeeded":
        raise RuntimeError(f"job {job['id']} is {job['status']}: {job.get('error')}")
    return [image["url"] for image in job["result"]["images"]]


def json_of(response: httpx.Response) -> Any:
    """The body of a successful response. Raises RuntimeError with the problem otherwise."""
    if response.is_error:
        raise RuntimeError(f"{response.request.url}: {response.status_code} {response.text}")
    return response.json()


def looks_of(image: bytes, content: int, standardizer: Standardizer) -> Any:
    """Measured looks of encoded picture bytes."""
    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
    return standardizer.apply(measure(pixels)[None], np.array([content]))[0]


def content_of(caption: str) -> int:
    """The content that a caption of the world names. Raises ValueError for another text."""
    words = set(caption.split())
    for subject, subject_name in enumerate(SUBJECTS):
        for setting, setting_name in enumerate(SETTINGS):
            named = words & set(captions.SUBJECT_WORDS[subject_name])
            phrases = captions.SETTING_PHRASES[setting_name]
            if named and any(phrase in caption for phrase in phrases):
                return subject * len(SETTINGS) + setting
    raise ValueError(f"{caption!r} names no content of the world")


if __name__ == "__main__":
    main()
