"""People and words, measured over REST against a running service with a fake model."""

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.service import people, words
from benchmarks.words import Contrast
from tests.running_service import Service

pytestmark = pytest.mark.anyio


def client_of(service: Service) -> httpx.Client:
    headers = {"Authorization": f"Bearer {service.key}"}
    return httpx.Client(base_url=service.url, headers=headers, timeout=60, trust_env=False)


async def test_people_answer_the_quiz_and_are_shown_pictures_with_and_without_their_taste(
    service: Service,
) -> None:
    def measured() -> tuple[people.World, dict[str, Any]]:
        with client_of(service) as client:
            world = people.World(client, people.FOREIGN)
            return world, people.group_report(client, "foreign", 2, 2, [4, 8], quiz=8, seed=0)

    world, report = await asyncio.to_thread(measured)
    for measure in range(len(people.FOREIGN)):
        assert world.spread(lambda seen_M, at=measure: float(seen_M[at])) == pytest.approx(1)
    first, second = report["4"], report["8"]
    for after in (first, second):
        assert (after["gain_sd"]["count"], after["gain_sd"]["clusters"]) == (4, 2)
        assert after["gain_sd"]["mean"] == pytest.approx(np.mean(after["each_person_sd"]), abs=0.01)
        assert after["promised_wins"] is None, "the service promises nothing"
    assert first["times_the_first"] == 1
    times = second["gain_sd"]["mean"] / first["gain_sd"]["mean"]
    assert second["times_the_first"] == pytest.approx(times)
    asked = [made.strength for made in service.runtime.generated if made.user_emb_D is not None]
    assert len(asked) == 8
    assert len(service.runtime.generated) == 12, "without a taste once for each prompt"


async def test_answers_after_the_quiz_are_between_pictures_that_were_made(service: Service) -> None:
    def measured() -> list[dict[str, Any]]:
        with client_of(service) as client:
            world = people.World(client, people.FOREIGN)
            utility = people.GROUPS["foreign"][0](0, world, np.random.default_rng(1))
            rng = np.random.default_rng(2)
            person = people.Person(client, "ann", world, utility, quiz=3, rng=rng)
            person.answer(6)
            answers: list[dict[str, Any]] = client.get("/users/ann/preferences").json()["choices"]
            return [one for one in answers if one["preferred"] is not None]

    answers = await asyncio.to_thread(measured)
    assert sorted(one["origin"] for one in answers) == ["made"] * 3 + ["pool"] * 3
    own = [made for made in service.runtime.generated if made.user_emb_D is not None]
    assert own, "with a profile, one of the two is in their taste"
    of_prompts = {
        (made.prompt, made.seed) for made in service.runtime.generated if made.user_emb_D is None
    }
    assert {(made.prompt, made.seed) for made in own} <= of_prompts


async def test_a_text_and_its_opposite_are_compared_by_the_same_prompts_and_seeds(
    service: Service,
) -> None:
    contrast = Contrast("sunny", "shady", ("brightness", "warmth"))

    def measured() -> dict[str, object]:
        with client_of(service) as client:
            return words.obeyed(client, [contrast], ["ann"], prompts=2)

    report = await asyncio.to_thread(measured)
    assert report["comparisons"] == 4
    assert [text for _, _, text in service.runtime.encoded] == ["sunny", "shady"]
    made = service.runtime.generated
    assert len(made) == 4
    assert {(one.prompt, one.seed) for one in made[:2]} == {
        (one.prompt, one.seed) for one in made[2:]
    }
