"""What the service needs from outside, as Protocols. `service.wiring` chooses what stands behind.

B, D suffixes: batch, embedding.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image as Picture

from ppd_model.pictures.origin import Origin
from ppd_model.pictures.writing import Format
from ppd_model.readings import Expected
from ppd_model.types import (
    EncodedUser,
    EngineState,
    Generated,
    ImageRequest,
    LabelledPair,
    Pixels,
    Sampling,
)
from ppd_model.words import CaptionWords, Vocabulary
from service.core.messages import JobEvent


@dataclass(frozen=True)
class Capabilities:
    """What the running preset accepts. Known before any weight is loaded."""

    preset: str
    default_side_px: int
    sides_px: tuple[int, ...]
    """Allowed values of width and height."""
    sampling: Sampling = field(default_factory=Sampling)
    """How pictures are made where a request does not say."""
    vocabulary: Vocabulary | None = None
    """The only words of prompts that are read; None where any are, or nobody can tell."""
    caption_words: CaptionWords | None = None
    """The only words of captions that are read; None likewise."""

    def nearest_side_px(self, side_px: int) -> int:
        """The allowed side with the smallest ratio to this one; of two as near the larger."""
        return min(self.sides_px, key=lambda px: (abs(math.log(px / side_px)), -px))


@dataclass(frozen=True)
class Versions:
    """What a result depends on; known once the weights are loaded.

    A process that only reads choices has no model and no adapter. `encoder_version` is the one
    whose embeddings are made here, or taken. `adapter_version` serves the jobs that name no other;
    with `adapter_overrides` it serves those that do, too.
    """

    model: str | None
    adapter_version: str | None
    encoder_version: str
    adapter_overrides: bool = False


@dataclass(frozen=True)
class AdapterFile:
    """An adapter that was put into service, on this machine."""

    version: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Preview:
    """What a picture looks like that is being made: small, uint8, H x W x 3.

    `index` is its number in the job, `done` of `total` are the job's steps when it was made.
    """

    index: int
    done: int
    total: int
    image_HWC: Pixels


@dataclass(frozen=True)
class Usage:
    """What the text encoder reads of a prompt, and the places of a picture's Stage C latents."""

    text_tokens: int
    latent_tokens: int


class ModelRuntime(Protocol):
    """The model. All calls come from one thread, save those of the methods named here.

    `state` and `broken` are asked from anywhere, `generate`, `unread`, `unknown_words` and `usage`
    from as many threads as jobs may be in work at once; where that is one, from the thread of all
    the others.
    """

    @property
    def jobs_at_once(self) -> int:
        """Calls of `generate` that may run side by side; available before `load`."""

    @property
    def capabilities(self) -> Capabilities:
        """What may be asked; available before `load`."""

    def load(self) -> Versions:
        """Read the weights. Raises ValueError or OSError that names what is wrong."""

    def generate(
        self,
        requests: Sequence[ImageRequest],
        on_step: Callable[[int, int], None],
        cancelled: Callable[[], bool],
        on_preview: Callable[[Preview], None],
        *,
        adapter: AdapterFile | None = None,
        owner: str = "",
    ) -> list[Generated]:
        """Make all pictures, in order, with this adapter; None is the one loaded at the start.

        `owner` is whose turn it takes where pictures of several wait for room: a tenant, an
        address and a person, with slashes between.
        `on_step(done, total)` follows every denoising step, `on_preview` some of them where there
        are previews; they and `cancelled` may be called from other threads, which they hold up.
        Raises `JobCanceled` at the step after `cancelled()` turned true, `JobFailure` for what the
        model cannot do (code `adapter_unavailable` for an adapter that is damaged or does not
        belong here), `ModelLost` when it is `broken`.
        """

    def unread(self, prompt: str) -> str:
        """The end of a prompt that is beyond what the model reads; mostly empty."""

    def usage(self, request: ImageRequest) -> Usage:
        """What a picture takes of the model."""

    def unknown_words(self, prompt: str) -> list[str]:
        """Words and emoji of a prompt that the model does not know, as they are written."""

    def encode(self, pairs: Sequence[LabelledPair], seed: int, text: str | None) -> EncodedUser:
        """Read exactly four pairs; a given `text` takes the place of a generated profile."""

    def features(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """What the encoder sees of each picture, N x F of length 1."""

    def joined(
        self,
        readings: Sequence[EncodedUser],
        weights: Sequence[float],
        expected: Expected | None = None,
    ) -> EncodedUser:
        """What readings of one person's sets of answers, oldest first, say together.

        `expected`: what such answers are read as on average, where that is known.
        """

    def state(self) -> EngineState | None:
        """How the running batch stands, at once; None where there is none, or not yet."""

    def broken(self) -> str | None:
        """Why no picture will be made any more in this process; None while they are."""

    def close(self) -> None:
        """End the threads that belong to the model; nothing is asked of it any more."""


class ImageStore(Protocol):
    """Bytes of pictures, and of adapters, by key: a path made by `service.infra.pictures.keys`."""

    async def put(self, key: str, data: bytes) -> None:
        """Store `data`; afterwards the key holds all of it or nothing.

        Raises StorageFull when there is no room, OSError for other faults.
        """

    async def full(self) -> bool:
        """Whether there is no room for further pictures; raises OSError if nobody can tell."""

    async def get(self, key: str) -> bytes:
        """The bytes; raises FileNotFoundError, or OSError for other faults."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Forget these keys; unknown ones are fine. Raises OSError when some may be left."""

    def stored_before(self, before: datetime) -> AsyncIterator[list[str]]:
        """The keys of pictures that were stored before this moment, a few hundred at a time.

        What was begun before it and never finished is removed on the way.
        """


ModeratedPlace = Literal["prompt", "upload", "picture"]
"""Where content is judged: what a person asks for or writes of a taste, what a person sends, what
was made."""

RefusalReason = Literal[
    "minors", "sexual", "violence", "hate", "harassment", "self_harm", "illicit", "other"
]
"""The classes of what is refused; of several, the first one in this order is told."""


class Moderation(Protocol):
    """Judges what comes in and what is made. Raises OSError where it cannot tell."""

    async def refuses_text(self, text: str) -> RefusalReason | None:
        """Why a text is refused; None allows it."""

    async def refuses_picture(self, data: bytes, media_type: str) -> RefusalReason | None:
        """Why a picture's file is refused; None allows it."""


class PictureSigner(Protocol):
    """Signs what a picture's file says of where it comes from; from any thread."""

    def signed(self, data: bytes, format: Format, origin: Origin) -> bytes:
        """The same file, signed. Raises OSError where that is not possible now."""


@dataclass(frozen=True)
class EmbeddingKey:
    """What an embedding depends on; a change of any of it is another key, so none is invalidated.

    `reading_sha256` is the hash of what was read: the four choices, and a given text.
    """

    tenant: str
    user_pk: str
    encoder_version: str
    reading_sha256: str


class EmbeddingCache(Protocol):
    """Readings close at hand. The database is the truth; losing this loses time only."""

    async def get(self, key: EmbeddingKey) -> EncodedUser | None:
        """What was read, if it is here."""

    async def put(self, key: EmbeddingKey, taste: EncodedUser) -> None:
        """Keep it."""

    async def once(
        self, key: EmbeddingKey, read: Callable[[], Awaitable[EncodedUser]]
    ) -> EncodedUser:
        """What is here, else what `read` gives, which is kept.

        Whoever asks for the same key meanwhile, in any process, waits for that one reading. Raises
        what `read` raises; one who waited for a reading that failed reads by itself.
        """

    async def forget_user(self, tenant: str, user_pk: str) -> None:
        """Drop everything of one user, and whatever is put for it later: no pk is used again.

        Raises when that could not be done now: it is to be asked again.
        """


Subscription = AbstractAsyncContextManager[AsyncIterator[JobEvent]]


class ProgressEvents(Protocol):
    """What happens to jobs while it happens, with a short memory for those who come back.

    Previews are in no memory, and one who does not read loses them first.

    Losing it loses progress bars only: whoever follows a job also looks at its row now and then.
    """

    async def __aenter__(self) -> Self:
        """Send and listen until the end of the block, which ends every subscription."""

    async def __aexit__(self, *_: Any) -> None: ...

    def publish(self, job_id: str, event: JobEvent) -> None:
        """Tell all who follow this job, in any process. Does not wait, and raises nothing."""

    async def latest(self, job_id: str) -> JobEvent | None:
        """The newest remembered event."""

    def forget(self, job_id: str) -> None:
        """Drop what is remembered of a job, and end the subscriptions to it."""

    def subscribe(self, job_id: str, after_seq: int) -> Subscription:
        """Follow a job from the remembered event after `after_seq` on, in order of `seq`.

        Nothing that is published after the block has begun is missed. Whoever gives up the wait
        for the next event, after a timeout say, may ask for it again.
        """

    def close(self) -> None:
        """End every subscription: the process stops."""
