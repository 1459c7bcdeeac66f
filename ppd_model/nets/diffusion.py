"""Schedule, noising, targets and the sampler step: pure functions, one timestep per row.

Legend: B rows, C channels, H W latent side. Times ``t`` lie in [0, 1]: 0 is data, 1 is noise.
The schedule is Stable Cascade's (cosine, s = 0.008, alpha-bar clamped to [0.0001, 0.9999]);
the paper's Eq. 1 writes it as ``x_t = alpha_t x_0 + sigma_t eps``.

diffusers' ``DDPMWuerstchenScheduler`` uses the first row's timestep for every row; nothing here
looks at another row, so a batch may hold rows at different times.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ppd_model.presets import Target

COSINE_S = 0.008
ALPHA_BAR_MIN = 0.0001
ALPHA_BAR_MAX = 0.9999
PAIRED = 16
"""torch draws normal numbers by so many: eight radii, then their eight angles."""


def alpha_bar(t_B: Tensor) -> Tensor:
    """Cumulative signal power ``alpha_t ** 2`` at each time, shape B, in [0.0001, 0.9999]."""
    angle_B = (t_B + COSINE_S) / (1 + COSINE_S) * (math.pi / 2)
    at_zero = math.cos(COSINE_S / (1 + COSINE_S) * math.pi / 2) ** 2
    return (torch.cos(angle_B) ** 2 / at_zero).clamp(ALPHA_BAR_MIN, ALPHA_BAR_MAX)


def sampler_dtype(network: torch.dtype) -> torch.dtype:
    """What latents, times and noise are in: float32, or the network's dtype where it is wider."""
    return torch.promote_types(network, torch.float32)


def sampling_times(steps: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The ``steps + 1`` times a sampler visits, from 1 down to 0, evenly spaced.

    In float64 they are the same bits on every processor.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if dtype == torch.float64:  # linspace may fuse a product and a sum
        return torch.tensor([1 - step / steps for step in range(steps + 1)], dtype=dtype)
    return torch.linspace(1.0, 0.0, steps + 1, dtype=dtype)


def time_of(bar: float) -> float:
    """The first time at which alpha-bar, unclamped, is that low."""
    at_zero = math.cos(COSINE_S / (1 + COSINE_S) * math.pi / 2) ** 2
    angle = math.acos(math.sqrt(bar * at_zero))
    return max(0.0, angle / (math.pi / 2) * (1 + COSINE_S) - COSINE_S)


LATEST_TIME = time_of(ALPHA_BAR_MIN)
"""0.99358. Stable Cascade's own code tells the network a time that it computes from the clamped
signal-to-noise ratio: never a later one, though from here to 1 pictures are equally noisy."""


def shifted_times(steps: int, shift: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """The ``steps + 1`` times that Stable Cascade's own sampler visits.

    Those of evenly spaced times' clamped signal-to-noise ratios, divided by ``shift ** 2`` and
    clamped again: from LATEST_TIME, with a shift above 1 staying longer in noise. The last is 0.
    """
    if not shift > 0:
        raise ValueError(f"snr_shift must be above 0, got {shift}")
    even = sampling_times(steps, torch.float64)
    bar = alpha_bar(even)
    snr = bar / (1 - bar) / shift**2
    shifted = (snr / (1 + snr)).clamp(ALPHA_BAR_MIN, ALPHA_BAR_MAX)
    times = [time_of(float(each)) for each in shifted[:-1]]
    return torch.tensor([*times, 0.0], dtype=torch.float64).to(dtype)


def add_noise(x0_BCHW: Tensor, noise_BCHW: Tensor, t_B: Tensor) -> Tensor:
    """``x_t`` of Eq. 1, each row at its own time."""
    signal, noise = _signal_and_noise(t_B, x0_BCHW)
    return signal * x0_BCHW + noise * noise_BCHW


def predict_x0(xt_BCHW: Tensor, eps_BCHW: Tensor, t_B: Tensor) -> Tensor:
    """The clean latents that ``x_t`` and a predicted noise imply."""
    signal, noise = _signal_and_noise(t_B, xt_BCHW)
    return (xt_BCHW - noise * eps_BCHW) / signal


def velocity(x0_BCHW: Tensor, noise_BCHW: Tensor, t_B: Tensor) -> Tensor:
    """The v-target ``alpha_t eps - sigma_t x_0`` (Salimans and Ho, 2022)."""
    signal, noise = _signal_and_noise(t_B, x0_BCHW)
    return signal * noise_BCHW - noise * x0_BCHW


def epsilon_from_velocity(v_BCHW: Tensor, xt_BCHW: Tensor, t_B: Tensor) -> Tensor:
    """The noise that a predicted velocity implies: ``sigma_t x_t + alpha_t v``."""
    signal, noise = _signal_and_noise(t_B, xt_BCHW)
    return noise * xt_BCHW + signal * v_BCHW


def training_target(target: Target, x0_BCHW: Tensor, noise_BCHW: Tensor, t_B: Tensor) -> Tensor:
    """What the network is asked to predict: the noise, or the velocity."""
    return noise_BCHW if target == "epsilon" else velocity(x0_BCHW, noise_BCHW, t_B)


def to_epsilon(target: Target, output_BCHW: Tensor, xt_BCHW: Tensor, t_B: Tensor) -> Tensor:
    """The noise that a network trained on ``target`` has predicted."""
    if target == "epsilon":
        return output_BCHW
    return epsilon_from_velocity(output_BCHW, xt_BCHW, t_B)


def ddpm_step(
    xt_BCHW: Tensor,
    eps_BCHW: Tensor,
    t_B: Tensor,
    t_next_B: Tensor,
    noise_BCHW: Tensor,
    x0_clamp: float | None = None,
) -> Tensor:
    """One ancestral step from ``t`` to ``t_next`` for every row.

    Without ``x0_clamp`` this is ``DDPMWuerstchenScheduler.step`` for each row's own time. With it,
    the clean latents implied by ``eps`` are first clamped to ``[-x0_clamp, x0_clamp]``: near t = 1
    an epsilon target leaves x0 undetermined, and a small model's error there diverges.
    Rows whose ``t_next`` is 0 receive no noise.
    """
    if x0_clamp is not None:
        x0_BCHW = predict_x0(xt_BCHW, eps_BCHW, t_B).clamp(-x0_clamp, x0_clamp)
        signal, noise = _signal_and_noise(t_B, xt_BCHW)
        eps_BCHW = (xt_BCHW - signal * x0_BCHW) / noise
    bar_B111 = _per_row(alpha_bar(t_B), xt_BCHW)
    bar_next_B111 = _per_row(alpha_bar(t_next_B), xt_BCHW)
    alpha_B111 = bar_B111 / bar_next_B111
    mean = (xt_BCHW - (1 - alpha_B111) * eps_BCHW / (1 - bar_B111).sqrt()) / alpha_B111.sqrt()
    std_B111 = ((1 - alpha_B111) * (1 - bar_next_B111) / (1 - bar_B111)).sqrt()
    std_B111 = std_B111 * _per_row((t_next_B != 0).to(std_B111.dtype), xt_BCHW)
    return (mean + std_B111 * noise_BCHW).to(xt_BCHW.dtype)


def p2_weight(t_B: Tensor) -> Tensor:
    """P2 weight ``1 / (1 + SNR)``, the loss weight of Stable Cascade's own recipes, shape B."""
    bar_B = alpha_bar(t_B)
    return 1 / (1 + bar_B / (1 - bar_B))


def row_noise(
    shape_CHW: tuple[int, int, int],
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise of one row, drawn on the generator's own device: float32 or float64.

    In float64, which is for generators of the CPU, it is the same noise to float32's rounding and
    takes as much from the generator; only it is the same on every processor, while in float32 each
    instruction set has logarithms, sines and cosines of its own.
    """
    if dtype == torch.float64:
        return _normal_of_uniform(shape_CHW, generator)
    return torch.randn(shape_CHW, generator=generator, device=generator.device, dtype=dtype)


def _normal_of_uniform(shape_CHW: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Box and Muller's transform as ``torch.randn`` does it, of its uniform numbers, in float64.

    Those are multiples of 2**-24 in [0, 1), exact in float32.
    """
    assert generator.device.type == "cpu", f"float64 noise of a generator on {generator.device}"
    assert math.prod(shape_CHW) % PAIRED == 0, f"noise of {shape_CHW}: drawn by {PAIRED}"
    uniform_CHW = torch.rand(shape_CHW, generator=generator, dtype=torch.float32).double()
    first, second = uniform_CHW.view(-1, 2, PAIRED // 2).unbind(1)
    radius = (-2 * torch.log(1 - first)).sqrt()
    angle = 2 * math.pi * second
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1).view(shape_CHW)


def _signal_and_noise(t_B: Tensor, like_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    bar_B111 = _per_row(alpha_bar(t_B), like_BCHW)
    return bar_B111.sqrt(), (1 - bar_B111).sqrt()


def _per_row(value_B: Tensor, like_BCHW: Tensor) -> Tensor:
    return value_B.view(-1, *[1] * (like_BCHW.dim() - 1))
