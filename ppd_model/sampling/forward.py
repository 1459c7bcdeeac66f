"""One pass of Stage C over the slots of a running batch, as the device does it best.

`PlainForward` calls the network. `StaticForward` fills buffers that never move and runs the pass on
them at one of a few sizes, so that it can be captured: the slots beyond those in use hold what was
there, zeros at first, and their output is dropped. `GraphForward` replays a captured CUDA graph for
each size; it has not been run yet, no such device being at hand.

Legend: N slots, C H W latent channels and sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch
from diffusers.models.unets.unet_stable_cascade import SDCascadeResBlock, SDCascadeTimestepBlock
from torch import Tensor

from ppd_model.nets.adapter import AttentionInput
from ppd_model.nets.stage_c import StageC
from ppd_model.sampling.devices import DeviceSupport

WARM_UP_PASSES = 3
COMPILED_VARIANTS = 64
"""Sizes of a pass times shapes of a block that torch may compile; more run as they are."""


class Forward(Protocol):
    """The noise of N slots. `attended` may be of more, padded slots; its strengths are not set."""

    def __call__(
        self, x_NCHW: Tensor, t_N: Tensor, strength_N: Tensor | None, attended: AttentionInput
    ) -> Tensor:
        """B x C x H x W of the slots in `x_NCHW`."""


class PlainForward:
    """Any number of slots; without a user that acts, without the user's attention."""

    def __init__(self, stage_c: StageC) -> None:
        self._stage_c = stage_c

    def __call__(
        self, x_NCHW: Tensor, t_N: Tensor, strength_N: Tensor | None, attended: AttentionInput
    ) -> Tensor:
        return self._stage_c.predict_noise(x_NCHW, t_N, with_strength(attended, strength_N))


class StaticForward:
    """Padded sizes on buffers that stay where they are."""

    def __init__(self, stage_c: StageC, latent_like: Tensor, slots: int) -> None:
        self._stage_c = stage_c
        self._x_NCHW = latent_like.new_zeros(slots, *latent_like.shape[1:])
        self._t_N = latent_like.new_ones(slots)
        self._strength_N = latent_like.new_zeros(slots)

    def __call__(
        self, x_NCHW: Tensor, t_N: Tensor, strength_N: Tensor | None, attended: AttentionInput
    ) -> Tensor:
        """The noise of the slots: those that pad are computed and dropped."""
        slots = len(x_NCHW)
        assert attended.text_blocks is not None
        size = len(attended.text_blocks[0].key)
        self._x_NCHW[:slots].copy_(x_NCHW)
        self._t_N[:slots].copy_(t_N)
        self._strength_N.zero_()
        if strength_N is not None:
            self._strength_N[:slots].copy_(strength_N)
        return self.run(size, strength_N is not None, attended)[:slots]

    def run(self, size: int, personal: bool, attended: AttentionInput) -> Tensor:
        """A pass of that size over the buffers."""
        strength_N = self._strength_N[:size] if personal else None
        return self._stage_c.predict_noise(
            self._x_NCHW[:size], self._t_N[:size], with_strength(attended, strength_N)
        )


class GraphForward(StaticForward):
    """Replays a graph for each size, with and without users; captured when first needed.

    Not run yet. A graph reads the buffers of this object and of the batch, which never move; graphs
    share one pool of memory, since only one of them runs at a time.
    """

    def __init__(self, stage_c: StageC, latent_like: Tensor, slots: int) -> None:
        super().__init__(stage_c, latent_like, slots)
        self._pool = torch.cuda.graph_pool_handle()
        self._replays: dict[tuple[int, bool], tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def run(self, size: int, personal: bool, attended: AttentionInput) -> Tensor:
        """A pass of that size over the buffers. The result holds until the next pass."""
        key = (size, personal)
        if key not in self._replays:
            self._replays[key] = self._capture(
                lambda: super(GraphForward, self).run(*key, attended)
            )
        graph, out_NCHW = self._replays[key]
        graph.replay()
        return out_NCHW

    def _capture(self, work: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Warmed up beside the main stream, since compilers and libraries set up on first use."""
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP_PASSES):
                work()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        # Another thread decodes meanwhile: only this thread's calls are watched.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            out_NCHW = work()
        return graph, out_NCHW


def forward_of(stage_c: StageC, support: DeviceSupport, latent_like: Tensor) -> Forward:
    """The table's choice. `latent_like` tells the latents' shape, dtype and device."""
    if support.forward == "eager":
        if not support.sizes:
            return PlainForward(stage_c)
        return StaticForward(stage_c, latent_like, max(support.sizes))
    if support.forward in ("compiled", "compiled-graphs"):
        compile_blocks(stage_c)
    if support.forward == "compiled":
        return StaticForward(stage_c, latent_like, max(support.sizes))
    return GraphForward(stage_c, latent_like, max(support.sizes))


def compile_blocks(stage_c: StageC) -> None:
    """Compile the residual and timestep blocks; blocks of a kind share the compiled code.

    Each size of a pass is code of its own, so torch is let keep more of it than it does by default:
    beyond its limit it leaves blocks as they are without an error. Attention blocks stay as they
    are: each finds its keys and values by its own place, and would be code of its own. diffusers
    names no repeated blocks of this network. Twice is once.
    """
    from torch._dynamo import config as limits  # heavy, and needed here alone

    limits.recompile_limit = max(limits.recompile_limit, COMPILED_VARIANTS)
    for block in stage_c.unet.modules():
        kinds = (SDCascadeResBlock, SDCascadeTimestepBlock)
        if isinstance(block, kinds) and block._compiled_call_impl is None:
            block.compile(dynamic=False)


def leave_uncompiled(stage_c: StageC) -> None:
    for block in stage_c.unet.modules():
        block._compiled_call_impl = None


def with_strength(attended: AttentionInput, strength_N: Tensor | None) -> AttentionInput:
    """The same with these strengths of the user; None is no user."""
    if strength_N is None or attended.user is None:
        return replace(attended, user=None)
    return replace(attended, user=replace(attended.user, strength_B=strength_N))
