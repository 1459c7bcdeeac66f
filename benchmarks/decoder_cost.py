"""What a picture of `mini` takes to decode, against Paella's decoder and Stage B in six steps.

    python -m benchmarks.decoder_cost [--rows 8] [--rounds 9] [--threads 1] [--out FILE.json]

Both sides decode the same Stage C latents in one process, in alternation; weights are random, which
changes no timing. Seconds are the processor's: on a machine that is busy with other work those of
the wall mean nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.rounds import in_turn, over, report_of, show, spread
from ppd_model.nets.decoder import Decoder, build_decoder
from ppd_model.nets.response_norm import use_fast_response_norm
from ppd_model.presets import get_preset

PAELLA_STEPS = 6


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    rows = {str(rows): compare(rows, given.rounds) for rows in given.rows}
    show(report_of({"rounds": given.rounds, "threads": given.threads}, rows), given.out)


@torch.no_grad()
def compare(rows: int, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds a picture of both sides, and the ratio in each round, after one not counted."""
    sides = {"mini": mini(), "paella, six steps": paella()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    latent_BCHW = torch.randn(rows, 16, 8, 8)
    for turn in range(rounds + 1):
        for name in in_turn(sides, turn):
            elapsed_s = decode_s(sides[name], latent_BCHW) / rows
            if turn:
                seconds[name].append(elapsed_s)
    ratio = over(seconds["mini"], seconds["paella, six steps"])
    return {name: spread(values) for name, values in seconds.items()} | {"ratio": spread(ratio)}


def mini() -> Decoder:
    """As the preset has it."""
    return ready(build_decoder(get_preset("mini")))


def paella() -> Decoder:
    """With the published kind of Stage A."""
    preset = get_preset("mini")
    own = ("decoder_channels", "decoder_blocks")
    stage_a = {name: value for name, value in preset.stage_a.items() if name not in own}
    return ready(build_decoder(replace(preset, stage_a=stage_a, stage_b_steps=PAELLA_STEPS)))


def ready(decoder: Decoder) -> Decoder:
    """As the pipeline uses it."""
    use_fast_response_norm(decoder.stage_b)
    return decoder


def decode_s(decoder: Decoder, latent_BCHW: torch.Tensor) -> float:
    """The processor's seconds for all rows."""
    generators = [torch.Generator().manual_seed(row) for row in range(len(latent_BCHW))]
    width = decoder.preset.stage_b["clip_text_pooled_in_channels"]
    no_text_B1D = torch.zeros(len(latent_BCHW), 1, width)
    started_s = time.process_time()
    decoder(latent_BCHW, no_text_B1D, generators)
    return time.process_time() - started_s


if __name__ == "__main__":
    main()
