"""What reading and drawing a step's data adds to a training step, and what is left of it ahead.

    python -m benchmarks.step_data --config training/configs/mini_dpo.yaml [--stage_c FILE]
        [--data_dir FOLDER] [--batch 96] [--rounds 7] [--steps 6] [--out FILE.json]
    python -m benchmarks.step_data --published [--batch 768] [--rounds 7]

Steps are those of `training.train_dpo`, its own functions on its own data. Three sides take turns
in one process, in blocks of so many steps: "held" takes data that lie in memory already; "ahead"
has each step's data prepared by a thread while the one before is computed, as the trainer does;
"in turn" prepares and then computes. A block's first step, whose data nobody could prepare ahead,
is not counted; a run has one. `prepare_s` is what the data of a step take alone.

Prints medians and spread, and ratios within rounds: by the wall, and in seconds of the processor,
of all threads together, which other programs on the machine do not change, and which count the
data's work even where it is done beside a step.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.dpo_step import training
from benchmarks.rounds import Goal, in_turn, over, report_of, show, spread, summary, timed
from ppd_model.presets import get_preset
from training.data.dataset import PreferencePairs
from training.data.shards import ShardedRows
from training.dpo.dpo_config import DpoConfig
from training.dpo.run_state import RunState
from training.dpo.time_weight import Omega
from training.jobs.ahead import done_ahead
from training.jobs.configuration import read_configuration
from training.train_dpo import (
    Prepared,
    make_accelerator,
    make_model,
    make_optimizer,
    micro_batches,
    optimizer_step,
    prepare,
    read_pairs,
    split_rows,
)

GOALS = [Goal(f"ahead / held, {kind}", 1.05, at_most=True) for kind in ("wall", "processor")]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path)
    parser.add_argument("--published", action="store_true")
    for option in ("--stage_c", "--data_dir"):
        parser.add_argument(option, type=Path, help="in the place of the configuration's")
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6, help="of a block, which are counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    options = {"batch": given.batch, "steps": given.steps, "threads": given.threads}
    if given.published:
        with tempfile.TemporaryDirectory() as folder:
            rows = {"data_s, processor": spread(published(Path(folder), given.batch, given.rounds))}
        show(report_of(options, rows), given.out)
        return
    changes: dict[str, Any] = {"batch": given.batch, "trackers": (), "output_dir": Path("unused")}
    changes |= {k: getattr(given, k) for k in ("stage_c", "data_dir") if getattr(given, k)}
    config = read_configuration(DpoConfig, given.config, changes)
    rows = measure(config, given.rounds, given.steps)
    show(report_of(options, rows), given.out)


def published(folder: Path, batch: int, rounds: int) -> list[float]:
    """Seconds of the processor that the data of a step take, 16 pairs at a time, in each round."""
    preset = get_preset("stable-cascade-1b")
    text = preset.text_encoder
    latent = (preset.latent_channels, *preset.latent_hw(*[preset.default_side_px] * 2))
    tensors = {
        "latent_NCHW": (2 * batch, *latent),
        "text_KST": (batch, text["max_position_embeddings"], text["hidden_size"]),
        "pooled_K1T": (batch, 1, text["projection_dim"]),
    }
    for name, shape in tensors.items():
        save_file({name: torch.randn(shape).half()}, folder / name)
    numbers_B = torch.arange(batch)
    pairs = PreferencePairs(
        **{name: ShardedRows([folder / name], name) for name in tensors},
        user_emb_ED=torch.randn(batch, preset.user_emb_dim),
        first_embedding_U=numbers_B,
        embeddings_U=torch.ones_like(numbers_B),
        unseen_U=torch.zeros_like(numbers_B),
        place_U=numbers_B,
        person_P=numbers_B,
        split_P=torch.zeros_like(numbers_B),
        sets_P=torch.ones_like(numbers_B),
        chosen_P=2 * numbers_B,
        rejected_P=2 * numbers_B + 1,
        caption_P=numbers_B,
        provenance={},
    )
    parts = [slice(first, first + 16) for first in range(0, batch, 16)]
    seconds = []
    for step in range(rounds + 1):
        began_s = time.process_time()
        prepare(pairs, numbers_B, parts, step, training(batch, user_dropout=0.1))
        seconds.append(time.process_time() - began_s)
    return seconds[1:]


def measure(config: DpoConfig, rounds: int, steps: int) -> dict[str, Any]:
    """All sides in turn, after a round that is not counted."""
    accelerator = make_accelerator(config)
    pairs = read_pairs(config)
    train_rows, _ = split_rows(pairs, config)
    parts = list(micro_batches(accelerator, config))
    model, _ = make_model(config, pairs, accelerator.device)
    adapter = model.stage_c.adapter
    state = RunState(adapter, make_optimizer(config, model), {}, Omega(config.omega))
    wrapped, state.optimizer = accelerator.prepare(model, state.optimizer)

    def prepared(step: int) -> Prepared:
        return prepare(pairs, train_rows, parts, step, config)

    def block(data_of: Iterable[Prepared], first: int) -> tuple[float, float]:
        """Seconds of a step, its data included: by the wall and of the processor."""
        came = iter(data_of)

        def take(step: int) -> None:
            optimizer_step(accelerator, wrapped, state, next(came), step, config)

        take(first)
        began_s = time.process_time()
        wall_s = sum(timed(partial(take, first + number)) for number in range(1, steps + 1))
        return wall_s / steps, (time.process_time() - began_s) / steps

    held = [prepared(step) for step in range(steps + 1)]
    sides: dict[str, Callable[[range], Iterator[Prepared]]] = {
        "held": lambda _: iter(held),
        "ahead": lambda own: done_ahead(prepared, own, workers=1, ahead=1),
        "in turn": lambda own: map(prepared, own),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    alone: list[float] = []
    for turn in range(rounds + 1):
        first = turn * (steps + 1)
        for name in in_turn(sides, turn):
            each_s = block(sides[name](range(first, first + steps + 1)), first)
            if turn:
                seconds[name].append(each_s)
        began_s = time.process_time()
        prepared(first)
        alone.append(time.process_time() - began_s)
    by = {
        kind: {name: [each[column] for each in values] for name, values in seconds.items()}
        for column, kind in enumerate(("wall", "processor"))
    }
    ratios = {
        f"{name} / held, {kind}": over(of[name], of["held"])
        for kind, of in by.items()
        for name in ("ahead", "in turn")
    }
    return {
        "step_s": {
            kind: {name: spread(values) for name, values in of.items()} for kind, of in by.items()
        },
        "prepare_s, processor": spread(alone),
        **summary(ratios, GOALS),
    }


if __name__ == "__main__":
    main()
