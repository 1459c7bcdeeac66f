"""The step-time curve t(n): measured here, or estimated for a device that is not at hand.

    python -m benchmarks.step_curve --model mini [--device cpu] [--out FILE.json]
    python -m benchmarks.step_curve --model stable-cascade --estimate h100 [--out FILE.json]

Measured is what the engine measures at its start. An estimate is a roofline: the operations of one
row, counted on a network without weights, at a part of the device's peak, and at least the time to
read all weights once; the same for decoding. It says what to expect before there is a device, and
no more: every such number is to be replaced by a measured one. `benchmarks.simulate --curve-file`
takes either.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.models import MODELS, PUBLISHED, full_preset, pipeline_of
from ppd_model.engine.engine import Engine
from ppd_model.nets.decoder import build_decoder
from ppd_model.nets.stage_c import build_stage_c
from ppd_model.presets import Preset

ROWS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Peak:
    """A data sheet, dense bfloat16, and the parts of it that a network is taken to get."""

    flop_per_s: float
    bytes_per_s: float
    compute_part: float = 0.4
    memory_part: float = 0.8


DEVICES = {"h100": Peak(989e12, 3.35e12)}
"""NVIDIA H100 SXM data sheet."""


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, default="mini")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--estimate", choices=DEVICES)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    if given.estimate is None:
        report = measured(given.model, given.device, given.threads)
    elif given.model in PUBLISHED:
        report = estimated(full_preset(given.model), DEVICES[given.estimate])
    else:
        parser.error(f"--estimate is for {', '.join(PUBLISHED)}: {given.model} runs here")
    text = json.dumps(report, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n")


def measured(model: str, device: str, threads: int) -> dict[str, Any]:
    """What the engine measures at its start."""
    with Engine(pipeline_of(model, device), threads=threads) as engine:
        engine.wait_until_ready()
        return {"model": model, "device": device, "step_s": engine.snapshot()["step_s"]}


def estimated(preset: Preset, peak: Peak) -> dict[str, Any]:
    """A roofline of `ROWS`."""
    flop, weight_bytes = cost_of_a_row(preset)
    decode_flop = cost_of_decoding(preset)
    least_s = weight_bytes / (peak.bytes_per_s * peak.memory_part)
    row_s = flop / (peak.flop_per_s * peak.compute_part)
    shape = "x".join(map(str, _shape(preset)))
    return {
        "model": preset.name,
        "estimate": vars(peak),
        "flop_of_a_row": flop,
        "bytes_of_weights": weight_bytes,
        "flop_of_decoding": decode_flop,
        "step_s": {shape: {rows: max(least_s, rows * row_s) for rows in ROWS}},
        "decode_s": decode_flop / (peak.flop_per_s * peak.compute_part),
    }


def cost_of_a_row(preset: Preset) -> tuple[int, int]:
    """Operations of one row of a personalised step, keys and values kept, and bytes of weights."""
    with torch.device("meta"):
        stage_c = build_stage_c(preset)
        tokens = preset.text_encoder["max_position_embeddings"]
        text_1SD = torch.empty(1, tokens, preset.text_encoder["hidden_size"])
        pooled_11D = torch.empty(1, 1, preset.text_encoder["projection_dim"])
        user_1D = torch.empty(1, preset.user_emb_dim)
        attended = stage_c.attend(text_1SD, pooled_11D, user_1D, torch.ones(1), precompute=True)
        x_1CHW, t_1 = torch.empty(1, *_shape(preset)), torch.ones(1)
        with FlopCounterMode(display=False) as counter:
            stage_c.predict_noise(x_1CHW, t_1, attended)
    weights = sum(weight.numel() for weight in stage_c.unet.parameters())
    return counter.get_total_flops(), weights * torch.bfloat16.itemsize


def cost_of_decoding(preset: Preset) -> int:
    """Operations of all steps of Stage B and of Stage A, for one picture."""
    with torch.device("meta"):
        decoder = build_decoder(preset)
        latent_1CHW = torch.empty(1, *_shape(preset))
        x_1CHW = torch.empty(1, preset.stage_b["in_channels"], *decoder.stage_a_hw(latent_1CHW))
        pooled_11D = torch.empty(1, 1, preset.stage_b["clip_text_pooled_in_channels"])
        with FlopCounterMode(display=False) as step:
            decoder.stage_b(
                sample=x_1CHW,
                timestep_ratio=torch.ones(1),
                clip_text_pooled=pooled_11D,
                effnet=latent_1CHW,
            )
        with FlopCounterMode(display=False) as pixels:
            decoder.to_pixels(x_1CHW)
    return preset.stage_b_steps * step.get_total_flops() + pixels.get_total_flops()


def _shape(preset: Preset) -> tuple[int, int, int]:
    side_px = preset.default_side_px
    return (preset.latent_channels, *preset.latent_hw(side_px, side_px))


if __name__ == "__main__":
    main()
