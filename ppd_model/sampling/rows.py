"""One picture on its way through the sampler: a row of a running batch.

Legend: C H W latent channels and sides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ppd_model.nets.adapter import KeyValue
from ppd_model.nets.diffusion import row_noise
from ppd_model.nets.solver import Step
from ppd_model.sampling.plan import Plan


@dataclass(frozen=True)
class TextPart:
    """A prompt as Stage C sees it: keys and values for each block, and Stage B's pooled text."""

    blocks: tuple[KeyValue, ...]
    pooled_11D: Tensor


@dataclass(kw_only=True, eq=False)
class Row:
    """What the sampler needs of one picture, and how far it has come.

    `negative` is None without guidance, `user_blocks` None without a user. `user_tokens` is the
    number of user tokens of the batch that the row may join. Everything is decided when the row is
    made: nothing of it depends on the batch.
    """

    shape_CHW: tuple[int, int, int]
    prompt: TextPart
    negative: TextPart | None
    user_blocks: tuple[KeyValue, ...] | None
    user_tokens: int
    strength: float
    guidance: float
    plan: Plan
    generator: torch.Generator
    guidance_rescale: float = 0.0
    origin: bytes = b""
    """The same for rows whose steps are the same until the adapter acts; empty where it always
    does."""
    dtype: torch.dtype = torch.float32
    """Of the noise: float32 or float64."""
    done: int = 0
    """Steps made."""
    latent_CHW: Tensor | None = None
    """Where the row is while it is in no batch; None before its first noise."""
    x0_CHW: Tensor | None = None
    """The clean latents of its last step while it is in no batch; None before the first."""
    _noise_CHW: Tensor | None = field(default=None, repr=False)

    @property
    def steps(self) -> int:
        return len(self.plan.steps)

    @property
    def arrived(self) -> bool:
        return self.done == self.steps

    @property
    def network_rows(self) -> int:
        """Rows that it takes in any pass of the network still to come, at most."""
        return 2 if any(self.plan.guided[self.done :]) else 1

    @property
    def now(self) -> Step:
        """The present step."""
        return self.plan.steps[self.done]

    @property
    def guided_now(self) -> bool:
        return self.plan.guided[self.done]

    @property
    def strength_now(self) -> float:
        """Strength of the user in the present step."""
        return self.strength if self.plan.personal[self.done] else 0.0

    @property
    def common_now(self) -> tuple[bytes, int] | None:
        """The same for rows whose present step is the same pass of the network; None for others."""
        common = self.origin and self.done < self.plan.common_steps
        return (self.origin, self.done) if common else None

    def start(self) -> Tensor:
        """Where the row is; at first its own noise, the first draw of its generator."""
        if self.latent_CHW is None:
            self.latent_CHW = row_noise(self.shape_CHW, self.generator, self.dtype)
        return self.latent_CHW

    def step_noise(self) -> Tensor | None:
        """The noise of the present step, if it takes any: one draw, also if it is tried again."""
        if self._noise_CHW is None and self.plan.noisy:
            self._noise_CHW = row_noise(self.shape_CHW, self.generator, self.dtype)
        return self._noise_CHW

    def step_made(self) -> None:
        self.done += 1
        self._noise_CHW = None
