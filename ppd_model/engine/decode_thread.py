"""Stages B and A, and previews, in a thread of their own: denoising never waits for them.

Latents that wait are decoded together, whichever jobs they belong to. A fault is that of the
pictures that have it: what fails together is tried apart.

Legend: B pictures, C H W latent channels and sides, h w sides in pixels.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ppd_model.engine.faults import (
    CANCELLED,
    CLOSED,
    NUMERICAL,
    OUT_OF_MEMORY,
    Fault,
    attempt,
    give_memory_back,
)
from ppd_model.engine.jobs import Picture
from ppd_model.nets.decoder import Decoder
from ppd_model.sampling.devices import DeviceSupport, enter_thread
from ppd_model.sampling.requests import Cancelled


@dataclass(kw_only=True, eq=False)
class Latent:
    """Stage C latents that shall become a picture, and what to do with it."""

    latent_CHW: Tensor
    pooled_11D: Tensor
    generator: torch.Generator
    unwanted: Callable[[], Fault | None]
    deliver: Callable[[Picture], None]
    fail: Callable[[Fault], None]
    ready: torch.cuda.Event | None = None
    """On a device with streams: recorded when the latents were."""


@dataclass(kw_only=True, eq=False)
class Glimpse:
    """A guess of clean latents that shall become a preview. A newer one of its key replaces it."""

    key: object
    latent_CHW: Tensor
    deliver: Callable[[Picture], None]
    ready: torch.cuda.Event | None = None


class DecodeThread:
    """Takes latents, gives pictures: uint8, H x W x 3, to `deliver` in this thread."""

    def __init__(
        self,
        decoder: Decoder,
        previewer: nn.Module | None,
        support: DeviceSupport,
        device: torch.device,
        threads: int,
    ) -> None:
        self._decoder = decoder
        self._previewer = previewer
        self._support = support
        self._device = device
        self._threads = threads
        self._changed = threading.Condition()
        self._waiting: list[Latent] = []
        self._glimpses: dict[object, Glimpse] = {}
        self._closed = False
        self._in_hand: list[Latent] = []
        self.batches = 0
        self.pictures = 0
        self.previews = 0
        self._thread = threading.Thread(target=self._run, name="ppd-decode", daemon=True)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def in_work(self) -> int:
        return len(self._in_hand)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def put(self, latent: Latent) -> None:
        """Decode these latents, of this thread's stream, as soon as possible."""
        latent.ready = self._event()
        with self._changed:
            if not self._closed:
                self._waiting.append(latent)
                self._changed.notify()
                return
        latent.fail(Fault(CLOSED, "the engine was closed"))

    def show(self, glimpse: Glimpse) -> None:
        """Make a preview when there is time, unless a newer one comes first."""
        if self._previewer is None:
            return
        glimpse.ready = self._event()
        with self._changed:
            self._glimpses[glimpse.key] = glimpse
            self._changed.notify()

    def close(self) -> None:
        """Stop after what is in work; what waits fails."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        enter_thread(self._device, self._threads)
        try:
            with torch.inference_mode(), self._own_stream():
                self._serve()
        finally:  # whatever ends this thread, nobody waits for it in vain
            with self._changed:
                self._closed = True
            for latent in [*self._in_hand, *self._waiting]:
                latent.fail(Fault(CLOSED, "the engine was closed"))

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._glimpses or self._closed):
                    self._changed.wait()
                if self._closed:
                    return
                glimpses = list(self._glimpses.values())
                self._glimpses.clear()
                latents = self._in_hand = self._take()
            for glimpse in glimpses:
                self._preview(glimpse)
            fault = attempt(partial(self._decode, latents), "the decode loop")
            if isinstance(fault, Fault):
                for latent in latents:
                    latent.fail(fault)
            self._in_hand = []

    def _event(self) -> torch.cuda.Event | None:
        """On a device with streams: what has been put on the calling thread's is done."""
        if not self._support.asynchronous:
            return None
        event = torch.cuda.Event()
        event.record()
        return event

    def _own_stream(self) -> AbstractContextManager[object]:
        """On a device with streams, one beside that of the steps."""
        if not self._support.asynchronous:
            return nullcontext()
        return torch.cuda.stream(torch.cuda.Stream(self._device))

    def _take(self) -> list[Latent]:
        """The oldest that waits, and others of its shape."""
        if not self._waiting:
            return []
        shape = self._waiting[0].latent_CHW.shape
        taken = [latent for latent in self._waiting if latent.latent_CHW.shape == shape]
        taken = taken[: self._support.decode_rows]
        self._waiting = [latent for latent in self._waiting if latent not in taken]
        return taken

    def _preview(self, glimpse: Glimpse) -> None:
        assert self._previewer is not None
        previewer = self._previewer

        def look() -> Picture | None:
            _wait_for(glimpse)
            pixels_1CHW = previewer(glimpse.latent_CHW[None])
            return _to_bytes(pixels_1CHW)[0] if _finite(pixels_1CHW)[0] else None

        made = attempt(look, "a preview")
        if made is not None and not isinstance(made, Fault):  # a missing one fails no job
            self.previews += 1
            glimpse.deliver(made)

    def _decode(self, latents: Sequence[Latent]) -> None:
        wanted = self._still_wanted(latents)
        if not wanted:
            return
        states = [latent.generator.get_state() for latent in wanted]
        fault = self._decode_together(wanted)
        if fault is None:
            return
        if fault.code == OUT_OF_MEMORY:
            give_memory_back(self._device)
        half = (len(wanted) + 1) // 2
        apart = (
            [wanted[:half], wanted[half:]]
            if fault.code == OUT_OF_MEMORY
            else [[latent] for latent in wanted]
        )
        for latent, state in zip(wanted, states, strict=True):
            latent.generator.set_state(state)
        for part in apart:
            part = self._still_wanted(part)
            again = self._decode_together(part) if part else None
            if again is not None:
                for latent in part:
                    latent.fail(again)

    def _decode_together(self, latents: Sequence[Latent]) -> Fault | None:
        """Deliver these pictures; a picture of NaN fails by itself."""
        for latent in latents:
            _wait_for(latent)
        made = attempt(lambda: self._pixels(latents), "decoding")
        if isinstance(made, Fault):
            return None if made.code == CANCELLED and not self._still_wanted(latents) else made
        self.batches += 1
        for latent, picture in zip(latents, made, strict=True):
            if isinstance(picture, Fault):
                latent.fail(picture)
            else:
                self.pictures += 1
                latent.deliver(picture)
        return None

    def _pixels(self, latents: Sequence[Latent]) -> list[Picture | Fault]:
        latent_BCHW = torch.stack([latent.latent_CHW for latent in latents])
        sound = _finite(latent_BCHW)
        pixels_BCHW = self._decoder(
            latent_BCHW,
            torch.cat([latent.pooled_11D for latent in latents]),
            [latent.generator for latent in latents],
            before_step=lambda: self._stop_if_unwanted(latents),
        )
        also_sound = _finite(pixels_BCHW)
        pictures = _to_bytes(pixels_BCHW)
        return [
            picture
            if latents_sound and pixels_sound
            else Fault(
                NUMERICAL, f"{'pixels' if latents_sound else 'latents'} hold NaN or infinity"
            )
            for picture, latents_sound, pixels_sound in zip(
                pictures, sound, also_sound, strict=True
            )
        ]

    def _still_wanted(self, latents: Sequence[Latent]) -> list[Latent]:
        """Those that anyone waits for; the others fail."""
        wanted = []
        for latent in latents:
            why_not = latent.unwanted()
            if why_not is None:
                wanted.append(latent)
            else:
                latent.fail(why_not)
        return wanted

    def _stop_if_unwanted(self, latents: Sequence[Latent]) -> None:
        if all(latent.unwanted() is not None for latent in latents):
            raise Cancelled


def _wait_for(waiting: Latent | Glimpse) -> None:
    """Latents of another stream: made before they are read, and not given back while they are."""
    if waiting.ready is not None:
        torch.cuda.current_stream().wait_event(waiting.ready)
        waiting.latent_CHW.record_stream(torch.cuda.current_stream())


def _finite(values_BCHW: Tensor) -> list[bool]:
    finite: list[bool] = torch.isfinite(values_BCHW).flatten(1).all(1).tolist()
    return finite


def _to_bytes(pixels_BCHW: Tensor) -> list[Picture]:
    """uint8 h x w x 3 of colours in [0, 1]. NaN becomes anything: look before."""
    bytes_BCHW = (pixels_BCHW.clamp(0, 1) * 255).round().nan_to_num().to(torch.uint8)
    return list(bytes_BCHW.permute(0, 2, 3, 1).cpu().contiguous().numpy())
