"""Clients as they should be: each knows what it asked for, and what must come of it."""

import asyncio
import base64
import io
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import openai
from PIL import Image

from tests.known_people import Person, pixels
from tests.soak.book import AWAY, Book, comes_again

PATIENCE_S = 300.0
"""From acceptance to the end of a job, faults included."""
_ENDED = ("succeeded", "failed", "canceled", "expired")
_STORAGE = ("storage", "storage_full")
"""Ends of a job that a full disk may bring."""


@dataclass
class Client:
    """One person with a taste, and all that was accepted for them."""

    person: Person
    http: httpx.AsyncClient
    key: str
    book: Book
    chance: random.Random
    accepted: dict[str, dict[str, Any]] = field(default_factory=dict)
    further: int = 0
    """Jobs that were accepted and of which no id was told: OpenAI's answers have none."""

    async def live(self, stop: asyncio.Event) -> None:
        """Answer the quiz, then ask for pictures in every way, one after the other."""
        await self._choose()
        number = 0
        while not stop.is_set():
            number += 1
            way = self.chance.choices(
                (self._picture, self._follow, self._ask_openai, self._give_up),
                (6, 3, 2, 1),
            )[0]
            await way(number)
            await asyncio.sleep(self.chance.uniform(0, 0.5))

    async def _choose(self) -> None:
        path = f"/users/{self.person.name}"
        await self._until_taken("GET", f"{path}/quiz", None, "")
        await self._until_taken("POST", f"{path}/preferences", self.person.choices(1), "choices")
        async with asyncio.timeout(PATIENCE_S):
            while True:
                state = (await self._until_taken("GET", f"{path}/preferences", None, "")).json()
                if state["status"] == "ready":
                    return
                await asyncio.sleep(0.2)

    async def _picture(self, number: int) -> None:
        """Ask, look until it has ended, fetch the picture; sometimes ask once more."""
        job_id, asked = await self._ask(number)
        if self.chance.random() < 0.3:
            again, _ = await self._ask(number)
            if again != job_id:
                self.book.find("doubled", f"one Idempotency-Key made {job_id} and {again}")
        await self._see_to_end(job_id, asked)

    async def _follow(self, number: int) -> None:
        """The same with the job's events in the place of looks."""
        job_id, asked = await self._ask(number)
        try:
            async with self.http.stream("GET", f"/jobs/{job_id}/events") as answer:
                async for _ in answer.aiter_lines():
                    pass
            self.book.done["streams"] += 1
        except AWAY:
            self.book.done["streams cut"] += 1
        await self._see_to_end(job_id, asked)

    async def _give_up(self, number: int) -> None:
        """Ask and cancel: it has one end, whichever."""
        job_id, _ = await self._ask(number)
        await self._until_taken("DELETE", f"/jobs/{job_id}", None, "")
        await self._ended(job_id)
        self.book.done["canceled"] += 1

    async def _ask_openai(self, number: int) -> None:
        """The library as people use it, which tries again by itself."""
        asked = {"prompt": f"a lake {number}", "seed": number, "steps": 2}
        body = {"seed": asked["seed"], "steps": asked["steps"], "fresh": True}
        client = openai.AsyncOpenAI(
            base_url=f"{self.http.base_url}/v1", api_key=self.key, max_retries=5, timeout=60
        )
        self.further += 1
        async with client:
            try:
                made = await client.images.generate(
                    prompt=str(asked["prompt"]), user=self.person.name, extra_body=body
                )
            except openai.APIStatusError as error:
                self.book.answered(error.response, "OpenAI")
                return
            except openai.APIError:
                self.book.done["OpenAI: no answer"] += 1
                return
        assert made.data
        self._compare(base64.b64decode(made.data[0].b64_json or ""), asked, "OpenAI")

    async def _ask(self, number: int) -> tuple[str, dict[str, Any]]:
        asked = {"prompt": f"a fox {number}", "seed": number, "steps": 3}
        body = {**asked, "user_id": self.person.name, "fresh": True}
        answer = await self._until_taken("POST", "/generate", body, f"picture-{number}")
        job_id = str(answer.json()["id"])
        self.accepted[job_id] = asked
        return job_id, asked

    async def _see_to_end(self, job_id: str, asked: Mapping[str, Any]) -> None:
        job = await self._ended(job_id)
        if job is None:
            return
        if job["status"] != "succeeded":
            self.book.done[f"{job['status']}: {job['error']['code']}"] += 1
            if job["error"]["code"] not in _STORAGE:
                self.book.find("lost", f"{job_id} ended as {job['status']}: {job['error']}")
            return
        if len(job["result"]["images"]) != 1 or not job["result"]["personalization_applied"]:
            self.book.find("crossed", f"{job_id} is not what was asked: {job['result']}")
        file = await self._until_taken("GET", job["result"]["images"][0]["url"], None, "")
        self._compare(file.content, asked, job_id)

    async def _ended(self, job_id: str) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    job = (await self._until_taken("GET", f"/jobs/{job_id}", None, "")).json()
                    if job.get("status") in _ENDED:
                        return dict(job)
                    if "status" not in job or job["status"] == 404:
                        break
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pass
        self.book.find("lost", f"{job_id} came to no end in {PATIENCE_S:.0f} s")
        return None

    def _compare(self, file: bytes, asked: Mapping[str, Any], what: str) -> None:
        if np.array_equal(pixels(file), self.person.picture(1, **asked)):
            self.book.done["pictures"] += 1
        else:
            self.book.find("crossed", f"{what}: the picture is not {self.person.name}'s")

    async def _until_taken(
        self, method: str, path: str, body: Mapping[str, Any] | None, key: str
    ) -> httpx.Response:
        """Ask again, with the same key, whatever says that one may."""
        headers = {"Idempotency-Key": f"{self.person.name}-{key}"} if key else {}
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    answer = await self.http.request(method, path, json=body, headers=headers)
                except AWAY:
                    self.book.done["no answer"] += 1
                    await asyncio.sleep(0.3)
                    continue
                self.book.answered(answer, f"{method} {path}")
                in_flight = answer.status_code == 409 and "in_flight" in answer.text
                if not comes_again(answer) and not in_flight:
                    if answer.status_code >= 400:
                        self.book.find("other", f"{method} {path}: {answer.text[:300]}")
                    return answer
                await asyncio.sleep(0.3)

    async def all_accounted_for(self) -> None:
        """All jobs that were accepted are there and have ended, and there are no others."""
        listed: set[str] = set()
        path = f"/jobs?limit=100&user_id={self.person.name}"
        cursor = ""
        while True:
            page = (await self._until_taken("GET", path + cursor, None, "")).json()
            listed |= {job["id"] for job in page["results"] if job["kind"] == "generate"}
            if not page["next"]:
                break
            cursor = f"&cursor={page['next']}"
        for job_id in self.accepted.keys() - listed:
            self.book.find("lost", f"{job_id} was accepted and is not listed")
        others = len(listed - self.accepted.keys())
        if others > self.further:
            self.book.find("doubled", f"{others} jobs for {self.further} calls of OpenAI's client")
        for job_id in listed:
            await self._ended(job_id)


async def upload(http: httpx.AsyncClient, book: Book, stop: asyncio.Event, seed: int) -> None:
    """Somebody who shows own pictures, and is forgotten afterwards."""
    chance, number = random.Random(seed), 0
    while not stop.is_set():
        number += 1
        name = f"uploader-{seed}-{number}"
        pictures = [base64.b64encode(_picture(chance.randrange(2**32))).decode() for _ in "ab"]
        choice = {"caption": "own", "images": pictures, "preferred": 0}
        for method, path, body in (
            ("POST", f"/users/{name}/preferences", {"choices": [choice] * 4}),
            ("GET", f"/users/{name}/preferences", None),
            ("DELETE", f"/users/{name}", None),
        ):
            try:
                answer = await http.request(method, path, json=body)
            except AWAY:
                book.done["no answer"] += 1
                break
            book.answered(answer, f"{method} {path}")
            if answer.status_code >= 400:
                break
        else:
            book.done["uploaders"] += 1
        await asyncio.sleep(1)


def _picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


async def browse(url: str, book: Book, stop: asyncio.Event) -> None:
    """A browser: the page, a quiz, a picture; each time a new one."""
    while not stop.is_set():
        headers = {"Sec-Fetch-Site": "same-origin"}
        async with httpx.AsyncClient(
            base_url=url, headers=headers, timeout=60, trust_env=False
        ) as browser:
            try:
                page = book.answered(await browser.get("/"), "GET /")
                if page.status_code == 200:
                    user_id = page.text.split('name="ppd-user" content="')[1].split('"')[0]
                    for path in (f"/users/{user_id}/quiz", f"/users/{user_id}/preferences"):
                        book.answered(await browser.get(path), path)
                    made = await browser.post(
                        "/generate",
                        json={"prompt": "a hill", "steps": 2, "user_id": user_id},
                        headers={"Prefer": "wait=10"},
                    )
                    book.answered(made, "a browser's picture")
                    book.answered(await browser.delete(f"/users/{user_id}"), "DELETE a browser")
                    book.done["browsers"] += 1
            except AWAY:
                book.done["no answer"] += 1
        await asyncio.sleep(1)
