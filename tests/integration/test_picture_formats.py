"""Pictures come in the format that was asked for, and every file says what it is."""

import base64
import io
import json
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import ExifTags, Image

from ppd_model.pictures.origin import DIGITAL_SOURCE_TYPE
from service.api.http.negotiation import chosen
from tests.running_service import Service

pytestmark = pytest.mark.anyio

SECRET_PROMPT = "a fox by zqxj-lane"


async def file_of(client: httpx.AsyncClient, job: dict[str, Any], **headers: str) -> httpx.Response:
    answer = await client.get(job["result"]["images"][0]["url"], headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def facts_of(data: bytes) -> dict[str, Any]:
    """What a file says of itself, which it must say in XMP, too."""
    with Image.open(io.BytesIO(data)) as image:
        comment = image.info.get("Comment")
        if comment is None:
            exif = image.getexif().get_ifd(ExifTags.IFD.Exif)
            comment = exif[ExifTags.Base.UserComment].removeprefix(b"ASCII\0\0\0").decode()
        xmp = image.info["xmp"]
    assert DIGITAL_SOURCE_TYPE in (xmp.decode() if isinstance(xmp, bytes) else xmp)
    facts: dict[str, Any] = json.loads(comment)
    return facts


@pytest.mark.both_databases
async def test_a_picture_has_the_format_that_was_asked_for(service: Service) -> None:
    client = service.client()
    png = await file_of(client, await service.generate(client, fresh=True))
    assert png.headers["content-type"] == "image/png"
    pixels = np.asarray(Image.open(io.BytesIO(png.content))).astype(int)
    for format, suffix in (("jpeg", ".jpg"), ("webp", ".webp")):
        sizes = []
        for quality in (30, 90):
            job = await service.generate(client, format=format, quality=quality)
            answer = await file_of(client, job)
            assert answer.headers["content-type"] == f"image/{format}"
            assert answer.headers["content-disposition"].endswith(f'{suffix}"')
            with Image.open(io.BytesIO(answer.content)) as image:
                assert image.format == format.upper()
                error = np.abs(np.asarray(image).astype(int) - pixels).mean()
            assert error < 20
            sizes.append(len(answer.content))
        assert sizes[0] < sizes[1]
        left_out = await file_of(client, await service.generate(client, format=format))
        assert left_out.content == answer.content


async def test_what_names_no_format_is_refused(service: Service) -> None:
    client = service.client()
    for bad in (
        {"format": "gif"},
        {"format": "PNG"},
        {"format": None},
        {"format": "jpeg", "quality": 0},
        {"format": "jpeg", "quality": 101},
        {"format": "jpeg", "quality": 80.5},
        {"quality": 80},
        {"embed_prompt": "yes"},
    ):
        answer = await client.post("/generate", json={"prompt": "a fox", **bad})
        assert answer.status_code == 422, bad


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
async def test_a_file_says_what_made_it_and_names_nobody(service: Service, format: str) -> None:
    client = service.client()
    await service.answer(client, "zqxj-ann")
    own = {"prompt": SECRET_PROMPT, "format": format, "seed": 5}
    job = await service.generate(client, user_id="zqxj-ann", **own)
    data = (await file_of(client, job)).content
    assert facts_of(data) == {
        "ai_generated": True,
        "seed": 5,
        "model": "fake-model-1",
        "personalization_applied": True,
        "adapter_version": "fake-adapter-1",
        "profile_version": 1,
    }
    assert b"zqxj" not in data
    base = (await file_of(client, await service.generate(client, **own))).content
    assert facts_of(base) == {
        "ai_generated": True,
        "seed": 5,
        "model": "fake-model-1",
        "personalization_applied": False,
    }
    blend = [{"user_id": "zqxj-ann", "weight": 1.0}, {"user_id": "bob", "weight": 1.0}]
    await service.answer(client, "bob")
    mixed = (await file_of(client, await service.generate(client, blend=blend, **own))).content
    assert facts_of(mixed)["profile_versions"] == [1, 1]
    assert b"zqxj" not in mixed


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
async def test_the_prompt_is_inside_only_if_asked(service: Service, format: str) -> None:
    client = service.client()
    asked = {"prompt": SECRET_PROMPT, "format": format}
    without = await service.generate(client, **asked)
    within = await service.generate(client, embed_prompt=True, **asked)
    assert SECRET_PROMPT.encode() not in (await file_of(client, without)).content
    assert facts_of((await file_of(client, within)).content)["prompt"] == SECRET_PROMPT
    assert within["result"]["cached"] is False


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
async def test_equal_requests_are_equal_files_given_again_or_made_anew(
    service: Service, format: str
) -> None:
    client = service.client()
    asked = {"format": format, "embed_prompt": True}
    first = await service.generate(client, **asked)
    again = await service.generate(client, **asked)
    anew = await service.generate(client, fresh=True, **asked)
    assert [job["result"]["cached"] for job in (first, again, anew)] == [False, True, False]
    files = {(await file_of(client, job)).content for job in (first, again, anew)}
    assert len(files) == 1


async def test_accept_gives_another_format_where_it_is_liked_better(
    service: Service,
) -> None:
    client = service.client()
    await service.answer(client, "ann")
    job = await service.generate(client, user_id="ann")
    stored = await file_of(client, job, Accept="*/*")
    for accept in ("image/webp", "image/jpeg", "image/webp;q=0.2, image/jpeg;q=0.9, text/html"):
        answer = await file_of(client, job, Accept=accept)
        wanted = "image/webp" if accept == "image/webp" else "image/jpeg"
        assert (answer.headers["content-type"], answer.headers["vary"]) == (wanted, "Accept")
        assert facts_of(answer.content) == facts_of(stored.content)
        assert answer.headers["etag"] != stored.headers["etag"]
        again = await client.get(
            job["result"]["images"][0]["url"],
            headers={"Accept": accept, "If-None-Match": answer.headers["etag"]},
        )
        assert again.status_code == 304
    for accept in ("", "image/*", "application/json", "image/avif", "image/webp, */*"):
        answer = await file_of(client, job, Accept=accept)
        assert (answer.headers["content-type"], answer.content) == ("image/png", stored.content)


async def test_a_persons_own_picture_in_another_format_says_nothing_of_a_model(
    service: Service,
) -> None:
    client = service.client()
    upload = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(upload, "PNG")
    text = base64.b64encode(upload.getvalue()).decode()
    choice = {"caption": "mine", "images": [text, text], "preferred": 0}
    assert (
        await client.post("/users/ann/preferences", json={"choices": [choice]})
    ).status_code == 202
    url = (await client.get("/users/ann/preferences")).json()["choices"][0]["images"][0]
    answer = await client.get(url, headers={"Accept": "image/webp"})
    assert answer.headers["content-type"] == "image/webp"
    assert b"DigitalSourceType" not in answer.content


def test_the_accept_header_is_read_as_http_says() -> None:
    offers = ["image/png", "image/jpeg", "image/webp"]
    for accept, wanted in {
        "": "image/png",
        "*/*": "image/png",
        "IMAGE/WEBP": "image/webp",
        "image/*;q=0.1": "image/png",
        "image/png;q=0, image/*": "image/jpeg",
        "image/jpeg;q=0.3,image/webp;q=0.4": "image/webp",
        "image/webp;level=1; q=0.5 , image/jpeg ; q=0.6": "image/jpeg",
        "image/webp;q=nonsense, image/jpeg;q=0.1": "image/jpeg",
        ";;;,,q=": "image/png",
        "text/html": "image/png",
        "image/webp, image/png;q=0.5": "image/webp",
        "image/jpeg, */*;q=0.1": "image/jpeg",
        "image/webp, image/png": "image/png",
        "image/webp,*/*": "image/png",
        "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8": "image/png",
    }.items():
        assert chosen(accept, offers) == wanted, accept
