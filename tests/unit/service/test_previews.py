"""Previews on their way: small, the newest only, not too often, off the model's threads."""

import asyncio
import base64
import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from service.core.messages import MAX_PREVIEW_CHARS, PREVIEW_PREFIX
from service.core.ports import Preview
from service.worker import previews as module
from service.worker.previews import Previews, data_url

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def preview(done: int, index: int = 0, side_px: int = 64) -> Preview:
    return Preview(index, done, 20, np.full((side_px, side_px, 3), done, np.uint8))


@pytest.mark.parametrize(("side_px", "shown_px"), [(64, 64), (192, 96), (288, 144)])
def test_no_preview_is_larger_than_may_be(side_px: int, shown_px: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (side_px, side_px, 3), dtype=np.uint8)
    url = data_url(noise)  # nothing is harder to make small
    assert url is not None
    assert len(url) <= MAX_PREVIEW_CHARS
    with Image.open(io.BytesIO(base64.b64decode(url.removeprefix(PREVIEW_PREFIX)))) as shown:
        assert (shown.format, shown.size) == ("JPEG", (shown_px, shown_px))


async def test_of_many_previews_each_pictures_newest_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_LEAST_INTERVAL_S", 0.1)
    sent: list[tuple[int, int, float]] = []

    def send(shown: Preview, image: str) -> None:
        assert image.startswith(PREVIEW_PREFIX)
        sent.append((shown.index, shown.done, time.monotonic()))

    async with Previews(send) as previews:
        previews.offer(preview(1))
        while not sent:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        for done in range(2, 20):
            previews.offer(preview(done, index=0))
            previews.offer(preview(done, index=1))
        while len(sent) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert [one[:2] for one in sent] == [(0, 1), (0, 19), (1, 19)]
    assert sent[1][2] - sent[0][2] > 0.05


async def test_the_models_thread_hands_over_and_encodes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoders: list[threading.Thread] = []

    def encode(image_HWC: object) -> str:
        encoders.append(threading.current_thread())
        return PREVIEW_PREFIX

    monkeypatch.setattr(module, "data_url", encode)
    sent = asyncio.Event()
    async with Previews(lambda *_: sent.set()) as previews:
        decoding = threading.Thread(target=previews.offer, args=(preview(1),))
        decoding.start()
        await sent.wait()
        decoding.join()
    assert encoders
    assert not {decoding, threading.main_thread()} & set(encoders)


async def test_nothing_is_sent_after_the_end_and_what_fails_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_LEAST_INTERVAL_S", 0.0)
    sent: list[int] = []
    async with Previews(lambda shown, _: sent.append(shown.done)) as previews:
        previews.offer(Preview(0, 1, 20, np.zeros((4, 4), np.float32)))  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            while not caplog.records:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        previews.offer(preview(2))
        async with asyncio.timeout(10):
            while not sent:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        previews.offer(preview(3))
    previews.offer(preview(4))
    await asyncio.sleep(0.05)
    assert sent == [2]
    assert "a preview could not be encoded" in caplog.text
