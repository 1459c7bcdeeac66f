"""A taste that starts from pictures that are liked, each set against one of the pool."""

import base64
import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.integration.conftest import Start
from tests.integration.test_erase_and_export import services_of
from tests.integration.test_preferences import picture
from tests.running_service import Service

pytestmark = [pytest.mark.anyio, pytest.mark.both_databases]


async def like(
    client: httpx.AsyncClient, liked: list[dict[str, Any]], query: str = ""
) -> httpx.Response:
    return await client.post(
        f"/users/ann/likes{query}", json={"liked": liked}, headers={"Prefer": "wait=60"}
    )


def some(*captions: str) -> list[dict[str, Any]]:
    return [{"image": picture(i), "caption": caption} for i, caption in enumerate(captions)]


async def test_four_liked_pictures_make_a_profile_and_say_what_they_were_set_against(
    service: Service,
) -> None:
    client = service.client()
    answer = await like(client, some("blocks 1", "my own Blocks, 3", "blocks 4", "blocks 5"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "ready"
    assert answer.json()["profile"]["answers_used"] == 4
    ((pairs, _, _),) = service.runtime.encoded
    assert [pair.caption for pair in pairs] == [f"blocks {i}" for i in (1, 3, 4, 5)]
    assert all(pair.preferred == 0 for pair in pairs)
    choices = (await client.get("/users/ann/preferences")).json()["choices"]
    assert {choice["origin"] for choice in choices} == {"liked"}
    for choice, pair in zip(choices, pairs, strict=True):
        assert choice["counts"]
        assert choice["against"]["by"] == "caption"
        of_pool = services_of(service).pool.get(choice["against"]["pair_id"])
        assert of_pool is not None
        assert of_pool.caption == pair.caption
        shown = [await client.get(url) for url in choice["images"]]
        assert [one.status_code for one in shown] == [200, 200]
        assert (
            shown[1].content
            == (
                services_of(service).pool.image_path(of_pool.images[choice["against"]["image"]])
            ).read_bytes()
        )
    export = (await client.get("/users/ann/export")).json()
    assert export["choices"][0]["against"] == choices[0]["against"]


async def test_without_a_caption_the_picture_itself_finds_what_is_nearest(
    service: Service,
) -> None:
    client = service.client()
    pool = services_of(service).pool
    own = [pool.pairs[i] for i in (0, 1, 2, 3)]
    files = [pool.image_path(pair.images[0]) for pair in own]
    answer = await like(client, [{"image": as_png_base64(file.read_bytes())} for file in files])
    assert answer.status_code == 200, answer.text
    ((pairs, _, _),) = service.runtime.encoded
    assert len(pairs) == 4
    found = (await client.get("/users/ann/preferences")).json()["choices"]
    assert {choice["against"]["by"] for choice in found} == {"picture"}
    assert [choice["caption"] for choice in found] == [pair.caption for pair in pairs]
    again = await client.get("/users/ann/preferences")
    assert again.json()["choices"] == found, "what it is set against stays"


async def test_liked_pictures_and_answers_make_one_profile(service: Service) -> None:
    client = service.client()
    await service.answer(client, "ann")
    answer = await like(client, some("blocks 1", "blocks 2", "blocks 3", "blocks 4"))
    assert answer.json()["profile"]["answers_used"] == 8
    assert len(service.runtime.encoded) == 2
    work = await like(client, some("blocks 1", "blocks 2", "blocks 3", "blocks 4"), "?taste=work")
    assert (work.json()["taste"], work.json()["choices"]) == ("work", 4)


async def test_a_liked_picture_is_taken_back_like_an_answer(service: Service) -> None:
    client = service.client()
    await like(client, some("blocks 1", "blocks 2", "blocks 3", "blocks 4"))
    choice = (await client.get("/users/ann/preferences")).json()["choices"][0]
    gone = await client.delete(f"/users/ann/preferences/{choice['id']}")
    assert gone.json()["status"] == "collecting"
    assert (await client.get(choice["images"][0])).status_code == 404
    assert (await client.get(choice["images"][1])).status_code == 200, "it is the pool's"


@pytest.mark.parametrize("liked", [[], some("a", "b", "c"), [{"image": "no picture"}] * 4])
async def test_what_cannot_be_read_is_refused_and_nothing_is_stored(
    service: Service, liked: list[dict[str, Any]]
) -> None:
    client = service.client()
    refused = await like(client, liked)
    assert refused.status_code == 422, refused.text
    assert refused.json()["errors"][0]["pointer"].startswith("/liked")
    assert (await client.get("/users/ann/preferences")).status_code == 404


async def test_liked_pictures_count_as_own_pictures(start: Start) -> None:
    service: Service = await start(max_uploads_per_user=6)
    client = service.client()
    assert (await like(client, some("blocks 1", "blocks 2", "blocks 3", "x"))).status_code == 200
    refused = await like(client, some("blocks 1", "blocks 2", "blocks 3", "blocks 4"))
    assert (refused.status_code, refused.json()["code"]) == (409, "upload_quota")


async def test_liked_pictures_are_not_exported_as_comparisons(service: Service) -> None:
    client = service.client()
    await like(client, some("blocks 1", "blocks 2", "blocks 3", "blocks 4"))
    await client.put("/users/ann/contribution", json={"contribute": True})
    async with service.database.write() as store:
        export = await store.exports.begin()
        assert await store.exports.take_in(export, 0, 100) is None


def as_png_base64(data: bytes) -> str:
    to = io.BytesIO()
    Image.fromarray(np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).save(to, "PNG")
    return base64.b64encode(to.getvalue()).decode()
