"""The real pipeline and encoder behind the service, with random weights."""

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from ppd_model.engine.admission import Admission
from ppd_model.nets.adapter import AttentionInput
from ppd_model.pipeline import Pipeline
from ppd_model.presets import get_preset
from service.core.ports import Versions
from service.worker.model_runtime import PpdRuntime
from tests.integration.conftest import Start
from tests.running_service import Service
from tests.tiny_vlm import Scripted, make_encoder, write_tokenizer

pytestmark = pytest.mark.anyio


class RandomWeights(PpdRuntime):
    """The runtime of `ppd serve`, with weights made up instead of read."""

    def __init__(self, folder: Path) -> None:
        super().__init__("mini", None, prompt_variant="paper", decoding="greedy", threads=1)
        self.folder = folder
        self.gate = threading.Event()
        """Holds every step while it is not set."""
        self.gate.set()
        self.rows: list[int] = []
        """Rows of each step."""

    def load(self) -> Versions:
        preset = get_preset("mini")
        pipeline = Pipeline.random(preset, ["a", "fox", "blocks"])
        predict = pipeline.stage_c.predict_noise

        def watched(x_BCHW: Tensor, t_B: Tensor, attended: AttentionInput) -> Tensor:
            self.rows.append(len(x_BCHW))
            assert self.gate.wait(60)
            return predict(x_BCHW, t_B, attended)

        pipeline.stage_c.predict_noise = watched  # type: ignore[method-assign]
        return self.use(
            pipeline,
            make_encoder(write_tokenizer(self.folder), preset.user_emb_dim, kind=Scripted),
        )


@pytest.fixture
async def service(start: Start, tmp_path: Path) -> Service:
    started = await start(RandomWeights(tmp_path))
    assert isinstance(started, Service)
    return started


async def test_the_whole_loop_from_four_choices_to_a_picture(service: Service) -> None:
    client = service.client()
    state = await service.answer(client, "ann")
    assert state["status"] == "ready", state
    assert state["profile"]["text"] == "Prefers bright pictures."

    async def png(**body: Any) -> bytes:
        job = await service.generate(client, steps=2, **body)
        assert job["status"] == "succeeded", job
        applied = bool(body.get("user_id")) and body.get("strength") != 0
        assert job["result"]["personalization_applied"] is applied
        return (await client.get(job["result"]["images"][0]["url"])).content

    base, mine = await png(), await png(user_id="ann")
    assert mine == await png(user_id="ann")
    assert base == await png(user_id="ann", strength=0)
    with Image.open(io.BytesIO(base)) as image:
        assert (image.size, image.mode) == ((128, 128), "RGB")
        assert np.asarray(image).std() > 0
    assert base != mine
    edited = await client.put(
        "/users/ann/profile", json={"text": "Dark, please."}, headers={"Prefer": "wait=60"}
    )
    assert edited.json()["status"] == "ready"
    assert edited.json()["profile"]["text"] == "Dark, please."
    assert await png(user_id="ann") != mine


async def test_a_real_run_stops_when_it_is_canceled(service: Service) -> None:
    client = service.client()
    job = (await client.post("/generate", json={"prompt": "a fox", "steps": 50})).json()
    await service.until(client, job["id"], "running")
    assert (await client.delete(f"/jobs/{job['id']}")).json()["status"] == "canceled"
    assert (await service.generate(client, steps=1))["status"] == "succeeded"


async def test_jobs_under_way_share_a_batch_and_give_the_pictures_they_give_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Admission, "admits", lambda *_: True)
    client = service.client()
    bodies = [
        {"prompt": "a fox", "seed": 1, "steps": 6},
        {"prompt": "a fox in blocks", "seed": 2, "steps": 2, "guidance_scale": 1},
        {"prompt": "a fox", "seed": 3, "steps": 4, "n": 2},
    ]

    async def pictures(job: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
        assert job["status"] == "succeeded", job
        urls = [made["url"] for made in job["result"]["images"]]
        return [np.asarray(Image.open(io.BytesIO((await client.get(u)).content))) for u in urls]

    alone = [await pictures(await service.generate(client, **body)) for body in bodies]
    bodies = [{**body, "fresh": True} for body in bodies]
    service.runtime.gate.clear()
    service.runtime.rows.clear()
    jobs = [(await client.post("/generate", json=body)).json() for body in bodies]
    for job in jobs:
        await service.until(client, job["id"], "running")
    service.runtime.gate.set()
    ended = [await service.until(client, job["id"], "succeeded") for job in jobs]
    for job, expected in zip(ended, alone, strict=True):
        made = np.array(await pictures(job), dtype=int)
        assert np.abs(made - np.array(expected, dtype=int)).max() <= 1  # docs/service.md
    assert max(service.runtime.rows) == 2 + 1 + 4
    for job in ended:
        assert set(job["result"]["timings"]) == {"queue_s", "denoise_s", "decode_s"}


async def test_choices_are_read_while_pictures_are_made(service: Service) -> None:
    client = service.client()
    service.runtime.gate.clear()
    job = (await client.post("/generate", json={"prompt": "a fox", "steps": 2})).json()
    await service.until(client, job["id"], "running")
    assert (await service.answer(client, "ann"))["status"] == "ready"
    service.runtime.gate.set()
    await service.until(client, job["id"], "succeeded")
