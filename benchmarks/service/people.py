"""People of tastes that the project does not know, who use a running service over REST.

    ppd serve &
    python -m benchmarks.service.people --key-file data/api-key --people 16 --out people.json
    python -m benchmarks.service.people --key-file data/api-key --groups mixed --answers 4 8 16

Nothing of the project's looks, people or judges takes part. A taste is a function of plain measures
of pixels, in standard deviations of the quiz's own pictures within a caption. Each person answers
pair by pair, and after each number of decided answers (--answers) asks for the same
pictures with their taste and without it. The first answers (--quiz) are to the quiz, all others
between two pictures that the service made of one prompt: in their taste and without it, as the
studio has them, or, before there is a profile, two without.

    single      one of the measures of picture_statistics.py, more of it or less
    mixed       a direction drawn at random over all eight, of length 1
    bent        the same, but every measure counts by its tanh: more is not for ever better
    ideal       a point drawn at random; the nearer to it a picture is, the better
    foreign     a direction over measures that no look is about: green, upper half, symmetry

Reports for each number of answers in how many pictures taste won over none, the mean gain in
standard deviations of that person's utility over the quiz's pictures, how many times the gain after
the first number that is, and, where the profile promised a chance to please, the mean of that.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.picture_statistics import STATISTICS, Picture
from benchmarks.service.end_to_end import POLL_S, generate, json_of, made
from training.data.preferences import CHOICES_PER_PROFILE
from training.reports.statistics import clustered_mean, wins

TIE_BELOW_SD = 0.05
"""Pictures that somebody likes so nearly the same are a tie."""
AT_ONCE = 4
MOST_ASKED = 3
"""Pairs asked for each answer that is wanted, at most: some are ties."""

Measures = NDArray[np.float64]
"""M measures of a picture, in standard deviations."""
Utility = Callable[[Measures], float]


def green(image_HW3: Picture) -> float:
    """Mean green less the mean of red and blue."""
    red, grass, blue = (float(image_HW3[..., c].mean()) for c in range(3))
    return (grass - (red + blue) / 2) / 255


def upper_light(image_HW3: Picture) -> float:
    """How much lighter the upper half is than the lower."""
    half = image_HW3.shape[0] // 2
    return float(image_HW3[:half].mean() - image_HW3[half:].mean()) / 255


def symmetry(image_HW3: Picture) -> float:
    """How like its mirror image a picture is."""
    mirrored = image_HW3[:, ::-1].astype(np.float64)
    return -float(np.abs(image_HW3 - mirrored).mean()) / 255


def upright_edges(image_HW3: Picture) -> float:
    """Steps across the picture against steps down it."""
    luma_HW = image_HW3.mean(axis=-1)
    across, down = (np.abs(np.diff(luma_HW, axis=axis)).mean() for axis in (1, 0))
    return float(np.log((across + 1) / (down + 1)))


FOREIGN: Mapping[str, Callable[[Picture], float]] = {
    "green": green,
    "upper light": upper_light,
    "symmetry": symmetry,
    "upright edges": upright_edges,
}


@dataclass(frozen=True)
class Pair:
    """A pair of the quiz, measured."""

    caption: str
    measures_2M: NDArray[np.float64]


class World:
    """The quiz's pairs and their pictures, fetched and measured over REST."""

    def __init__(self, client: httpx.Client, of: Mapping[str, Callable[[Picture], float]]) -> None:
        self.of = of
        pairs = list(_pairs(client))
        raw_P2M = np.array(
            [[self.raw(_bytes(client, url)) for url in urls] for _, _, urls in pairs]
        )
        self.captions = sorted({caption for _, caption, _ in pairs})
        self._sd_M = _within(raw_P2M, [caption for _, caption, _ in pairs])
        self.pairs = {
            pair_id: Pair(caption, raw_2M / self._sd_M)
            for (pair_id, caption, _), raw_2M in zip(pairs, raw_P2M, strict=True)
        }
        every_NM = np.concatenate([pair.measures_2M for pair in self.pairs.values()])
        self.middle_M = every_NM.mean(axis=0)

    def raw(self, file: bytes) -> list[float]:
        pixels = np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))
        return [measure(pixels) for measure in self.of.values()]

    def measures(self, file: bytes) -> Measures:
        return np.array(self.raw(file)) / self._sd_M

    def spread(self, utility: Utility) -> float:
        """Standard deviation of a utility over the quiz's pictures, within a caption."""
        liked_P21 = np.array(
            [[[utility(one_M)] for one_M in pair.measures_2M] for pair in self.pairs.values()]
        )
        return float(_within(liked_P21, [pair.caption for pair in self.pairs.values()])[0])


def _within(values_P2M: NDArray[np.float64], captions: Sequence[str]) -> NDArray[np.float64]:
    """Standard deviations about the mean of each caption's own pictures."""
    residuals, free = [], 0
    for caption in set(captions):
        rows = [i for i, one in enumerate(captions) if one == caption]
        own_NM = values_P2M[rows].reshape(-1, values_P2M.shape[-1])
        residuals.append(own_NM - own_NM.mean(axis=0))
        free += len(own_NM) - 1
    squares: NDArray[np.float64] = (np.concatenate(residuals) ** 2).sum(axis=0)
    return np.sqrt(squares / free)


def _pairs(client: httpx.Client) -> Iterator[tuple[str, str, list[str]]]:
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        cursor = {"cursor": page["next"]} if page["next"] else {}
        page = json_of(client.get("/pairs", params={"limit": 100, **cursor}))
        for pair in page["results"]:
            yield pair["pair_id"], pair["caption"], [image["url"] for image in pair["images"]]


def _bytes(client: httpx.Client, url: str) -> bytes:
    return client.get(url).raise_for_status().content


# ---- tastes


def single(number: int, world: World, rng: np.random.Generator) -> Utility:
    which, sign = divmod(number, 2)
    direction_M = np.zeros(len(world.of))
    direction_M[which % len(world.of)] = 1 - 2 * sign
    return lambda measures_M: float(direction_M @ measures_M)


def mixed(number: int, world: World, rng: np.random.Generator) -> Utility:
    direction_M = _direction(world, rng)
    return lambda measures_M: float(direction_M @ measures_M)


def bent(number: int, world: World, rng: np.random.Generator) -> Utility:
    direction_M = _direction(world, rng)
    return lambda measures_M: float(direction_M @ np.tanh(measures_M - world.middle_M))


def ideal(number: int, world: World, rng: np.random.Generator) -> Utility:
    point_M = world.middle_M + 1.5 * np.sqrt(len(world.of)) / 2 * _direction(world, rng)
    return lambda measures_M: -float(np.linalg.norm(measures_M - point_M))


def _direction(world: World, rng: np.random.Generator) -> NDArray[np.float64]:
    drawn_M = rng.normal(size=len(world.of))
    direction_M: NDArray[np.float64] = drawn_M / np.linalg.norm(drawn_M)
    return direction_M


Draw = Callable[[int, World, np.random.Generator], Utility]
GROUPS: Mapping[str, tuple[Draw, Mapping[str, Callable[[Picture], float]]]] = {
    "single": (single, STATISTICS),
    "mixed": (mixed, STATISTICS),
    "bent": (bent, STATISTICS),
    "ideal": (ideal, STATISTICS),
    "foreign": (mixed, FOREIGN),
}


# ---- what they do


@dataclass
class Person:
    """Somebody with a taste, and how often they decided so far."""

    client: httpx.Client
    user_id: str
    world: World
    utility: Utility
    quiz: int
    rng: np.random.Generator
    decided: int = 0

    def answer(self, until: int) -> float | None:
        """Answer pair by pair until so many are decided; what the profile of them promises.

        Raises RuntimeError where the quiz ends before, or there is no profile of so many.
        """
        tie_below = TIE_BELOW_SD * self.world.spread(self.utility)
        for _ in range(MOST_ASKED * until):
            if self.decided == until:
                return self._promised()
            asked, measures_2M = self._asked() if self.decided < self.quiz else self._made()
            first, second = (self.utility(one_M) for one_M in measures_2M)
            preferred = None if abs(first - second) < tie_below else int(second > first)
            choice = {**asked, "preferred": preferred}
            path = f"/users/{self.user_id}/preferences"
            json_of(self.client.post(path, json={"choices": [choice]}))
            self.decided += preferred is not None
        raise RuntimeError(f"{self.user_id}: {self.decided} of {until} pairs are decided")

    def _asked(self) -> tuple[dict[str, Any], NDArray[np.float64]]:
        """The quiz's next pair."""
        asked = json_of(self.client.get(f"/users/{self.user_id}/quiz"))["pairs"][0]["pair_id"]
        return {"pair_id": asked}, self.world.pairs[asked].measures_2M

    def _made(self) -> tuple[dict[str, Any], NDArray[np.float64]]:
        """Two pictures of a new prompt, made now."""
        request = {
            "prompt": str(self.rng.choice(self.world.captions)),
            "seed": int(self.rng.integers(2**31)),
        }
        if self.decided < CHOICES_PER_PROFILE:
            urls = made(self.client, {**request, "n": 2})
        else:
            self._promised()
            own = {**request, "user_id": self.user_id}
            urls = [url for each in (own, request) for url in made(self.client, each)]
        measures_2M = np.stack([self.world.measures(_bytes(self.client, url)) for url in urls])
        ids = [urlsplit(url).path.rpartition("/")[2] for url in urls]
        return {"image_ids": ids}, measures_2M

    def _promised(self) -> float | None:
        """Wait for the profile of all answers."""
        while True:
            state = json_of(self.client.get(f"/users/{self.user_id}/preferences"))
            if state["status"] != "encoding":
                break
            time.sleep(POLL_S)
        if state["status"] != "ready" or state["profile"]["answers_used"] != self.decided:
            raise RuntimeError(f"{self.user_id} has no profile of {self.decided} answers: {state}")
        promised: float | None = state["profile"].get("confidence")
        return promised

    def gain(self, request: dict[str, Any], base: bytes) -> float:
        """Of a picture with their taste over that without, in standard deviations."""
        own, _ = generate(self.client, {**request, "user_id": self.user_id})
        liked = self.utility(self.world.measures(own)) - self.utility(self.world.measures(base))
        return liked / self.world.spread(self.utility)


def met(
    person: Person, answers: Sequence[int], prompts: Sequence[dict[str, Any]]
) -> list[tuple[float | None, list[float]]]:
    """After each number of answers: what was promised, and the gain of each picture."""
    with ThreadPoolExecutor(len(prompts)) as pool:
        bases = list(pool.map(lambda request: generate(person.client, request)[0], prompts))
        return [
            (person.answer(number), list(pool.map(person.gain, prompts, bases)))
            for number in answers
        ]


def group_report(
    client: httpx.Client,
    name: str,
    people: int,
    prompts: int,
    answers: Sequence[int],
    quiz: int,
    seed: int,
) -> dict[str, Any]:
    draw, of = GROUPS[name]
    world = World(client, of)
    stamp = int(time.time())

    def one(number: int) -> list[tuple[float | None, list[float]]]:
        utility = draw(number, world, np.random.default_rng([seed, number, 1]))
        rng = np.random.default_rng([seed, number, 2])  # the same prompts in every group
        asked = [
            {"prompt": str(rng.choice(world.captions)), "seed": int(rng.integers(2**31))}
            for _ in range(prompts)
        ]
        who = f"people-{name}-{number}-{stamp}"
        drawn = np.random.default_rng([seed, number, 3])
        person = Person(client, who, world, utility, quiz, drawn)
        found = met(person, answers, asked)
        print(f"{name} {number}:", *(f"{np.mean(gains):+.2f}" for _, gains in found), flush=True)
        return found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(one, range(people)))
    gain_UNK = np.array([[gains for _, gains in person] for person in found])
    return {
        str(number): after(
            gain_UNK[:, place], gain_UNK[:, 0], [person[place][0] for person in found]
        )
        for place, number in enumerate(answers)
    }


def after(
    gain_UK: NDArray[np.float64],
    first_UK: NDArray[np.float64],
    promised: Sequence[float | None],
) -> dict[str, Any]:
    """Wins and gains over people's pictures, and the gain over that after the first number."""
    people, prompts = gain_UK.shape
    who_R, gain_R = np.repeat(np.arange(people), prompts), gain_UK.ravel()
    won = clustered_mean(wins(gain_R, np.zeros_like(gain_R)), who_R, np.random.default_rng(0))
    gain = clustered_mean(gain_R, who_R, np.random.default_rng(0))
    known = [one for one in promised if one is not None]
    return {
        "wins": won.to_dict(),
        "gain_sd": gain.to_dict(),
        "times_the_first": float(gain_R.mean() / first_UK.mean()),
        "promised_wins": float(np.mean(known)) if len(known) == people else None,
        "each_person_sd": gain_UK.mean(axis=1).round(2).tolist(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--key-file", type=Path, required=True)
    parser.add_argument("--people", type=int, default=16, help="of each group")
    parser.add_argument("--prompts", type=int, default=4, help="of each person")
    parser.add_argument("--answers", type=int, nargs="+", default=[4], help="decided, each number")
    parser.add_argument("--quiz", type=int, default=1000, help="answers to the quiz, at first")
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    headers = {"Authorization": f"Bearer {given.key_file.read_text().strip()}"}
    report: dict[str, Any] = {}
    with httpx.Client(base_url=given.url, headers=headers, timeout=120) as client:
        for name in given.groups:
            report[name] = group_report(
                client,
                name,
                given.people,
                given.prompts,
                sorted(given.answers),
                given.quiz,
                given.seed,
            )
            if given.out is not None:  # after each: a run may be cut short
                given.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
