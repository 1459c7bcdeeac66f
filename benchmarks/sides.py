"""What the engine is measured against: a plain loop, and servers made of it.

`PlainLoop` is what a good engineer would write with diffusers' classes in an afternoon: the stock
network with the adapter's blocks, text encoded once, both halves of guidance in one batch, no
gradient, one request at a time. `SerialServer` serves first come, first served; `RequestServer`
batches all requests that wait, up to a number, and answers when the longest of them is done. It is
given this project's own sampler, with keys and values computed once and every row on its own
schedule, which diffusers' pipelines cannot do.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from diffusers import DDPMWuerstchenScheduler, StableCascadePriorPipeline
from diffusers.models.unets.unet_stable_cascade import StableCascadeUNet
from torch import Tensor, nn

from ppd_model.engine.engine import Engine
from ppd_model.nets.adapter import AttentionInput, KeyValue, UserPart
from ppd_model.nets.diffusion import ddpm_step, row_noise, sampling_times
from ppd_model.nets.stage_c import build_stage_c
from ppd_model.pipeline import Pipeline
from ppd_model.types import ImageRequest


@dataclass
class Outcome:
    """Seconds of one request, on one clock."""

    arrived_s: float
    first_step_s: float = float("nan")
    ended_s: float = float("nan")
    done: threading.Event = field(default_factory=threading.Event)

    @property
    def waited_s(self) -> float:
        """From arrival to the first step."""
        return self.first_step_s - self.arrived_s

    @property
    def latency_s(self) -> float:
        """From arrival to the end."""
        return self.ended_s - self.arrived_s

    def end(self) -> None:
        """It is there."""
        self.ended_s = time.perf_counter()
        self.done.set()


class Server(Protocol):
    """Takes a request at a time."""

    def arrive(self, request: ImageRequest) -> Outcome:
        """Hand in; returns at once."""

    def close(self) -> None:
        """Stop."""


class PlainLoop:
    """One request after the other. `pipeline` lends its weights, text encoder and decoder."""

    def __init__(self, pipeline: Pipeline, *, decode: bool) -> None:
        self._pipeline = pipeline
        self._decode = decode
        with torch.device("meta"):
            self._stage_c = build_stage_c(pipeline.preset)  # stock layers on the same weights
        self._stage_c.load_state_dict(pipeline.stage_c.state_dict(), assign=True)
        self._stage_c.eval()

    @torch.inference_mode()
    def __call__(self, request: ImageRequest) -> Tensor:
        """The latents, after the picture was made of them where that is asked for."""
        pipeline, stage_c, device = self._pipeline, self._stage_c, self._pipeline.device
        shape_CHW = pipeline.check([request])
        generator = torch.Generator().manual_seed(request.seed)
        guided = request.guidance_scale > 1
        prompts = [request.prompt, request.negative_prompt] if guided else [request.prompt]
        text = pipeline.text_encoder.encode(prompts)
        user_emb_BD = strength_B = None
        if request.user_emb_D is not None:
            user_emb_BD = torch.from_numpy(request.user_emb_D).to(device).expand(len(prompts), -1)
            strength_B = torch.tensor([request.strength, 0.0][: len(prompts)], device=device)
        attended = stage_c.attend(text.tokens_BSD, text.pooled_B1D, user_emb_BD, strength_B)
        x_1CHW = row_noise(shape_CHW, generator)[None].to(device)
        times = sampling_times(request.steps or pipeline.preset.sampling.steps).to(device)
        for t_1, t_next_1 in zip(times[:-1].split(1), times[1:].split(1), strict=True):
            x_BCHW = x_1CHW.expand(len(prompts), -1, -1, -1)
            eps_BCHW = stage_c.predict_noise(x_BCHW, t_1.expand(len(prompts)), attended)
            if guided:
                prompt_1CHW, negative_1CHW = eps_BCHW.chunk(2)
                eps_BCHW = negative_1CHW + request.guidance_scale * (prompt_1CHW - negative_1CHW)
            noise_1CHW = row_noise(shape_CHW, generator)[None].to(device)
            clamp = pipeline.preset.stage_c_x0_clamp
            x_1CHW = ddpm_step(x_1CHW, eps_BCHW, t_1, t_next_1, noise_1CHW, clamp)
        if self._decode:
            pipeline.decode([request], x_1CHW, [generator])
        return x_1CHW


class StockPipeline:
    """diffusers' own prior pipeline on the same base weights: no adapter, one request at a time.

    The text is encoded by this project's encoder, once for all requests.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        with torch.device("meta"):
            prior = StableCascadeUNet(**pipeline.preset.stage_c)
        prior.load_state_dict(pipeline.stage_c.unet.state_dict(), assign=True)
        self._stock = StableCascadePriorPipeline(
            tokenizer=None,
            text_encoder=pipeline.text_encoder.model,
            prior=prior.eval(),
            scheduler=DDPMWuerstchenScheduler(),
            resolution_multiple=pipeline.preset.px_per_latent,
        )
        self._stock.set_progress_bar_config(disable=True)
        self._preset = pipeline.preset
        self._text = pipeline.text_encoder.encode(["a boat at the sea", ""])

    def __call__(self, request: ImageRequest) -> Tensor:
        """The latents."""
        tokens_BSD, pooled_B1D = self._text.tokens_BSD, self._text.pooled_B1D
        made: Tensor = self._stock(
            prompt_embeds=tokens_BSD[:1],
            prompt_embeds_pooled=pooled_B1D[:1],
            negative_prompt_embeds=tokens_BSD[1:],
            negative_prompt_embeds_pooled=pooled_B1D[1:],
            height=self._preset.default_side_px,
            width=self._preset.default_side_px,
            num_inference_steps=request.steps or self._preset.sampling.steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator().manual_seed(request.seed),
        ).image_embeddings
        return made


class QueueServer:
    """A thread that takes up to `at_once` waiting requests and works on them until all are done."""

    def __init__(
        self, work: Callable[[Sequence[ImageRequest]], object], at_once: int, threads: int
    ) -> None:
        self._work = work
        self._at_once = at_once
        self._threads = threads
        self._waiting: deque[tuple[ImageRequest, Outcome]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def arrive(self, request: ImageRequest) -> Outcome:
        """Hand in; returns at once."""
        outcome = Outcome(time.perf_counter())
        with self._changed:
            self._waiting.append((request, outcome))
            self._changed.notify()
        return outcome

    def close(self) -> None:
        """Stop."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                count = min(self._at_once, len(self._waiting))
                taken = [self._waiting.popleft() for _ in range(count)]
            for _, outcome in taken:
                outcome.first_step_s = time.perf_counter()
            self._work([request for request, _ in taken])
            for _, outcome in taken:
                outcome.end()


class EngineServer:
    """The engine; every request is of another owner."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._owners = 0

    def arrive(self, request: ImageRequest) -> Outcome:
        """Hand in; returns at once."""
        outcome = Outcome(time.perf_counter())
        self._owners += 1
        handle = self._engine.submit([request], owner=str(self._owners))

        def end(_: object) -> None:
            assert handle.timings is not None, "a job of a benchmark failed"
            outcome.first_step_s = outcome.arrived_s + handle.timings.queue_s
            outcome.end()

        handle.future.add_done_callback(end)
        return outcome

    def close(self) -> None:
        """The engine stays: whoever made it closes it."""


def serial_server(loop: PlainLoop, threads: int) -> QueueServer:
    """First come, first served."""
    return QueueServer(lambda requests: loop(requests[0]), 1, threads)


def request_server(pipeline: Pipeline, at_once: int, threads: int) -> QueueServer:
    """Batches what waits; no decoding."""

    def work(requests: Sequence[ImageRequest]) -> Tensor:
        generators = [torch.Generator().manual_seed(request.seed) for request in requests]
        return pipeline.sample_latents(requests, generators)

    return QueueServer(work, at_once, threads)


class NoDecoder(nn.Module):
    """Stands for Stages B and A where denoising alone is compared."""

    def __init__(self) -> None:
        super().__init__()
        self.stage_b = nn.Identity()

    def forward(self, latent_BCHW: Tensor, *_: object, **__: object) -> Tensor:
        """Black pictures of the size of a thumb."""
        return latent_BCHW.new_zeros(len(latent_BCHW), 3, 8, 8)


def row_by_row(pipeline: Pipeline) -> None:
    """Force the model to be compute-bound: a pass of n rows takes n times as long as one of one."""
    predict = pipeline.stage_c.predict_noise

    def one_by_one(x_BCHW: Tensor, t_B: Tensor, attended: AttentionInput) -> Tensor:
        rows = [slice(i, i + 1) for i in range(len(x_BCHW))]
        return torch.cat([predict(x_BCHW[i], t_B[i], _row(attended, i)) for i in rows])

    pipeline.stage_c.predict_noise = one_by_one  # type: ignore[method-assign]


def _row(attended: AttentionInput, i: slice) -> AttentionInput:
    def of(blocks: Sequence[KeyValue]) -> tuple[KeyValue, ...]:
        return tuple(KeyValue(block.key[i], block.value[i]) for block in blocks)

    assert attended.text_blocks is not None
    user = attended.user
    if user is not None:
        user = UserPart(of(user.blocks), user.strength_B[i])
    return AttentionInput(attended.text_BSD[i], of(attended.text_blocks), user)


def requests_of(pipeline: Pipeline, steps: Sequence[int | None], seed: int) -> list[ImageRequest]:
    """Guided and personal, each of another person and prompt."""
    rng = np.random.default_rng(seed)
    subjects = ("boat", "tree", "house", "fish", "rocket", "balloon", "flower", "mushroom")
    return [
        ImageRequest(
            f"a {subjects[i % len(subjects)]} at the sea",
            seed=1000 * seed + i,
            user_emb_D=rng.normal(size=pipeline.preset.user_emb_dim).astype(np.float32),
            steps=count,
        )
        for i, count in enumerate(steps)
    ]
