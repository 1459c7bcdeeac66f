"""The real `mini` in float64, asked over HTTP, in company: the digests' bytes."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json

import httpx
import numpy as np
import pytest
from PIL import Image

from benchmarks.same_picture_digests import DIGESTS, requests
from ppd_model.types import ImageRequest
from service.core.placement import Place
from service.worker.model_runtime import PpdRuntime
from tests.integration.conftest import Start
from tests.running_service import Service

pytestmark = pytest.mark.anyio


async def test_pictures_asked_for_at_once_are_those_made_alone(start: Start) -> None:
    place = Place("cpu", "float64")
    runtime = PpdRuntime(
        "mini",
        None,
        generator_place=place,
        encoder_place=place,
        prompt_variant="paper",
        decoding="greedy",
        threads=1,
    )
    service = await start(runtime)
    kept = json.loads(DIGESTS.read_text())
    impersonal = {
        name: request
        for name, request in requests(np.zeros(1, np.float32)).items()
        if request.user_emb_D is None
    }

    client = service.client()

    async def digest(request: ImageRequest) -> str:
        return await picture_digest(service, client, request)

    made = await asyncio.gather(*map(digest, impersonal.values()))
    assert len(impersonal) > 1
    assert dict(zip(impersonal, made, strict=True)) == {name: kept[name] for name in impersonal}


async def picture_digest(service: Service, client: httpx.AsyncClient, request: ImageRequest) -> str:
    job = await service.generate(
        client,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
    )
    assert job["status"] == "succeeded", job
    png = (await client.get(job["result"]["images"][0]["url"])).content
    with Image.open(io.BytesIO(png)) as image:
        return hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()
