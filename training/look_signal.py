"""At which diffusion times a look can be learned: how much of Stage C's error it would explain.

    python -m training.look_signal --store_dir runs/mini/world --out DIR [--weights_dir DIR]

At a time t the base model's error r = noise - predicted noise has a part that follows a picture's
look: whoever knew the look could predict it. `explained` is the size of that part (the squared norm
of the covariance of r with the standardised look, per latent value), `error` the whole. A pair's
gradient carries the first and its noise the second, so their ratio says how much one draw at that
time teaches; the preference objective draws times with this in mind (docs/decisions/0004).

`directions` says how hard a look is to learn for another reason: in which direction of the latents
one standard deviation of it lies, and how far that is the same whatever is shown. A common
direction is one shift for all prompts; where contents have directions of their own, the adapter has
to learn each.

Legend: N pictures, L looks, K latent values (C * H * W), C H W latent, S contents.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ppd_model.nets.diffusion import add_noise, alpha_bar
from ppd_model.nets.stage_c import StageC, load_stage_c
from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.presets import get_preset
from training.jobs.command_line import run_job
from training.jobs.configuration import Configuration, git_commit, save_resolved
from training.jobs.files import write_json
from training.jobs.shared_options import Out, Seed
from training.precompute.frozen_parts import load_compressor, load_text
from training.world import captions
from training.world.scene import LOOKS, SETTINGS
from training.world.store import PictureStore

BATCH = 128


class StorePictures(Configuration):
    """Pictures of the world, as mini's base sees them."""

    weights_dir: Path = MINI_WEIGHTS_DIR
    """Folder of the base's weights."""
    store_dir: Path
    """Pictures of the world, which training.world.store painted."""
    out: Out
    pictures: int = 2048
    """How many of them."""
    seed: Seed = 0


class SignalConfig(StorePictures):
    """At which times it is measured."""

    times: tuple[float, ...] = (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
    """Diffusion times at which the error is taken."""


@dataclass(frozen=True)
class Shown:
    """Pictures of the store as Stage C sees them, and what is known of them.

    latent_NCHW; the captions' tokens (N x S x T) and pooled vector (N x 1 x T); look_NL; content_N.
    """

    latent_NCHW: Tensor
    text_NST: Tensor
    pooled_N1T: Tensor
    look_NL: Tensor
    content_N: NDArray[np.int64]


def measure(config: SignalConfig) -> dict[str, Any]:
    """Print one line for each time and write DIR/look_signal.json; returns what is in it."""
    save_resolved(config, config.out)
    stage_c = load_stage_c(get_preset("mini"), config.weights_dir / "stage_c.safetensors").eval()
    rng = np.random.default_rng([config.seed, 14])
    shown = show(config.store_dir, config.weights_dir, config.pictures, rng)
    generator = torch.Generator().manual_seed(config.seed)
    rows = []
    for time in config.times:
        error_NK = errors(stage_c, shown, time, generator)
        explained_L = explained_error(error_NK, shown.look_NL)
        explained = dict(zip(LOOKS, explained_L.tolist(), strict=True))
        error = float(error_NK.square().mean())
        ratio = float(explained_L.clamp(min=0).sum()) / error
        known = float(alpha_bar(torch.tensor([time])))
        rows.append(
            {"t": time, "alpha_bar": known, "error": error, "explained": explained, "ratio": ratio}
        )
        looks = " ".join(f"{name} {1e3 * value:.3f}" for name, value in explained.items())
        print(f"t {time:.2f} error {error:.4f} ratio {ratio:.3f} | 1e-3: {looks}", flush=True)
    shared = directions(shown.latent_NCHW.flatten(1), shown.look_NL, shown.content_N)
    for name, found in shared.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in found.items()))
    report = {
        "commit": git_commit(),
        "pictures": config.pictures,
        "times": rows,
        "directions": shared,
    }
    write_json(config.out / "look_signal.json", report)
    return report


def show(store_dir: Path, weights_dir: Path, pictures: int, rng: np.random.Generator) -> Shown:
    """So many of the store's pictures, drawn at random, each with a caption in random words."""
    preset, cpu = get_preset("mini"), torch.device("cpu")
    store = PictureStore(store_dir)
    rows_N = rng.choice(len(store), pictures, replace=False)
    compressor = load_compressor(preset, weights_dir, cpu)
    text_encoder, _ = load_text(preset, weights_dir, cpu)
    content_N = store.content[rows_N]
    words = [captions.caption(*divmod(int(content), len(SETTINGS)), rng) for content in content_N]
    latents, tokens, pooled = [], [], []
    for first in range(0, pictures, BATCH):
        part = slice(first, first + BATCH)
        latents.append(compressor.latents(np.asarray(store.pictures[rows_N[part]]), cpu).float())
        features = text_encoder.encode(words[part])
        tokens.append(features.tokens_BSD)
        pooled.append(features.pooled_B1D)
    return Shown(
        torch.cat(latents),
        torch.cat(tokens),
        torch.cat(pooled),
        torch.from_numpy(store.looks[rows_N]),
        content_N,
    )


def directions(
    latent_NK: Tensor, look_NL: Tensor, content_N: NDArray[np.int64], penalty: float = 2.0
) -> dict[str, dict[str, float]]:
    """For each look, by ridge regression within contents: the length of one standard deviation's
    shift of the latents, "common" to all contents and each content's "own" (mean), and the mean
    "cosine" between the two. Contents with fewer than twice as many pictures as looks are left out.

    Raises ValueError when that leaves none.
    """
    pairs = _within_contents(look_NL, latent_NK, content_N)
    common_LK = _common(pairs, penalty)
    own_SLK = torch.stack([shift(*pair, penalty) for pair in pairs])
    cosine_L = cosine_similarity(own_SLK, common_LK[None], dim=-1).mean(0)
    length_L = own_SLK.norm(dim=-1).mean(0)
    return {
        name: {
            "common": float(common_LK[look].norm()),
            "own": float(length_L[look]),
            "cosine": float(cosine_L[look]),
        }
        for look, name in enumerate(LOOKS[: look_NL.shape[1]])
    }


def common_directions(
    latent_NK: Tensor, look_NL: Tensor, content_N: NDArray[np.int64], penalty: float = 2.0
) -> Tensor:
    """The shift of the latents with one standard deviation of each look that all contents share,
    L x K, as in `directions`. Raises ValueError as it does."""
    return _common(_within_contents(look_NL, latent_NK, content_N), penalty)


def shift(look_NL: Tensor, value_NK: Tensor, penalty: float) -> Tensor:
    """How values follow each look, L x K: ridge regression of what is centred already."""
    gram_LL = look_NL.T @ look_NL + penalty * torch.eye(look_NL.shape[1])
    solved_LK: Tensor = torch.linalg.solve(gram_LL, look_NL.T @ value_NK)
    return solved_LK


def _common(pairs: Sequence[tuple[Tensor, Tensor]], penalty: float) -> Tensor:
    looks, latents = zip(*pairs, strict=True)
    return shift(torch.cat(looks), torch.cat(latents), penalty)


def _within_contents(
    look_NL: Tensor, latent_NK: Tensor, content_N: NDArray[np.int64]
) -> list[tuple[Tensor, Tensor]]:
    """Looks, in standard deviations, and latents of each content, less its means."""
    contents, counts = np.unique(content_N, return_counts=True)
    kept = contents[counts >= 2 * look_NL.shape[1]]
    if not len(kept):
        raise ValueError(f"{len(content_N)} pictures of {len(contents)} contents: too few of each")
    centred = []
    for content in kept:
        rows = torch.from_numpy(content_N == content)
        centred.append((look_NL[rows] - look_NL[rows].mean(0), latent_NK[rows].float()))
    std_L = torch.cat([looks for looks, _ in centred]).std(0)
    return [(looks / std_L, latents - latents.mean(0)) for looks, latents in centred]


@torch.no_grad()
def errors(
    stage_c: StageC,
    shown: Shown,
    time: float,
    generator: torch.Generator,
    user_emb_ND: Tensor | None = None,
) -> Tensor:
    """Noise minus the prediction of it, N x K, every picture at the same time: the base model's,
    or, with user embeddings, that of Stage C with its adapter."""
    parts = []
    for first in range(0, len(shown.latent_NCHW), BATCH):
        part = slice(first, first + BATCH)
        x0_BCHW = shown.latent_NCHW[part]
        noise_BCHW = torch.randn(x0_BCHW.shape, generator=generator)
        t_B = torch.full((len(x0_BCHW),), time)
        with stage_c.adapter.disabled() if user_emb_ND is None else nullcontext():
            predicted_BCHW = stage_c(
                add_noise(x0_BCHW, noise_BCHW, t_B),
                t_B,
                shown.text_NST[part],
                shown.pooled_N1T[part],
                None if user_emb_ND is None else user_emb_ND[part],
            )
        parts.append((noise_BCHW - predicted_BCHW).flatten(1))
    return torch.cat(parts)


def explained_error(error_NK: Tensor, look_NL: Tensor) -> Tensor:
    """Squared norm of the covariance of error and each look, divided by K; shape L.

    The covariances of two halves are multiplied, so that chance adds nothing on average (and may
    give a slightly negative number). Looks are standardised first.
    """
    look_NL = (look_NL - look_NL.mean(0)) / look_NL.std(0)
    half = len(error_NK) // 2
    first_LK = look_NL[:half].T @ error_NK[:half] / half
    second_LK = look_NL[half : 2 * half].T @ error_NK[half : 2 * half] / half
    return (first_LK * second_LK).mean(1)


if __name__ == "__main__":
    run_job(measure, SignalConfig, __doc__)
