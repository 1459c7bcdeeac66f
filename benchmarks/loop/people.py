"""Simulated people of the painted world, who use a service over REST as clients do.

Each has a hidden taste over looks and answers by Bradley-Terry on what a picture measures; the
service sees pictures, captions and answers alone.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.service.end_to_end import POLL_S, WEIGHTS_DIR, content_of, json_of, looks_of
from training.world import captions, tastes
from training.world.looks import Standardizer
from training.world.painter import paint
from training.world.people import SeedRange, answer, person_seeds, taste_of
from training.world.scene import CONTENTS, LOOKS, SETTINGS, Scene

AT_ONCE = 4
TIE_BELOW = 0.1
"""Of pictures that were painted; between made ones everybody says one or the other."""
PICTURE_STEPS = 10
ASKED = 4
"""Pairs that are asked about together, in the quiz as between what was made."""

T = TypeVar("T")
LooksL = NDArray[np.float32]


@dataclass
class Person:
    """Somebody with a taste, under an id of the service's."""

    user_id: str
    taste_L: LooksL
    rng: np.random.Generator
    is_new: bool
    """Whether the service does not know them yet when they are asked."""


@dataclass
class Crowd:
    """People, and the one service that they use."""

    client: httpx.Client
    standardizer: Standardizer = field(
        default_factory=lambda: Standardizer.load(WEIGHTS_DIR / "standardizer.json")
    )
    _looks_of_pool: dict[str, LooksL] = field(default_factory=dict)

    def people(self, of: SeedRange, count: int, first: int) -> Iterator[Person]:
        population = tastes.Population()
        for seed in person_seeds(of, count, first):
            rng = np.random.default_rng([seed, 31])
            taste_L = taste_of(population, seed)
            yield Person(f"{of}-{seed}", taste_L, rng, is_new=of == "test")

    def answer_quiz(self, person: Person, answers: int) -> None:
        """Answer so many pairs of the quiz, four at a time."""
        for _ in range(answers // ASKED):
            quiz = json_of(self.client.get(f"/users/{person.user_id}/quiz"))
            self._post(person, [self._quiz_answer(person, pair) for pair in quiz["pairs"][:ASKED]])

    def compare_own(self, person: Person, pairs: int) -> None:
        """Answer to pairs of the person's own pictures: painted ones, uploaded."""
        self._post(person, [self._own_answer(person) for _ in range(pairs)])

    def compare_made(self, person: Person, prompts: Sequence[dict[str, Any]]) -> None:
        """Ask for pictures with the person's taste and without, and choose between them, blind."""
        self._post(person, [self._made_answer(person, request) for request in prompts])

    def contribute(self, person: Person, yes: bool = True) -> None:
        wish = {"contribute": yes}
        json_of(self.client.put(f"/users/{person.user_id}/contribution", json=wish))

    def wait_for_profile(self, person: Person) -> None:
        """Until everything that was answered is read. Raises RuntimeError where there is none."""
        while True:
            state = json_of(self.client.get(f"/users/{person.user_id}/preferences"))
            if state["status"] == "ready":
                return
            if state["status"] == "failed":
                raise RuntimeError(f"{person.user_id} has no profile: {state['profiles']}")
            if state["status"] == "collecting":  # too many ties
                self.answer_quiz(person, ASKED)
            time.sleep(POLL_S)

    def _post(self, person: Person, choices: Sequence[dict[str, Any]]) -> None:
        body = {"choices": list(choices)}
        json_of(self.client.post(f"/users/{person.user_id}/preferences", json=body))

    def _quiz_answer(self, person: Person, pair: dict[str, Any]) -> dict[str, Any]:
        content = content_of(pair["caption"])
        looks = [self._pool_looks(image["url"], content) for image in pair["images"]]
        preferred = answer(person.taste_L, *looks, person.rng, tie_below=TIE_BELOW)
        return {"pair_id": pair["pair_id"], "preferred": preferred}

    def _pool_looks(self, url: str, content: int) -> LooksL:
        if url not in self._looks_of_pool:
            file = self.client.get(url).raise_for_status().content
            self._looks_of_pool[url] = looks_of(file, content, self.standardizer)
        return self._looks_of_pool[url]

    def _own_answer(self, person: Person) -> dict[str, Any]:
        rng = person.rng
        content = int(rng.integers(CONTENTS))
        subject, setting = divmod(content, len(SETTINGS))
        files = []
        for _ in range(2):
            looks_L = rng.uniform(-1, 1, len(LOOKS)).astype(np.float32)
            scene = Scene(subject, setting, looks_L, int(rng.integers(2**31)))
            buffer = io.BytesIO()
            Image.fromarray(paint(scene)).save(buffer, "PNG")
            files.append(buffer.getvalue())
        looks = [looks_of(file, content, self.standardizer) for file in files]
        return {
            "caption": captions.caption(subject, setting, rng),
            "images": [base64.b64encode(file).decode() for file in files],
            "preferred": answer(person.taste_L, *looks, rng, tie_below=TIE_BELOW),
        }

    def _made_answer(self, person: Person, request: dict[str, Any]) -> dict[str, Any]:
        content = content_of(request["prompt"])
        made = [
            self._made({**request, "user_id": person.user_id}, content),
            self._made(request, content),
        ]
        hung = person.rng.permutation(2).tolist()
        ids, looks = zip(*(made[side] for side in hung), strict=True)
        preferred = answer(person.taste_L, *looks, person.rng)
        return {"image_ids": list(ids), "preferred": preferred, "blind": True}

    def _made(self, request: dict[str, Any], content: int) -> tuple[str, LooksL]:
        """The id of a picture and its looks."""
        job = json_of(self.client.post("/generate", json=request, headers={"Prefer": "wait=60"}))
        while job["status"] in ("queued", "running"):
            time.sleep(POLL_S)
            job = json_of(self.client.get(f"/jobs/{job['id']}"))
        if job["status"] != "succeeded":
            raise RuntimeError(f"job {job['id']} is {job['status']}: {job.get('error')}")
        url = job["result"]["images"][0]["url"]
        file = self.client.get(url).raise_for_status().content
        return url.rpartition("/")[2], looks_of(file, content, self.standardizer)


def prompts(seed: int, count: int = ASKED) -> list[dict[str, Any]]:
    """What everybody asks for: the base's picture of each is made once."""
    rng = np.random.default_rng([seed, 32])
    contents = rng.permutation(CONTENTS)[:count].tolist()
    return [
        {
            "prompt": captions.canonical(*divmod(content, len(SETTINGS))),
            "seed": int(rng.integers(2**31)),
            "steps": PICTURE_STEPS,
        }
        for content in contents
    ]


def everybody(people: Sequence[Person], does: Callable[[Person], T]) -> list[T]:
    """A few at a time, as people come to a service."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(does, people))
