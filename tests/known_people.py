"""People whose taste is known, and the pictures that the fake model makes for them."""

import io
import itertools
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from ppd_model.types import ImageRequest, LabelledPair
from tests.fake_runtime import FakeRuntime, paint

ANSWERS = tuple(itertools.product((0, 1), repeat=4))
PAIRS = tuple(f"pair-{i:02d}" for i in range(4))
ASKED = {"prompt": "a fox", "seed": 7, "steps": 3}
"""The same for everybody: only a taste makes pictures differ."""


@dataclass(frozen=True)
class Person:
    """One person of one tenant, and what they answered, version by version."""

    tenant: str
    name: str
    answers: tuple[tuple[int, ...], ...]

    def choices(self, version: int) -> dict[str, Any]:
        """The four answers of this version, as they are sent."""
        chosen = self.answers[version - 1]
        pairs = zip(PAIRS, chosen, strict=True)
        return {"choices": [{"pair_id": pair, "preferred": side} for pair, side in pairs]}

    async def choose(self, client: httpx.AsyncClient, version: int) -> None:
        """Answer the four pairs; the profile of this version is ready then."""
        answer = await client.post(
            f"/users/{self.name}/preferences",
            json=self.choices(version),
            headers={"Prefer": "wait=60"},
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["profile_version"] == version

    def picture(self, version: int, **asked: Any) -> NDArray[np.uint8]:
        """What the model makes for them, of `ASKED` where nothing else is said.

        It is worked out here, and not by the service.
        """
        nothing = PillowImage.new("RGB", (1, 1))
        pairs = [
            LabelledPair(f"blocks {i}", nothing, nothing, preferred)
            for i, preferred in enumerate(self.answers[version - 1])
        ]
        spec = ImageRequest(
            **{**ASKED, **asked},
            user_emb_D=FakeRuntime().encode(pairs, 0, None).user_emb_D,
            strength=1.0,
            negative_prompt="",
            guidance_scale=4.0,
            width_px=128,
            height_px=128,
        )
        return paint(spec)


def pixels(file: bytes) -> NDArray[np.uint8]:
    """What a picture's file shows."""
    return np.asarray(PillowImage.open(io.BytesIO(file)).convert("RGB"))
