"""One training step: two copies of the base, one shared base, and reference errors from a file.

    python -m benchmarks.dpo_step [--pairs 64] [--rounds 7] [--threads 1] [--out FILE.json]

The plain loop is what public Diffusion-DPO code does, on the same classes, weights and draws:
policy and reference are two networks, each gets chosen and rejected pictures in one batch, and
every row goes through both. It is as careful as it is simple: the base takes no gradient, the
reference runs without autograd. The shared base is train_dpo's step with a live reference, the
third side the same with a cached one. All sides alternate within one process, drop the same users,
and every round is a whole step: draws, passes, backward, clipping, AdamW.

Prints medians and spread, bytes of frozen weights held, ratios within rounds, and how far the
losses are apart under equal draws: in float64, where only a difference in the mathematics could
show; in float32, where beta * T = 500 magnifies rounding; and in float32 with the plain loop's
response norm computed as the shared base computes it. Beside them stands how far each is from its
own loss in float64. Weights: the shipped `mini`; pictures and text are random.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.rounds import Goal, over, show, spread, summary
from benchmarks.rounds import draw as draw_rounds
from ppd_model.nets.adapter import trainable_parameters
from ppd_model.nets.diffusion import add_noise
from ppd_model.nets.response_norm import use_fast_response_norm
from ppd_model.nets.stage_c import StageC, load_adapter, load_stage_c
from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.presets import get_preset
from training.data.dataset import PairBatch
from training.dpo.dpo_config import DpoConfig
from training.dpo.loss import PairErrors, ppd_loss, squared_error
from training.dpo.pair_model import PairModel, as_pairs
from training.dpo.randomness import Draws, draw, draw_of_pairs
from training.jobs.configuration import git_commit
from training.reference_errors import ReferenceErrors

GOAL = Goal("live / cached", 1.25)
BETA, LR, CLIP_NORM = 0.5, 1e-5, 1.0
TEXT_TOKENS, LATENT_CHW = 24, torch.Size((16, 8, 8))
PRESET = get_preset("mini")
Step = Callable[[PairBatch, int], None]
"""A whole step on the batch, with the draws of that turn."""


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--user-dropout", type=float, default=0.1)
    parser.add_argument("--compiled", action="store_true", help="also a live step, compiled")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    report = compare(given.pairs, given.rounds, given.user_dropout, given.compiled)
    report |= {
        "threads": given.threads,
        "torch": str(torch.__version__),
        "machine": platform.processor() or platform.machine(),
        "commit": git_commit(),
    }
    show(report, given.out)
    if given.plot is not None:
        draw_rounds({"dpo step": summary(report["rounds"], [GOAL])}, given.plot)


def compare(pairs: int, rounds: int, user_dropout: float, compiled: bool) -> dict[str, Any]:
    """All sides in turn, after two steps each that are not counted."""
    config = training(pairs, user_dropout)
    batch = random_batch(pairs)
    sides = {
        "plain": plain_step(config),
        "live": live_step(config, compile_blocks=False),
        "cached": cached_step(config, batch),
    }
    if compiled:
        sides["compiled"] = live_step(config, compile_blocks=True)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-2, rounds):
        for name, step in sides.items():
            started_s = time.perf_counter()
            step(batch, turn + 2)
            if turn >= 0:
                seconds[name].append(time.perf_counter() - started_s)
    bytes_of_base = base_bytes(trained_stage_c().unet)
    compared = [("plain", "live"), ("live", "cached"), ("plain", "cached")]
    if compiled:
        compared.append(("live", "compiled"))
    ratios = {f"{slow} / {fast}": over(seconds[slow], seconds[fast]) for slow, fast in compared}
    return {
        "pairs": pairs,
        "rounds": ratios,
        "user_dropout": user_dropout,
        "step_s": {name: spread(values) for name, values in seconds.items()},
        "pairs_per_s": {
            name: pairs / statistics.median(values) for name, values in seconds.items()
        },
        "speed_ratio": {name: spread(values) for name, values in ratios.items()},
        "frozen_bytes": {name: bytes_of_base * (2 if name == "plain" else 1) for name in seconds},
        "loss_difference": loss_differences(config),
    }


def trained_stage_c() -> StageC:
    """The shipped base and adapter."""
    stage_c = load_stage_c(PRESET, MINI_WEIGHTS_DIR / "stage_c.safetensors").train()
    load_adapter(stage_c, PRESET, MINI_WEIGHTS_DIR / "adapter.safetensors")
    return stage_c


def training(pairs: int, user_dropout: float) -> DpoConfig:
    """A step's values."""
    return DpoConfig(
        preset="mini",
        data_dir=Path(),
        stage_c=Path(),
        output_dir=Path(),
        steps=1,
        batch=pairs,
        lr=LR,
        beta=BETA,
        user_dropout=user_dropout,
    )


def random_batch(pairs: int, seed: int = 0) -> PairBatch:
    """Normal latents, text and embeddings: what they hold changes no timing."""
    generator = torch.Generator().manual_seed(seed)
    width = PRESET.text_encoder["hidden_size"]
    shapes = (
        LATENT_CHW,
        LATENT_CHW,
        (TEXT_TOKENS, width),
        (1, width),
        (PRESET.user_emb_dim,),
    )
    return PairBatch(*(torch.randn((pairs, *shape), generator=generator) for shape in shapes))


def plain_step(config: DpoConfig) -> Step:
    """Two copies of the base."""
    policy = trained_stage_c()
    reference = copy.deepcopy(policy).requires_grad_(False)
    optimizer = torch.optim.AdamW(trainable_parameters(policy), lr=LR)

    def step(batch: PairBatch, turn: int) -> None:
        draws = draw(config.batch, LATENT_CHW, 0, turn, config)
        _step(optimizer, policy, plain_loss(policy, reference, batch, draws))

    return step


def plain_loss(policy: StageC, reference: StageC, batch: PairBatch, draws: Draws) -> Tensor:
    """Every row through both networks."""
    noise_RCHW = torch.cat([draws.noise_chosen_BCHW, draws.noise_rejected_BCHW])
    x0_RCHW = torch.cat([batch.chosen_BCHW, batch.rejected_BCHW])
    t_R = torch.cat([draws.t_chosen_B, draws.t_rejected_B])
    seen = (
        add_noise(x0_RCHW, noise_RCHW, t_R),
        t_R,
        batch.text_BST.repeat(2, 1, 1),
        batch.pooled_B1T.repeat(2, 1, 1),
    )
    user_RD = (batch.user_emb_BD * draws.keep_user_B[:, None]).repeat(2, 1)
    with torch.no_grad():
        base_R = squared_error(noise_RCHW, reference(*seen), "mean")
    own_R = squared_error(noise_RCHW, policy(*seen, user_RD), "mean")
    return ppd_loss(PairErrors(*own_R.chunk(2)), PairErrors(*base_R.chunk(2)), beta=BETA).loss


def live_step(config: DpoConfig, *, compile_blocks: bool) -> Step:
    """The trainer's own model."""
    model = PairModel(trained_stage_c(), compile_blocks=compile_blocks)
    optimizer = torch.optim.AdamW(trainable_parameters(model), lr=LR, fused=True)

    def step(batch: PairBatch, turn: int) -> None:
        draws = draw(config.batch, LATENT_CHW, 0, turn, config)
        _step(optimizer, model, shared_loss(model, batch, draws))

    return step


def cached_step(config: DpoConfig, batch: PairBatch) -> Step:
    """The trainer's own model, the reference's errors read by pair. The live step's users drop."""
    model = PairModel(trained_stage_c())
    optimizer = torch.optim.AdamW(trainable_parameters(model), lr=LR, fused=True)
    row_B = torch.arange(config.batch)
    errors = reference(model, batch, draw_of_pairs(row_B, 0, LATENT_CHW, 0, 0, config))
    error_RK2 = torch.stack([errors.chosen_B, errors.rejected_B], dim=1)[:, None]
    kept = ReferenceErrors(row_B, error_RK2, LATENT_CHW.numel(), "")

    def step(batch: PairBatch, turn: int) -> None:
        draws = draw_of_pairs(row_B, 0, LATENT_CHW, 0, turn, config)
        draws = replace(draws, keep_user_B=keep_user(config, turn))
        known = kept.of(row_B, 0, config.reduction)
        _step(optimizer, model, shared_loss(model, batch, draws, known))

    return step


@cache
def keep_user(config: DpoConfig, turn: int) -> Tensor:
    """Whose user the live step of that turn keeps."""
    return draw(config.batch, LATENT_CHW, 0, turn, config).keep_user_B


def reference(model: PairModel, batch: PairBatch, draws: Draws) -> PairErrors:
    """The base's errors."""
    return as_pairs(model.reference_errors(model.noised(batch, draws)))


def shared_loss(
    model: PairModel, batch: PairBatch, draws: Draws, known: PairErrors | None = None
) -> Tensor:
    """What train_dpo.py computes."""
    policy, of_base = model(batch, draws, known)
    return ppd_loss(policy, of_base, beta=BETA).loss


def _step(optimizer: torch.optim.Optimizer, model: nn.Module, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainable_parameters(model), CLIP_NORM)
    optimizer.step()


def loss_differences(config: DpoConfig, batches: int = 8) -> dict[str, dict[str, float]]:
    """How far losses are apart on the same weights and draws, over several batches."""
    found: dict[str, list[float]] = {}
    for seed in range(batches):
        batch = random_batch(config.batch, seed)
        draws = draw(config.batch, LATENT_CHW, seed, 0, config)
        for name, value in losses_apart(batch, draws).items():
            found.setdefault(name, []).append(value)
    return {name: spread(values) for name, values in found.items()}


@torch.no_grad()
def losses_apart(batch: PairBatch, draws: Draws) -> dict[str, float]:
    """The differences on one batch."""
    plain, shared = trained_stage_c(), PairModel(trained_stage_c())
    plain_32 = plain_loss(plain, plain, batch, draws)
    live_32 = shared_loss(shared, batch, draws)
    cached_32 = shared_loss(shared, batch, draws, reference(shared, batch, draws))
    use_fast_response_norm(plain.unet)
    same_norm_32 = plain_loss(plain, plain, batch, draws)

    wide = PairBatch(**{name: value.double() for name, value in vars(batch).items()})
    noises = ("noise_chosen_BCHW", "noise_rejected_BCHW", "keep_user_B")
    drawn = Draws(**(vars(draws) | {name: getattr(draws, name).double() for name in noises}))
    plain_wide, shared_wide = (nn.Module.to(trained_stage_c(), torch.float64) for _ in range(2))
    plain_64 = plain_loss(plain_wide, plain_wide, wide, drawn)
    live_64 = shared_loss(PairModel(shared_wide), wide, drawn)
    apart = {
        "plain and live, float64": plain_64 - live_64,
        "plain and live, float32": plain_32 - live_32,
        "plain and live, float32, same response norm": same_norm_32 - live_32,
        "live and cached, float32": live_32 - cached_32,
        "plain, float32 and float64": plain_32 - plain_64,
        "live, float32 and float64": live_32 - live_64,
    }
    return {name: abs(float(value)) for name, value in apart.items()}


def base_bytes(base: nn.Module) -> int:
    """Bytes of a base's weights."""
    return sum(p.numel() * p.element_size() for p in base.parameters())


if __name__ == "__main__":
    main()
