"""What a training step draws: noises, times, which embedding, whose user is dropped.

A pure function of (seed, step) over the whole batch of all processes, on the CPU: a resumed run,
another number of processes, a smaller micro batch or another device draws the same.

Where the reference's errors were computed beforehand, noises and times are a function of
(draws_seed, pair, number of the draw) instead, whatever the batch, the step and the run.

Legend: B pairs, C H W latent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ppd_model.nets.diffusion import LATEST_TIME
from training.dpo.dpo_config import DpoConfig

KEPT, USERS = (0,), (1,)
"""Tell apart what is drawn from equal numbers."""


@dataclass(frozen=True)
class Draws:
    """The randomness of B pairs. Times lie in [min_time, max_time]; which_embedding_B in [0, 1)."""

    noise_chosen_BCHW: Tensor
    noise_rejected_BCHW: Tensor
    t_chosen_B: Tensor
    t_rejected_B: Tensor
    which_embedding_B: Tensor
    keep_user_B: Tensor

    def rows(self, part: slice | Tensor) -> Draws:
        return Draws(**{name: value[part] for name, value in vars(self).items()})

    def to(self, device: torch.device) -> Draws:
        return Draws(**{name: value.to(device) for name, value in vars(self).items()})


def draw(pairs: int, latent_CHW: torch.Size, seed: int, step: int, config: DpoConfig) -> Draws:
    """The randomness of one step, a function of its arguments alone."""
    # torch's CPU generator reads the low 32 bits of a seed only: mix both into those.
    mixed = int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
    generator = torch.Generator().manual_seed(mixed)

    def noise() -> Tensor:
        return torch.randn((pairs, *latent_CHW), generator=generator)

    chosen_BCHW = noise()
    rejected_BCHW = chosen_BCHW if config.shared_noise else noise()
    chosen_B, which_B, keep_B = torch.rand((3, pairs), generator=generator)
    rejected_B = chosen_B if config.shared_timestep else torch.rand(pairs, generator=generator)
    return Draws(
        noise_chosen_BCHW=chosen_BCHW,
        noise_rejected_BCHW=rejected_BCHW,
        t_chosen_B=_times(chosen_B, config),
        t_rejected_B=_times(rejected_B, config),
        which_embedding_B=which_B,
        keep_user_B=(keep_B >= config.user_dropout).float(),
    )


def draw_of_pairs(
    pair_B: Tensor, number: int, latent_CHW: torch.Size, seed: int, step: int, config: DpoConfig
) -> Draws:
    """The kept draw of that number of each pair; which embedding and whose user is the step's."""
    noise_2BCHW, uniform_2B = _kept(pair_B, number, latent_CHW, config)
    of_step = np.random.default_rng(np.random.SeedSequence([seed, step], spawn_key=USERS))
    which_B, keep_B = torch.from_numpy(of_step.random((2, len(pair_B)), dtype=np.float32))
    return Draws(
        noise_chosen_BCHW=noise_2BCHW[0],
        noise_rejected_BCHW=noise_2BCHW[-1],
        t_chosen_B=_times(uniform_2B[0], config),
        t_rejected_B=_times(uniform_2B[-1], config),
        which_embedding_B=which_B,
        keep_user_B=(keep_B >= config.user_dropout).float(),
    )


def _kept(
    pair_B: Tensor, number: int, latent_CHW: torch.Size, config: DpoConfig
) -> tuple[Tensor, Tensor]:
    """Noises, and uniform numbers for times, of both pictures; one where the pair shares it."""
    noises, times = 2 - config.shared_noise, 2 - config.shared_timestep
    noise_2BCHW = np.empty((noises, len(pair_B), *latent_CHW), dtype=np.float32)
    uniform_2B = np.empty((times, len(pair_B)), dtype=np.float32)
    for place, pair in enumerate(pair_B.tolist()):
        mixed = np.random.SeedSequence([config.draws_seed, pair, number], spawn_key=KEPT)
        own = np.random.default_rng(mixed)
        uniform_2B[:, place] = own.random(times, dtype=np.float32)
        for side in range(noises):
            own.standard_normal(dtype=np.float32, out=noise_2BCHW[side, place])
    return torch.from_numpy(noise_2BCHW), torch.from_numpy(uniform_2B)


def _times(uniform_B: Tensor, config: DpoConfig) -> Tensor:
    span = config.max_time - config.min_time
    t_B = config.max_time - span * uniform_B**config.time_power
    return t_B.clamp(max=LATEST_TIME) if config.snr_times else t_B
