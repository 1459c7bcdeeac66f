"""A model of ten lines: a picture shows whose seed, user, strength, prompt and adapter made it."""

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from ppd_model.readings import Expected, joined
from ppd_model.types import (
    CacheState,
    EncodedUser,
    EngineState,
    Generated,
    ImageRequest,
    LabelledPair,
)
from ppd_model.words import CaptionWords, Vocabulary
from service.core.errors import JobCanceled, JobFailure, ModelLost
from service.core.ports import AdapterFile, Capabilities, Preview, Usage, Versions
from service.infra.adapters import file_sha256

EMB_DIM = 8


class FakeRuntime:
    """Deterministic and quick. `step_s` is the time of one step; `gate` holds every step.

    `entered` is set once a first picture is being made.
    """

    def __init__(self, step_s: float = 0.0, encoder_version: str = "fake-encoder-1") -> None:
        self.step_s = step_s
        self.preview_every = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.load_gate = threading.Event()
        self.load_gate.set()
        self.encoder_version = encoder_version
        self.fail_with: Exception | None = None
        self.vocabulary: Vocabulary | None = None
        self.caption_words: CaptionWords | None = None
        self.unknown: set[str] = set()
        self.engine_state: EngineState | None = None
        self.broken_by: str | None = None
        self.generated: list[ImageRequest] = []
        self.adapters: list[AdapterFile | None] = []
        self.owners: list[str] = []
        self.encoded: list[tuple[list[LabelledPair], int, str | None]] = []

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            "mini", 128, (128,), vocabulary=self.vocabulary, caption_words=self.caption_words
        )

    @property
    def jobs_at_once(self) -> int:
        return 1

    def state(self) -> EngineState | None:
        return self.engine_state

    def broken(self) -> str | None:
        return self.broken_by

    def close(self) -> None:
        pass

    def load(self) -> Versions:
        self.load_gate.wait(30)
        return Versions("fake-model-1", "fake-adapter-1", self.encoder_version)

    def generate(
        self,
        specs: Sequence[ImageRequest],
        on_step: Callable[[int, int], None],
        cancelled: Callable[[], bool],
        on_preview: Callable[[Preview], None],
        *,
        adapter: AdapterFile | None = None,
        owner: str = "",
    ) -> list[Generated]:
        if self.fail_with is not None:
            raise self.fail_with
        if self.broken_by is not None:
            raise ModelLost
        self.entered.set()
        if adapter is not None and file_sha256(adapter.path) != adapter.sha256:
            raise JobFailure("adapter_unavailable")
        steps = specs[0].steps
        for step in range(1, steps + 1):
            while not self.gate.wait(0.01):
                if cancelled():
                    raise JobCanceled
            if cancelled():
                raise JobCanceled
            time.sleep(self.step_s)
            on_step(step, steps)
            if self.preview_every and step % self.preview_every == 0:
                for index, spec in enumerate(specs):
                    on_preview(Preview(index, step, steps, paint(spec, adapter)[::2, ::2]))
        self.generated += specs
        self.owners.append(owner)
        self.adapters.append(adapter)
        return [Generated(paint(spec, adapter), spec.seed, 0.01 * steps, 0.01) for spec in specs]

    def unread(self, prompt: str) -> str:
        return prompt[100:]

    def usage(self, request: ImageRequest) -> Usage:
        return Usage(len(request.prompt[:100].split()), 64)

    def unknown_words(self, prompt: str) -> list[str]:
        return [word for word in prompt.split() if word in self.unknown]

    def encode(self, pairs: Sequence[LabelledPair], seed: int, text: str | None) -> EncodedUser:
        while not self.gate.wait(0.01):
            pass
        if self.fail_with is not None:
            raise self.fail_with
        assert len(pairs) == 4 or (not pairs and text)
        if "zzz" in (text or ""):
            raise JobFailure("no_word_read")
        self.encoded.append((list(pairs), seed, text))
        answers = "".join(f"{p.caption}{p.preferred}" for p in pairs)
        seen = f"{answers}{text or ''}{self.encoder_version}"
        digest = np.frombuffer(hashlib.sha256(seen.encode()).digest(), dtype=np.uint8)
        user_emb_D = ((digest[:EMB_DIM] - 127.5) / 128).astype(np.float32)
        written = text or f"Likes what was chosen ({digest[0]})."
        unread = [word for word in (text or "").split() if word.startswith("zz")]
        return EncodedUser(written, "", user_emb_D, 0.5, ["warm light"], ["clutter"], unread)

    def features(self, pictures: Sequence[Image]) -> NDArray[np.float32]:
        """Four by four blocks of colour."""
        small = [np.asarray(one.convert("RGB").resize((4, 4))).reshape(-1) for one in pictures]
        rows = np.stack(small).astype(np.float32) + 1
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    def joined(
        self,
        readings: Sequence[EncodedUser],
        weights: Sequence[float],
        expected: Expected | None = None,
    ) -> EncodedUser:
        return joined(readings, weights, None, expected)


def paint(spec: ImageRequest, adapter: AdapterFile | None = None) -> NDArray[np.uint8]:
    """All that the picture depends on, as blocks of colour; gentle, so that people can look at it.

    Strength 0 and no user at all give the same picture, whatever the adapter.
    """
    user, strength = b"", 0.0
    if spec.user_emb_D is not None and spec.strength > 0:
        user, strength = spec.user_emb_D.tobytes(), spec.strength
        if adapter is not None:
            user += adapter.path.read_bytes()
    seen = f"{spec.prompt}|{spec.seed}|{spec.steps}|{spec.guidance_scale}|{strength}".encode()
    noise = np.random.default_rng(list(hashlib.sha256(seen + user).digest()))
    blocks = noise.integers(40, 216, (8, 8, 3)).astype(np.uint8)
    return np.kron(blocks, np.ones((spec.height_px // 8, spec.width_px // 8, 1), dtype=np.uint8))


def engine_state(**numbers: int) -> EngineState:
    """A running batch in which all is zero but these; those it does not have are its counts."""
    unused = CacheState(kept=0, hits=0, misses=0)
    state: dict[str, Any] = dict.fromkeys(EngineState.__annotations__, 0)
    state |= {"step_s": {}, "texts": unused, "users": unused}
    state["counts"] = {name: count for name, count in numbers.items() if name not in state}
    state |= {name: count for name, count in numbers.items() if name in state}
    return cast("EngineState", state)
