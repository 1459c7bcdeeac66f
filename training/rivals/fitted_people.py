"""Premier's way: a new person is a combination of known people's learned vectors.

Premier (arXiv 2603.20725) learns a vector for each known person with the network, and of somebody
new only the weights of a combination of them. Here the weights are of the vectors' principal
directions, which span the same combinations, and follow the training's own loss on the four
answered pairs, the adapter frozen. They start at the mean person; all are scaled alike at the end,
to be as spread as known people's are.

Legend: U people, 4 answers, D embedding, R principal directions, B pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from ppd_model.nets.stage_c import read_adapter
from training.data.dataset import PairBatch
from training.dpo.dpo_config import DpoConfig
from training.dpo.learned_people import PEOPLE, PEOPLE_FILE
from training.dpo.pair_model import PairModel
from training.dpo.randomness import draw
from training.precompute.frozen_parts import load_compressor, load_text
from training.quiz.quizzes import Person
from training.rivals.together import loss_of

DIRECTIONS, STEPS, STEP_SIZE = 16, 8, 0.25
PEOPLE_AT_A_TIME = 24


def fit_people(
    people: Sequence[Person],
    training: DpoConfig,
    model: PairModel,
    weights_dir: Path | None,
) -> NDArray[np.float32]:
    """Everybody's vector, U x D. `model` gets the adapter of that training."""
    folder = training.output_dir
    adapter, _ = read_adapter(
        model.stage_c, training.trained_preset, folder / "adapter.safetensors"
    )
    model.stage_c.adapter = adapter.requires_grad_(False)
    known_UD = load_file(folder / PEOPLE_FILE)[PEOPLE]
    mean_D = known_UD.mean(0)
    _, spread_R, direction_RD = torch.linalg.svd(known_UD - mean_D, full_matrices=False)
    scaled_RD = (spread_R[:, None] * direction_RD)[:DIRECTIONS] / len(known_UD) ** 0.5
    answered = answered_pairs(people, training, weights_dir, known_UD.shape[1])
    weight_UR = fit_weights(model, training, answered, mean_D, scaled_RD)
    fitted_UD: NDArray[np.float32] = (mean_D + weight_UR @ scaled_RD).numpy()
    return fitted_UD


def fit_weights(
    model: PairModel, training: DpoConfig, answered: PairBatch, mean_D: Tensor, scaled_RD: Tensor
) -> Tensor:
    """The weights of everybody whose four answers these are, U x R, of mean square 1."""
    count = len(answered.chosen_BCHW) // 4
    weight_UR = torch.zeros(count, len(scaled_RD))
    for step in tqdm(range(STEPS), desc="weights of known people", mininterval=5):
        gradient_UR = torch.cat(
            [
                gradient(model, training, answered, weight_UR, mean_D, scaled_RD, part, step)
                for part in torch.arange(count).split(PEOPLE_AT_A_TIME)
            ]
        )
        weight_UR -= STEP_SIZE * gradient_UR / gradient_UR.square().mean().sqrt()
    return weight_UR / weight_UR.square().mean().sqrt()


def gradient(
    model: PairModel,
    training: DpoConfig,
    answered: PairBatch,
    weight_UR: Tensor,
    mean_D: Tensor,
    scaled_RD: Tensor,
    part: Tensor,
    step: int,
) -> Tensor:
    """Of the loss of these people's answers, by their weights; under new noise each step."""
    rows_B = (4 * part[:, None] + torch.arange(4)).flatten()
    batch = answered.rows(rows_B)
    latent_CHW = batch.chosen_BCHW.shape[1:]
    draws = draw(len(rows_B), latent_CHW, training.seed + 7, step * 10_000 + int(part[0]), training)
    noised = model.noised(batch, draws)
    weight_KR = weight_UR[part].clone().requires_grad_()
    embedding_BD = (mean_D + weight_KR @ scaled_RD).repeat_interleave(4, 0)
    loss = loss_of(model, noised, model.reference_noise(noised), embedding_BD, training)
    (found_KR,) = torch.autograd.grad(loss * len(part), weight_KR)
    return found_KR


def answered_pairs(
    people: Sequence[Person], training: DpoConfig, weights_dir: Path | None, width: int
) -> PairBatch:
    """Everybody's four answers as training meets pairs, 4 U of them."""
    device = torch.device("cpu")
    compressor = load_compressor(training.trained_preset, weights_dir, device)
    encoder, _ = load_text(training.trained_preset, weights_dir, device)
    choices = [choice for person in people for choice in person.choices]

    def latents(chosen: bool) -> Tensor:
        shown = [
            choice.image_1 if (choice.preferred == 1) == chosen else choice.image_0
            for choice in choices
        ]
        pixels = np.stack([np.asarray(image.convert("RGB")) for image in shown])
        return compressor.latents(pixels, device).float()

    text = encoder.encode([choice.caption for choice in choices])
    return PairBatch(
        chosen_BCHW=latents(True),
        rejected_BCHW=latents(False),
        text_BST=text.tokens_BSD.float(),
        pooled_B1T=text.pooled_B1D.float(),
        user_emb_BD=torch.zeros(len(choices), width),
    )
