"""One training step: this project's shared base against a plain loop with two copies of the base.

    python benchmarks/dpo_step.py [--pairs 64] [--rounds 7] [--threads 1] [--out FILE.json]

The plain loop is what public Diffusion-DPO code does, on the same classes, weights and draws:
policy and reference are two networks, each gets chosen and rejected pictures in one batch, and
every row goes through both. It is as careful as it is simple: the base takes no gradient, the
reference runs without autograd. Both sides alternate within one process, and every round is a
whole step: both passes, backward, clipping, AdamW.

Prints medians and spread, bytes of frozen weights held, the ratio, and how far the losses are
apart: in float64, where only a difference in the mathematics could show, and in float32, where
beta * T = 500 magnifies rounding. Weights: the shipped `mini`; pictures and text are random.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ppd_model.adapter import trainable_parameters
from ppd_model.diffusion import add_noise
from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.presets import get_preset
from ppd_model.stage_c import StageC, load_adapter, load_stage_c
from training.configuration import git_commit
from training.dataset import PairBatch
from training.dpo_config import DpoConfig
from training.draws import Draws, draw
from training.loss import PairErrors, ppd_loss, squared_error
from training.pair_model import PairModel

BETA, LR, CLIP_NORM = 0.5, 1e-5, 1.0
TEXT_TOKENS, LATENT_CHW = 24, torch.Size((16, 8, 8))
PRESET = get_preset("mini")


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--user-dropout", type=float, default=0.1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    report = compare(given.pairs, given.rounds, given.user_dropout)
    report |= {
        "threads": given.threads,
        "torch": str(torch.__version__),
        "machine": platform.processor() or platform.machine(),
        "commit": git_commit(),
    }
    text = json.dumps(report, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")


def compare(pairs: int, rounds: int, user_dropout: float) -> dict[str, Any]:
    """Both sides in alternation, after one step each that is not counted."""
    batch, draws = random_batch(pairs, user_dropout)
    plain, shared = plain_step(), shared_step()
    seconds: dict[str, list[float]] = {"plain": [], "shared": []}
    for turn in range(rounds + 1):
        for name, step in (("plain", plain), ("shared", shared)):
            started_s = time.perf_counter()
            step(batch, draws)
            if turn:
                seconds[name].append(time.perf_counter() - started_s)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = [a / b for a, b in zip(seconds["plain"], seconds["shared"], strict=True)]
    bytes_of_base = base_bytes(trained_stage_c().unet)
    return {
        "pairs": pairs,
        "rounds": rounds,
        "user_dropout": user_dropout,
        "step_s": {
            name: {"median": medians[name], "least": min(values), "most": max(values)}
            for name, values in seconds.items()
        },
        "pairs_per_s": {name: pairs / value for name, value in medians.items()},
        "speed_ratio": {
            "median": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
        },
        "frozen_bytes": {"plain": 2 * bytes_of_base, "shared": bytes_of_base},
        "loss_difference": {
            "float64": loss_difference(torch.float64, batch, draws),
            "float32": loss_difference(torch.float32, batch, draws),
        },
    }


def trained_stage_c() -> StageC:
    """The shipped base and adapter."""
    stage_c = load_stage_c(PRESET, MINI_WEIGHTS_DIR / "stage_c.safetensors").train()
    load_adapter(stage_c, PRESET, MINI_WEIGHTS_DIR / "adapter.safetensors")
    return stage_c


def random_batch(pairs: int, user_dropout: float) -> tuple[PairBatch, Draws]:
    """Normal latents, text and embeddings: what they hold changes no timing."""
    config = DpoConfig(
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
    generator = torch.Generator().manual_seed(0)
    width = PRESET.text_encoder["hidden_size"]
    shapes = (
        LATENT_CHW,
        LATENT_CHW,
        (TEXT_TOKENS, width),
        (1, width),
        (PRESET.user_emb_dim,),
    )
    batch = PairBatch(*(torch.randn((pairs, *shape), generator=generator) for shape in shapes))
    return batch, draw(pairs, LATENT_CHW, 0, 0, config)


def plain_step() -> Callable[[PairBatch, Draws], None]:
    """Two copies of the base."""
    policy = trained_stage_c()
    reference = copy.deepcopy(policy).requires_grad_(False)
    optimizer = torch.optim.AdamW(trainable_parameters(policy), lr=LR)
    return lambda batch, draws: _step(
        optimizer, policy, lambda: plain_loss(policy, reference, batch, draws)
    )


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


def shared_step() -> Callable[[PairBatch, Draws], None]:
    """The trainer's own model."""
    model = PairModel(trained_stage_c())
    optimizer = torch.optim.AdamW(trainable_parameters(model), lr=LR, fused=True)
    return lambda batch, draws: _step(optimizer, model, lambda: shared_loss(model, batch, draws))


def shared_loss(model: PairModel, batch: PairBatch, draws: Draws) -> Tensor:
    """What train_dpo.py computes."""
    policy, reference = model(batch, draws)
    return ppd_loss(policy, reference, beta=BETA).loss


def _step(optimizer: torch.optim.Optimizer, model: nn.Module, loss: Callable[[], Tensor]) -> None:
    optimizer.zero_grad()
    loss().backward()
    torch.nn.utils.clip_grad_norm_(trainable_parameters(model), CLIP_NORM)
    optimizer.step()


@torch.no_grad()
def loss_difference(dtype: torch.dtype, batch: PairBatch, draws: Draws) -> float:
    """How far apart the two sides' losses are on the same weights and draws."""
    cast = {name: value.to(dtype) for name, value in vars(batch).items()}
    noises = ("noise_chosen_BCHW", "noise_rejected_BCHW", "keep_user_B")
    drawn = vars(draws) | {name: getattr(draws, name).to(dtype) for name in noises}
    batch, draws = PairBatch(**cast), Draws(**drawn)
    plain, shared = (nn.Module.to(trained_stage_c(), dtype) for _ in range(2))
    expected = plain_loss(plain, copy.deepcopy(plain), batch, draws)
    return abs(float(expected - shared_loss(PairModel(shared), batch, draws)))


def base_bytes(base: nn.Module) -> int:
    """Bytes of a base's weights."""
    return sum(p.numel() * p.element_size() for p in base.parameters())


if __name__ == "__main__":
    main()
