"""Answers between two pictures that the service made."""

from typing import Any

import httpx
import pytest

from tests.integration.test_preferences import post
from tests.running_service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


async def made(service: Service, client: httpx.AsyncClient, **asked: Any) -> str:
    """The id of a picture of a fox."""
    job = await service.generate(client, **{"prompt": "a fox", "seed": 1, **asked})
    return str(job["result"]["images"][0]["url"].split("/")[-1])


async def choices_of(client: httpx.AsyncClient, user_id: str = "ann") -> list[dict[str, Any]]:
    return list((await client.get(f"/users/{user_id}/preferences")).json()["choices"])


async def test_a_choice_between_made_pictures_is_an_answer_and_tells_its_origin(
    service: Service,
) -> None:
    client = service.client()
    await service.answer(client, "ann")
    base, own = await made(service, client), await made(service, client, user_id="ann")
    answer = {"image_ids": [base, own], "preferred": 1, "blind": True}
    assert (await post(client, "ann", [answer], wait=60)).json()["choices"] == 5
    newest = (await choices_of(client))[-1]
    assert (newest["origin"], newest["caption"], newest["preferred"]) == ("made", "a fox", 1)
    assert newest["counts"]
    pairs, _, _ = service.runtime.encoded[-1]
    assert (pairs[-1].caption, pairs[-1].preferred) == ("a fox", 1)
    export = (await client.get("/users/ann/export")).json()["choices"][-1]["made"]
    assert export == {
        "image_ids": [base, own],
        "personal": 1,
        "adapter_version": "fake-adapter-1",
        "blind": True,
    }


async def test_the_answer_outlives_the_jobs(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    ids = [await made(service, client, user_id="ann"), await made(service, client)]
    await post(client, "ann", [{"image_ids": ids, "preferred": 0}], wait=60)
    jobs = (await client.get("/jobs")).json()["results"]
    for job in jobs:
        if job["kind"] == "generate":
            await client.delete(f"/jobs/{job['id']}", params={"erase": "true"})
    assert (await client.get(f"/images/{ids[0]}")).status_code == 404
    answer = (await choices_of(client))[-1]
    assert answer["origin"] == "made"
    assert (await client.get(answer["images"][0])).status_code == 200


async def test_two_pictures_that_are_no_pair_are_refused(service: Service) -> None:
    client = service.client()
    fox, owl = await made(service, client), await made(service, client, prompt="an owl")
    refused = await post(client, "ann", [{"image_ids": [fox, owl], "preferred": 0}])
    assert (refused.status_code, refused.json()["code"]) == (422, "not_one_prompt")
    assert refused.json()["errors"][0]["pointer"] == "/choices/0/image_ids"
    for wrong in (
        {"image_ids": [fox, fox], "preferred": 0},
        {"image_ids": [fox], "preferred": 0},
        {"image_ids": [fox, owl], "caption": "a fox", "preferred": 0},
        {"pair_id": "pair-00", "blind": True, "preferred": 0},
    ):
        assert (await post(client, "ann", [wrong])).json()["code"] == "invalid_request"
    assert (await client.get("/users/ann/preferences")).status_code == 404


async def test_pictures_of_others_are_not_there(service: Service) -> None:
    (ann, ann_id), (bob, bob_id) = await service.session(), await service.session()
    theirs = [await made(service, ann), await made(service, ann, seed=2)]
    refused = await post(bob, bob_id, [{"image_ids": theirs, "preferred": 0}])
    assert (refused.status_code, refused.json()["code"]) == (404, "image_not_found")
    taken = await post(ann, ann_id, [{"image_ids": theirs, "preferred": None}])
    assert taken.json()["choices"] == 1
    assert (await choices_of(ann, ann_id))[0]["origin"] == "made"


async def test_a_blend_with_another_is_not_copied_into_an_answer_that_outlives_their_erasure(
    service: Service,
) -> None:
    client = service.client()
    for user_id in ("ann", "bob"):
        await service.answer(client, user_id)
    both = [{"user_id": user_id, "weight": 1} for user_id in ("ann", "bob")]
    base, blend = await made(service, client), await made(service, client, blend=both)
    refused = await post(client, "ann", [{"image_ids": [base, blend], "preferred": 1}])
    assert (refused.status_code, refused.json()["code"]) == (404, "image_not_found")
    own = await made(service, client, blend=[{"user_id": "ann", "weight": 1}])
    taken = await post(client, "ann", [{"image_ids": [base, own], "preferred": 1}])
    assert taken.json()["choices"] == 5
