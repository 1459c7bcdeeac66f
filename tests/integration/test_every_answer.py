"""A profile is made of every answer; it follows where answers are changed, removed or left out."""

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from service.core.errors import JobFailure
from tests.fake_runtime import FakeRuntime
from tests.integration.conftest import Start
from tests.integration.test_preferences import picture, post
from tests.running_service import Service, stop

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]
WAIT = {"Prefer": "wait=60"}


async def held(client: httpx.AsyncClient, user_id: str = "ann") -> dict[str, Any]:
    return dict((await client.get(f"/users/{user_id}/preferences")).json())


async def test_four_more_answers_cost_one_reading_and_all_count(service: Service) -> None:
    client = service.client()
    first = await service.answer(client, "ann")
    second = await service.answer(client, "ann", (1, 1, 0, 0))
    assert (first["profile"]["answers_used"], second["profile"]["answers_used"]) == (4, 8)
    assert len(service.runtime.encoded) == 2
    before, after = [[pair.caption for pair in pairs] for pairs, _, _ in service.runtime.encoded]
    captions = [choice["caption"] for choice in (await held(client))["choices"]]
    assert before + after == captions
    alone = service.runtime.generated
    await service.generate(client, user_id="ann")
    emb_D = alone[-1].user_emb_D
    assert emb_D is not None
    readings = [service.runtime.encode(*given).user_emb_D for given in service.runtime.encoded[:2]]
    assert emb_D == pytest.approx((readings[0] + readings[1]) / 2, abs=1e-6)


async def test_what_was_read_is_kept_over_a_restart(start: Start) -> None:
    service: Service = await start(FakeRuntime())
    client = service.client()
    await service.answer(client, "ann")
    await stop(service)
    again: Service = await start(FakeRuntime())
    await again.answer(again.client(), "ann")
    assert len(again.runtime.encoded) == 1, "the first four were read before the restart"


async def test_a_changed_answer_has_its_own_set_read_anew(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    await service.answer(client, "ann")
    choices = (await held(client))["choices"]
    answer = choices[5]
    changed = await client.patch(
        f"/users/ann/preferences/{answer['id']}",
        json={"preferred": 1 - answer["preferred"]},
        headers=WAIT,
    )
    assert changed.status_code == 200, changed.text
    assert (changed.json()["status"], changed.json()["profile_version"]) == ("ready", 3)
    assert len(service.runtime.encoded) == 3
    pairs, _, _ = service.runtime.encoded[-1]
    assert [pair.caption for pair in pairs] == [choice["caption"] for choice in choices[4:]]
    assert pairs[1].preferred == 1 - answer["preferred"]


async def test_answering_a_pair_again_keeps_its_place(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann", (0, 0, 0, 0))
    before = (await held(client))["choices"]
    await post(client, "ann", [{"pair_id": before[0]["pair_id"], "preferred": 1}], wait=60)
    after = (await held(client))["choices"]
    assert [choice["id"] for choice in after] == [choice["id"] for choice in before]
    assert [choice["preferred"] for choice in after] == [1, 0, 0, 0]


async def test_a_removed_answer_goes_with_its_pictures_and_the_profile_follows(
    service: Service,
) -> None:
    client = service.client()
    own = {"caption": "mine", "images": [picture("red"), picture("blue")], "preferred": 0}
    await post(client, "ann", [own], wait=60)
    await service.answer(client, "ann")
    answers = (await held(client))["choices"]
    assert len(answers) == 4
    pictures = answers[0]["images"]
    assert (await client.get(pictures[0])).status_code == 200
    gone = await client.delete(f"/users/ann/preferences/{answers[0]['id']}", headers=WAIT)
    assert (gone.json()["status"], gone.json()["needed"]) == ("collecting", 1)
    assert (await client.get(pictures[0])).status_code == 404
    now = await held(client)
    assert (now["profile"], now["answered"]) == (None, 3)
    job = await service.generate(client, user_id="ann")
    assert job["result"]["reason"] == "no_profile"
    back = await service.answer(client, "ann")
    assert (back["status"], back["profile"]["answers_used"]) == ("ready", 4)


async def test_a_text_of_ones_own_outlives_its_answers(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    await client.put("/users/ann/profile", json={"text": "I like fog."}, headers=WAIT)
    for answer in (await held(client))["choices"]:
        state = await client.delete(f"/users/ann/preferences/{answer['id']}", headers=WAIT)
    assert state.json()["profile"] | {"likes": [], "dislikes": []} == {
        "text": "I like fog.",
        "likes": [],
        "dislikes": [],
        "not_understood": [],
        "answers_used": 0,
    }


async def test_old_answers_are_left_out_and_counted_again(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    since = datetime.now(UTC).isoformat()
    await service.answer(client, "ann", (1, 1, 1, 1))
    left_out = await client.patch("/users/ann/preferences", json={"since": since}, headers=WAIT)
    assert left_out.json()["profile"]["answers_used"] == 4
    now = await held(client)
    assert [choice["counts"] for choice in now["choices"]] == [False] * 4 + [True] * 4
    assert datetime.fromisoformat(now["since"]) == datetime.fromisoformat(since)
    again = await client.patch("/users/ann/preferences", json={"since": None}, headers=WAIT)
    assert again.json()["profile"]["answers_used"] == 8
    assert len(service.runtime.encoded) == 2, "no set is read twice"


async def test_a_time_without_its_zone_is_refused(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    refused = await client.patch("/users/ann/preferences", json={"since": "2026-01-01T00:00:00"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request")


async def test_a_set_that_cannot_be_read_leaves_the_others(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    service.runtime.fail_with = JobFailure("nothing_read")
    state = await service.answer(client, "ann")
    assert (state["status"], state["profile"]["answers_used"]) == ("ready", 4)
    assert (await held(client))["profiles"][-1]["answers_used"] == 4


async def test_answers_of_others_are_not_there(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    await service.answer(client, "bob")
    theirs = (await held(client))["choices"][0]["id"]
    for call in (client.delete, client.patch):
        extra = {} if call == client.delete else {"json": {"preferred": 0}}
        answer = await call(f"/users/bob/preferences/{theirs}", **extra)  # type: ignore[operator]
        assert (answer.status_code, answer.json()["code"]) == (404, "answer_not_found")
    nobody = await client.delete("/users/cy/preferences/1")
    assert nobody.json()["code"] == "user_not_found"


async def test_a_profile_that_becomes_ready_while_it_is_looked_up_has_its_text(
    service: Service,
) -> None:
    await service.answer(service.client(), "ann")
    async with service.database.write() as store:
        user = await store.users.alone("default", "ann")
        assert user is not None
        begun = await store.profiles.add(user.pk, "choices", [], 0, None)
    async with service.database.read() as looking:
        assert (await looking.profiles.page(user.pk, None, 1))[0].status == "encoding"
        async with service.database.write() as store:
            await store.profiles.finish(begun.pk, "ready", text="Likes fog.")
        ready, _ = await looking.profiles.states(user.pk)
        assert ready is not None
        assert ready.text is not None
        assert ready.status == "ready"
