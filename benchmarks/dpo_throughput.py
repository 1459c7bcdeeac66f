"""Pairs a second and peak memory of training at a published size, with random weights.

    python -m benchmarks.dpo_throughput --model stable-cascade --device cuda [--pairs 8]
        [--checkpointing] [--rounds 7] [--out FILE.json]

A round is one micro-batch as `training.train_dpo` makes it: both passes of the shared base,
backward, clipping, AdamW on the float32 adapter. Latents are 24 x 24 (1024 px), the text is as wide
and as long as the published encoder's; what they hold changes no timing. Memory is what the
device's allocator held at most in these rounds; on the CPU, the process since it began.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.dpo_step import training
from benchmarks.models import MODELS, bench_preset, full_preset, random_stage_c
from benchmarks.rounds import report_of, show, spread, timed
from ppd_model.nets.adapter import trainable_parameters
from ppd_model.presets import Preset, get_preset
from training.data.dataset import PairBatch
from training.dpo.loss import ppd_loss
from training.dpo.pair_model import PairModel
from training.dpo.randomness import Draws, draw

LR, BETA, CLIP_NORM = 1e-5, 1000.0, 1.0


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="bench")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    given = vars(parser.parse_args(argv))
    out = given.pop("out")
    show(report_of(given, {"dpo": measure(**given)}), out)


def measure(
    model: str, device: str, pairs: int, checkpointing: bool, rounds: int
) -> dict[str, Any]:
    """Rounds of one micro-batch each, after one that is not counted."""
    preset = _preset(model)
    pair_model = PairModel(
        random_stage_c(preset, device).train(), gradient_checkpointing=checkpointing
    )
    batch, draws = random_pairs(preset, device, pairs)
    optimizer = torch.optim.AdamW(trainable_parameters(pair_model), lr=LR, fused=True)

    def step() -> None:
        policy, reference = pair_model(batch, draws)
        ppd_loss(policy, reference, beta=BETA).loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable_parameters(pair_model), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()

    timed(step)
    forget_peak(device)
    seconds = [timed(step) for _ in range(rounds)]
    return {
        "step_s": spread(seconds),
        "pairs_per_s": spread([pairs / s for s in seconds]),
        "peak_gib": peak_bytes(device) / 2**30,
        "adapter_parameters": sum(p.numel() for p in trainable_parameters(pair_model)),
        "base_parameters": sum(p.numel() for p in pair_model.stage_c.unet.parameters()),
    }


def random_pairs(preset: Preset, device: str, pairs: int) -> tuple[PairBatch, Draws]:
    """Normal latents, text and embeddings, and one draw of noise."""
    latent_hw = preset.latent_hw(preset.default_side_px, preset.default_side_px)
    latent_CHW = torch.Size((preset.latent_channels, *latent_hw))
    tokens = preset.text_encoder["max_position_embeddings"]
    width, pooled = preset.text_encoder["hidden_size"], preset.text_encoder["projection_dim"]
    shapes = (latent_CHW, latent_CHW, (tokens, width), (1, pooled), (preset.user_emb_dim,))
    generator = torch.Generator().manual_seed(0)
    made = (torch.randn((pairs, *shape), generator=generator).to(device) for shape in shapes)
    draws = draw(pairs, latent_CHW, 0, 0, training(pairs, user_dropout=0.0))
    return PairBatch(*made), Draws(**{k: v.to(device) for k, v in vars(draws).items()})


def forget_peak(device: str) -> None:
    """Building the network took memory too. A process's peak cannot be forgotten."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: str) -> int:
    """Of the device's allocator, or of the process since it began."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _preset(model: str) -> Preset:
    if model == "bench":
        return bench_preset()
    return get_preset("mini") if model == "mini" else full_preset(model)


if __name__ == "__main__":
    main()
