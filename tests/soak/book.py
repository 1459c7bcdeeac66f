"""What was accepted, what became of it, and what went wrong."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

AWAY = httpx.TransportError
"""No answer came: the service was killed, or the connection was cut."""


@dataclass
class Book:
    """Counts by everybody; `wrong` are findings, one line each, of which any makes the run fail."""

    began_s: float = field(default_factory=time.monotonic)
    answers: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)

    @property
    def now_s(self) -> float:
        return time.monotonic() - self.began_s

    def begin(self) -> None:
        """From now on time counts: the service is ready."""
        self.began_s = time.monotonic()

    def fault(self, what: str) -> None:
        """A fault was made."""
        self.events.append((round(self.now_s, 1), what))
        print(f"{self.now_s:7.1f} s  fault: {what}", flush=True)

    def find(self, kind: str, what: str) -> None:
        """Something is wrong: lost, doubled, crossed, 5xx, memory, descriptors, other."""
        self.done[f"wrong: {kind}"] += 1
        self.wrong.append(f"{self.now_s:7.1f} s  {kind}: {what}")
        print(self.wrong[-1], flush=True)

    def answered(self, answer: httpx.Response, what: str) -> httpx.Response:
        """Count an answer; a 5xx is wrong unless it is 503 that says when to come again."""
        self.answers[str(answer.status_code)] += 1
        if answer.status_code >= 500 and not _comes_again(answer):
            self.find("5xx", f"{what}: {answer.status_code} {answer.text[:200]}")
        return answer

    def report(self) -> Mapping[str, Any]:
        return {
            "seconds": round(self.now_s),
            "answers": dict(sorted(self.answers.items())),
            "done": dict(sorted(self.done.items())),
            "faults": self.events,
            "wrong": self.wrong,
        }


def _comes_again(answer: httpx.Response) -> bool:
    return answer.status_code == 503 and answer.headers.get("retry-after", "").isdigit()


def comes_again(answer: httpx.Response) -> bool:
    """Whether the refusal says that a further try may be taken."""
    return answer.status_code == 429 or _comes_again(answer)
