"""What is measured on the people who are held out, under the same noise each time.

Legend: B pairs, R rows of the data, N numbers, D embedding."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor

from training.data.dataset import PreferencePairs
from training.dpo.dpo_config import DpoConfig
from training.dpo.loss import error_dtype, sft_loss
from training.dpo.objectives import BESIDE, margin, preference
from training.dpo.pair_model import PairModel, as_pairs
from training.dpo.randomness import draw
from training.dpo.time_weight import Omega


@torch.no_grad()
def validate(
    accelerator: Accelerator,
    model: PairModel,
    omega: Omega,
    pairs: PreferencePairs,
    rows_R: Tensor,
    config: DpoConfig,
) -> dict[str, float]:
    """Loss, implicit accuracy and gains on held-out pairs, under the same draws each time.

    "swapped" gives every pair the embedding of another row's person: what the adapter does for
    everyone alike moves it as well, what it does for this person alone does not. The processes
    share the rows; all return the same.
    """
    still = config.model_copy(update={"user_dropout": 0.0})
    emb_RD = pairs.batch(rows_R, torch.zeros(len(rows_R))).user_emb_BD.roll(len(rows_R) // 2, 0)
    size = config.micro_batch or config.batch // accelerator.num_processes
    # The same in every process, whether or not it has a piece.
    names = ["loss", "accuracy", "margin", "chosen_gain", "rejected_gain"]
    names += ["swapped_accuracy"] if config.user != "none" else []
    sums = {name: torch.zeros((), device=accelerator.device) for name in names}
    pieces = [
        (begin, slice(offset, min(offset + size, begin + config.batch, len(rows_R))))
        for begin in range(0, len(rows_R), config.batch)
        for offset in range(begin, min(begin + config.batch, len(rows_R)), size)
    ]
    for begin, piece in pieces[accelerator.process_index :: accelerator.num_processes]:
        rows_B = rows_R[begin : begin + config.batch]
        whole = draw(len(rows_B), pairs.latent_NCHW.shape[1:], config.seed + 1, begin, still)
        draws = whole.rows(slice(piece.start - begin, piece.stop - begin))
        batch = pairs.batch(rows_R[piece], draws.which_embedding_B).to(accelerator.device)
        draws = draws.to(accelerator.device)
        noised = model.noised(batch, draws)
        beside_B = None
        if config.objective in BESIDE:
            policy, reference, beside_B = model.errors_and(
                BESIDE[config.objective], noised, batch.user_emb_BD
            )
        else:
            reference = as_pairs(model.reference_errors(noised))
            policy = as_pairs(model.policy_errors(noised, batch.user_emb_BD))
        own = preference(policy, reference, draws, omega, still, beside_B)
        numbers = {
            "loss": own.loss,
            "accuracy": own.implicit_accuracy,
            "margin": own.margin,
            "chosen_gain": own.chosen_gain,
            "rejected_gain": own.rejected_gain,
        }
        if config.objective == "sft":
            numbers["loss"] = sft_loss(policy.chosen_B, omega(draws.t_chosen_B)).loss
        if config.objective == "mapo":
            numbers["loss"] = margin(policy, still).loss
        if config.user != "none":
            swapped_BD = emb_RD[piece].to(accelerator.device)
            swapped = as_pairs(model.policy_errors(noised, swapped_BD))
            other = preference(swapped, reference, draws, omega, still)
            numbers["swapped_accuracy"] = other.implicit_accuracy
        weight = (piece.stop - piece.start) / len(rows_R)
        for name, value in numbers.items():
            sums[name] = sums[name] + weight * value
    dtype = error_dtype(accelerator.device)
    total_N = accelerator.reduce(
        torch.stack([value.to(dtype) for value in sums.values()]), reduction="sum"
    )
    return {f"validation_{name}": value for name, value in zip(sums, total_N.tolist(), strict=True)}
