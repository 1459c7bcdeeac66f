"""Clients that ask for pictures while something is done to the service, and count what they got."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

PNG = b"\x89PNG\r\n\x1a\n"
ENDED = ("succeeded", "failed", "canceled", "expired")
PATIENCE_S = 240.0
PROMPT = "a red fish in a green field"


class Caller:
    """One person's client: asks again, with the same key, what was not answered."""

    def __init__(self, ports: tuple[int, ...], key: str, person: str) -> None:
        self.person = person
        self._ports = ports
        self._turn = 0
        self._http = httpx.Client(
            headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
        )

    def ask(self, method: str, path: str, body: Any = None, once: str = "") -> httpx.Response:
        """The answer, whatever it took: refusals that say when to come again are followed.

        Raises RuntimeError for any other refusal, and when none came in time.
        """
        headers = {"Idempotency-Key": once} if once else {}
        deadline, said = time.monotonic() + PATIENCE_S, ""
        while time.monotonic() < deadline:
            port = self._ports[self._turn % len(self._ports)]
            try:
                answer = self._http.request(
                    method, f"http://127.0.0.1:{port}{path}", json=body, headers=headers
                )
            except httpx.TransportError as error:
                said = type(error).__name__
                self._turn += 1
            else:
                if answer.status_code < 400:
                    return answer
                said = f"{answer.status_code} {answer.text[:300]}"
                later = answer.headers.get("retry-after", "").isdigit()
                if not later and answer.status_code != 409:
                    break
            time.sleep(0.3)
        raise RuntimeError(f"{method} {path}: {said}")

    def answer_quiz(self) -> dict[str, Any]:
        """Four answers, and the profile that they gave."""
        path = f"/users/{self.person}"
        pairs = self.ask("GET", f"{path}/quiz").json()["pairs"][:4]
        choices = [{"pair_id": pair["pair_id"], "preferred": 0} for pair in pairs]
        self.ask("POST", f"{path}/preferences", {"choices": choices}, f"{self.person}-quiz")
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            held = dict(self.ask("GET", f"{path}/preferences").json())
            if held["status"] == "ready":
                return held
            time.sleep(0.3)
        raise RuntimeError(f"no profile: {held}")

    def begin_picture(self, seed: int) -> str:
        body = {"prompt": PROMPT, "user_id": self.person, "seed": seed, "steps": 4, "fresh": True}
        made = self.ask("POST", "/generate", body, f"{self.person}-{seed}").json()
        return str(made["id"])

    def see_picture(self, job_id: str) -> dict[str, Any]:
        """The job once it has ended; its picture was read, and is one."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            job = dict(self.ask("GET", f"/jobs/{job_id}").json())
            if job["status"] in ENDED:
                break
            time.sleep(0.3)
        if job["status"] != "succeeded":
            raise RuntimeError(f"{job_id} is {job['status']}: {job.get('error')}")
        file = self.ask("GET", job["result"]["images"][0]["url"]).content
        if not file.startswith(PNG):
            raise RuntimeError(f"{job_id}: no picture, {file[:60]!r}")
        return dict(job)

    def jobs(self) -> set[str]:
        """All that the service has of this person's pictures."""
        listed = self.ask("GET", f"/jobs?limit=100&user_id={self.person}").json()["results"]
        return {job["id"] for job in listed if job["kind"] == "generate"}


@dataclass
class Load:
    """Each of several people asks for picture after picture until they are told to end."""

    callers: list[Caller]
    accepted: dict[str, str] = field(default_factory=dict)
    """Of each job whose it is."""
    wrong: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _next_seed: int = 0

    def begin(self) -> None:
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._live, args=(caller,), daemon=True)
            for caller in self.callers
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> str:
        """Wait for what was asked; what came of it. Raises RuntimeError when anything is wrong."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for caller in self.callers:
            ours = {job for job, person in self.accepted.items() if person == caller.person}
            listed = caller.jobs()
            self.wrong += [f"{job} was accepted and is not listed" for job in ours - listed]
            self.wrong += [f"{job} was made twice" for job in listed - ours]
        if self.wrong:
            raise RuntimeError("; ".join(self.wrong[:5]))
        count = len(self.accepted)
        return f"{count} of {count} pictures"

    def _live(self, caller: Caller) -> None:
        while not self._stop.is_set():
            self._next_seed += 1
            try:
                job_id = caller.begin_picture(self._next_seed)
                self.accepted[job_id] = caller.person
                caller.see_picture(job_id)
            except RuntimeError as error:
                self.wrong.append(str(error))
            self._stop.wait(0.2)
