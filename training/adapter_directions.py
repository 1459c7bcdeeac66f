"""Where an adapter moves the latents for a unit of taste, and where the look itself lies.

    python -m training.adapter_directions --store_dir runs/mini/world --data runs/mini/precompute \\
        --adapters '["runs/mini/adapter/adapter.safetensors"]' --out DIR

Noised pictures of the world get people of the data, one each. What the adapter adds to the
predicted picture (in terms of noise: the base's prediction minus the personalised one), regressed
on those people's hidden tastes, is its direction for each look; the direction of the look is how
latents follow it whatever is shown (training.look_signal). `cosine` compares the two. `in_span` is
the share of what is added that lies in the span of all looks' directions: the rest is no way in
which painted pictures vary with a look. How far looks move, only pictures tell (training.evaluate).

Legend: N pictures, L looks, K latent values (C * H * W), D embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from ppd_model.nets.stage_c import load_stage_c, read_adapter
from ppd_model.presets import get_preset
from training.data.dataset import load_pairs
from training.jobs.command_line import run_job
from training.jobs.configuration import git_commit, save_resolved
from training.jobs.files import write_json
from training.jobs.shared_options import Threads
from training.look_signal import StorePictures, common_directions, errors, shift, show
from training.world.scene import LOOKS

PENALTY = 1.0


class DirectionsConfig(StorePictures):
    """Which adapters are compared, on how many of the store's pictures, at which time."""

    data: Path
    """Folder of training.precompute with people of the world and their tastes."""
    adapters: tuple[Path, ...]
    """The adapter files."""
    pictures: int = 4096
    """How many of the store's pictures."""
    time: float = 0.8
    """The diffusion time."""
    threads: Threads = 2


def measure(config: DirectionsConfig) -> dict[str, Any]:
    """Print a line for each adapter and look, write DIR/adapter_directions.json, return it."""
    torch.set_num_threads(config.threads)
    save_resolved(config, config.out)
    preset = get_preset("mini")
    stage_c = load_stage_c(preset, config.weights_dir / "stage_c.safetensors").eval()
    rng = np.random.default_rng([config.seed, 15])
    shown = show(config.store_dir, config.weights_dir, config.pictures, rng)
    read = load_pairs(config.data, "vlm", preset.user_emb_dim)
    taste_EL = load_pairs(config.data, "taste", preset.user_emb_dim).user_emb_ED[:, : len(LOOKS)]
    person_N = torch.from_numpy(rng.integers(len(taste_EL), size=config.pictures))
    user_emb_ND, taste_NL = read.user_emb_ED[person_N], taste_EL[person_N]

    def errors_of(user_emb_ND: Tensor | None) -> Tensor:
        """Under the same noise each time."""
        generator = torch.Generator().manual_seed(config.seed)
        return errors(stage_c, shown, config.time, generator, user_emb_ND)

    base_NK = errors_of(None)
    look_LK = common_directions(shown.latent_NCHW.flatten(1), shown.look_NL, shown.content_N)
    found = {}
    for path in config.adapters:
        stage_c.adapter, _ = read_adapter(
            stage_c, preset, path, encoder_id=read.provenance["encoder_id"]
        )
        found[str(path)] = compare(errors_of(user_emb_ND) - base_NK, taste_NL, look_LK)
    for name, looks in found.items():
        for look, numbers in looks.items():
            print(f"{name} {look}: " + ", ".join(f"{k} {v:.2f}" for k, v in numbers.items()))
    report = {
        "commit": git_commit(),
        "pictures": config.pictures,
        "time": config.time,
        "adapters": found,
    }
    write_json(config.out / "adapter_directions.json", report)
    return report


def compare(added_NK: Tensor, taste_NL: Tensor, look_LK: Tensor) -> dict[str, dict[str, float]]:
    """For each look the norm of what is added for one unit of taste, its cosine with the look's
    direction, and how much of it (of the square) lies in the span of all looks' directions."""
    centred_NL = taste_NL - taste_NL.mean(0)
    unit_LK = shift(centred_NL, added_NK - added_NK.mean(0), PENALTY)
    basis_KL, _ = torch.linalg.qr(look_LK.T)
    in_span_L = (unit_LK @ basis_KL).square().sum(1) / unit_LK.square().sum(1)
    cosine_L = cosine_similarity(unit_LK, look_LK, dim=1)
    return {
        name: {
            "norm": float(unit_LK[look].norm()),
            "cosine": float(cosine_L[look]),
            "in_span": float(in_span_L[look]),
        }
        for look, name in enumerate(LOOKS[: len(look_LK)])
    }


if __name__ == "__main__":
    run_job(measure, DirectionsConfig, __doc__)
