"""Adapters that are trained side by side on the same batches, noises and times.

What does not depend on an adapter is computed once for all of them: the batch, its noise, the
text's keys and values, and what the frozen base predicts. Each adapter ends as
`python -m training.train_dpo` would leave it, and is checkpointed and exported by the same code.

A run whose `user` is "learned" has a vector for each known person in the adapter
(training/dpo/learned_people.py), which is exported beside it.

Legend: B pairs, R rows of the network, D embedding.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ppd_model.nets.adapter import Adapter, trainable_parameters
from ppd_model.nets.stage_c import build_adapter
from training.data.dataset import PreferencePairs, batch_rows
from training.dpo.dpo_config import DpoConfig
from training.dpo.learned_people import learned_people
from training.dpo.loss import nft_loss, ppd_loss, sft_loss
from training.dpo.pair_model import Noised, PairModel, as_pairs
from training.dpo.randomness import draw
from training.dpo.run_state import CHECKPOINT, RunState, identity_of
from training.dpo.time_weight import Omega
from training.jobs.configuration import save_resolved
from training.train_dpo import (
    ADAPTER,
    CENTRED,
    export,
    make_accelerator,
    make_model,
    split_rows,
    start,
)

SHARED = ("preset", "data_dir", "stage_c", "seed", "steps", "batch", "reduction", "init_adapter")
TIMES = ("shared_noise", "shared_timestep", "min_time", "max_time", "time_power", "snr_times")


@dataclass
class Run:
    """One adapter of those that are trained together."""

    config: DpoConfig
    pairs: PreferencePairs
    state: RunState
    identity: dict[str, Any]

    @property
    def done(self) -> bool:
        return (self.config.output_dir / ADAPTER).exists()


def train_together(
    wanted: Sequence[tuple[DpoConfig, PreferencePairs]], read_with: Mapping[str, Any] | None = None
) -> None:
    """Train every run that has no adapter yet, and export it; an interrupted one goes on.

    read_with: what the pairs' embeddings are made from, beside the data. Raises ValueError for runs
    that draw differently, and as `train_dpo` does.
    """
    first = wanted[0][0]
    check_alike([config for config, _ in wanted])
    accelerator = make_accelerator(first)
    model, base_sha256 = make_model(first, wanted[0][1], accelerator.device)
    runs, begin = [], []
    for config, pairs in wanted:
        adapter, known = fresh_adapter(model, config, pairs)
        optimizer = torch.optim.AdamW(
            trainable_parameters(adapter),
            lr=config.lr,
            weight_decay=config.weight_decay,
            fused=True,
        )
        average = {key: value.clone() for key, value in adapter.state_dict().items()}
        identity = identity_of(config, accelerator, base_sha256) | {"read with": read_with or {}}
        run = Run(config, known, RunState(adapter, optimizer, average, Omega("constant")), identity)
        resumed = (config.output_dir / CHECKPOINT).exists()
        begin.append(start(config, run.state, identity, resume=resumed))
        save_resolved(config, config.output_dir)
        runs.append(run)
    rows_R, _ = split_rows(wanted[0][1], first)
    began_s = time.monotonic()
    for step in range(min(begin), first.total_steps):
        under_way = [
            run for run, since in zip(runs, begin, strict=True) if since <= step and not run.done
        ]
        losses = take_step(model, under_way, rows_R, step)
        for run in under_way:
            if (step + 1) % run.config.checkpoint_every == 0 or step + 1 == first.total_steps:
                run.state.save(run.config.output_dir, step + 1, run.identity)
        if (step + 1) % first.log_every == 0:
            each_s = (time.monotonic() - began_s) / (step + 1 - min(begin))
            print(f"step {step + 1}/{first.total_steps}, {each_s:.1f} s each: {losses}", flush=True)
    for run in runs:
        if not run.done:
            export(run.config, run.state, run.pairs, run.identity, ADAPTER, run.config.total_steps)


def check_alike(configs: Sequence[DpoConfig]) -> None:
    """Raises ValueError where runs would not meet the same batches, noises and times."""
    first = configs[0]
    for config in configs:
        for key in (*SHARED, *TIMES, "validation_people"):
            if getattr(config, key) != getattr(first, key):
                raise ValueError(f"{config.output_dir} has another {key} than {first.output_dir}")
        if config.user_dropout or config.omega != "constant" or config.reference != "live":
            raise ValueError(f"{config.output_dir}: dropout, omega or a cached reference is asked")


def fresh_adapter(
    model: PairModel, config: DpoConfig, pairs: PreferencePairs
) -> tuple[Adapter, PreferencePairs]:
    """An adapter as `train_dpo` begins with, and the pairs with what it learns for people."""
    torch.manual_seed(config.seed)
    adapter = build_adapter(config.trained_preset, model.stage_c.unet)
    adapter.load_state_dict(model.stage_c.adapter.state_dict())
    adapter.projector.center_D.zero_()
    if config.centre_users and config.user in CENTRED:
        adapter.projector.center_on(pairs.user_emb_ED)
    if config.user == "learned":
        pairs = learned_people(adapter, pairs, config.seed)
    return adapter.train(), pairs


def take_step(model: PairModel, runs: Sequence[Run], rows_R: Tensor, step: int) -> dict[str, float]:
    """One optimiser step of every run on one batch; returns their losses."""
    config, pairs = runs[0].config, runs[0].pairs
    rows_B = batch_rows(rows_R, config.batch, step, config.seed)
    draws = draw(config.batch, pairs.latent_NCHW.shape[1:], config.seed, step, config)
    noised = model.noised(pairs.batch(rows_B, draws.which_embedding_B), draws)
    reference_RCHW = model.reference_noise(noised)
    losses = {}
    for run in runs:
        state = run.state
        model.stage_c.adapter = state.adapter
        for group in state.optimizer.param_groups:
            group["lr"] = run.config.lr_at(step)
        user_emb_BD = run.pairs.embeddings(rows_B, draws.which_embedding_B)
        state.optimizer.zero_grad()
        loss = loss_of(model, noised, reference_RCHW, user_emb_BD, run.config)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable_parameters(state.adapter), run.config.clip_norm)
        state.optimizer.step()
        state.update_average(run.config.ema_decay)
        losses[run.config.output_dir.name] = round(float(loss.detach()), 4)
    return losses


def loss_of(
    model: PairModel,
    noised: Noised,
    reference_RCHW: Tensor,
    user_emb_BD: Tensor,
    config: DpoConfig,
) -> Tensor:
    """The run's own loss of the adapter in place, as dpo/objectives.py has it."""
    if config.objective == "sft":
        chosen = noised.chosen()
        return sft_loss(model.policy_errors(chosen, user_emb_BD)).loss
    policy_RCHW = model.policy_noise(noised, user_emb_BD)
    policy = as_pairs(model.errors(noised, policy_RCHW))
    if config.objective == "nft":
        opposite = as_pairs(model.errors(noised, 2 * reference_RCHW - policy_RCHW))
        return nft_loss(policy.chosen_B, opposite.rejected_B)
    reference = as_pairs(model.errors(noised, reference_RCHW))
    return ppd_loss(policy, reference, beta=config.beta, timesteps=config.timesteps).loss
