"""Are words obeyed by a running service? As benchmarks.words asks it in process, over REST.

    ppd serve &
    python -m benchmarks.service.words --key-file data/api-key --people 2 --out words.json

People of the world's test seeds answer the quiz. Each text and its opposite are put in the place of
their profile, and of that of somebody without choices; then the same prompts and seeds are asked
for. The pictures are compared by plain statistics (benchmarks/picture_statistics.py).
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.picture_statistics import STATISTICS, Picture
from benchmarks.service.end_to_end import answer_quiz, generate, json_of, post_choices
from benchmarks.words import FIRST_PERSON, OWN_WORDS, STATED, Contrast
from training.world import captions, tastes
from training.world.looks import Standardizer
from training.world.people import person_seeds, taste_of
from training.world.scene import CONTENTS, SETTINGS

WEIGHTS_DIR = Path(__file__).parents[2] / "ppd_model" / "mini"
TEXTS = {"stated": STATED, "own_words": OWN_WORDS}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--people", type=int, default=2, help="Whose choices stand beside a text.")
    parser.add_argument("--prompts", type=int, default=2, help="Of each text; alone twice as many.")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    headers = {"Authorization": f"Bearer {given.key_file.read_text().strip()}"}
    report: dict[str, Any] = {}
    with httpx.Client(base_url=given.url, headers=headers, timeout=120) as client:
        people = quiz_people(client, given.people)
        alone = f"words-alone-{int(time.time())}"
        for name, contrasts in TEXTS.items():
            for beside, users, prompts in (
                (name, people, given.prompts),
                (f"{name}_alone", [alone], 2 * given.prompts),
            ):
                report[beside] = obeyed(client, contrasts, users, prompts)
                print(beside, report[beside]["right"], flush=True)
                if given.out is not None:  # after each: a run may be cut short
                    given.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


def quiz_people(client: httpx.Client, count: int) -> list[str]:
    """Users who have a profile of four choices."""
    standardizer = Standardizer.load(WEIGHTS_DIR / "standardizer.json")
    users = []
    for seed in person_seeds("test", count, FIRST_PERSON) if count else []:
        user_id = f"words-{seed}-{int(time.time())}"
        taste_L, rng = taste_of(tastes.Population(), seed), np.random.default_rng([seed, 14])
        while json_of(client.get(f"/users/{user_id}/quiz"))["needed"]:
            choices = answer_quiz(client, user_id, taste_L, standardizer, rng)
            json_of(client.post(f"/users/{user_id}/preferences", json={"choices": choices}))
        post_choices(client, user_id, choices)  # the same again: waits for their profile
        users.append(user_id)
    return users


def obeyed(
    client: httpx.Client, contrasts: Sequence[Contrast], users: Sequence[str], prompts: int
) -> dict[str, Any]:
    """Share of pictures in which a text shows more of its looks than its opposite does."""
    rng = np.random.default_rng(15)
    right: dict[str, list[bool]] = {}
    for contrast in contrasts:
        for user_id in users:
            asked = [_request(rng, user_id) for _ in range(prompts)]
            more = pictures_by(client, user_id, contrast.more, asked)
            less = pictures_by(client, user_id, contrast.less, asked)
            right.setdefault(contrast.more, []).extend(
                STATISTICS[look](one_HW3) > STATISTICS[look](other_HW3)
                for one_HW3, other_HW3 in zip(more, less, strict=True)
                for look in contrast.looks
            )
    everything = [one for ones in right.values() for one in ones]
    return {
        "right": round(float(np.mean(everything)), 3),
        "comparisons": len(everything),
        "each": {text: round(float(np.mean(ones)), 2) for text, ones in right.items()},
    }


def pictures_by(
    client: httpx.Client, user_id: str, text: str, asked: Sequence[dict[str, Any]]
) -> list[Picture]:
    """The pictures that are made once this text is the person's profile."""
    state = json_of(
        client.put(f"/users/{user_id}/profile", json={"text": text}, headers={"Prefer": "wait=60"})
    )
    if state["status"] != "ready":
        raise RuntimeError(f"{text!r} was not read: {state}")
    with ThreadPoolExecutor(len(asked)) as pool:
        files = list(pool.map(lambda request: generate(client, request)[0], asked))
    return [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]


def _request(rng: np.random.Generator, user_id: str) -> dict[str, Any]:
    prompt = captions.caption(*divmod(int(rng.integers(CONTENTS)), len(SETTINGS)), rng)
    return {"prompt": prompt, "seed": int(rng.integers(2**31)), "user_id": user_id}


if __name__ == "__main__":
    main()
