"""START HERE for reference errors: what Eq. 6 asks of the frozen base, computed once for many runs.

    python -m training.reference_errors --config training/configs/mini_dpo.yaml --reference cached
        --reference_dir runs/mini/reference_errors [--draws_per_pair 6] [--resume]
    accelerate launch -m training.reference_errors ...

The base never changes, so its squared errors on a pair are a function of the pair, the noise and
the time. Each training pair gets `draws_per_pair` noises and times by number (randomness.py), and
the base's errors under them are written down. Every run of train_dpo with the same base, data and
draws can then leave out the reference's pass: the errors are kept before beta, T, omega and the
choice between mean and sum. The configuration is train_dpo's, so one file serves both.

Writes shards of `error_PK2` and manifest.json to `reference_dir`. An interrupted run goes on with
--resume, in as many processes as one likes.

Legend: P pairs of a shard, B pairs of a batch, R all pairs, K draws of a pair, 2 chosen and
rejected, C H W latent.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from tqdm import tqdm

from ppd_model.files.artifact import sha256_of
from training.data.dataset import PreferencePairs, load_pairs
from training.data.shards import MANIFEST, ShardFolder, read_manifest, read_shards
from training.dpo.base_weights import load_base
from training.dpo.dpo_config import DpoConfig
from training.dpo.loss import PairErrors, Reduction
from training.dpo.pair_model import PairModel, as_pairs
from training.dpo.randomness import draw_of_pairs
from training.dpo.run_state import device_name
from training.jobs.command_line import run_job
from training.jobs.configuration import differences, save_resolved

PAIRS_PER_SHARD = 1024
SHARD = "errors-"
DRAWN_BY = (
    "draws_per_pair",
    "draws_seed",
    "shared_noise",
    "shared_timestep",
    "min_time",
    "max_time",
    "time_power",
)
"""The values of a configuration that decide what is drawn for a pair."""
READ = {*DRAWN_BY, "preset", "user_tokens", "data_dir", "stage_c", "base_dtype", "batch"} | {
    "micro_batch",
    "objective",
    "reference",
    "reference_dir",
}
"""What this job looks at; the rest of the configuration is train_dpo's."""


@dataclass(frozen=True)
class ReferenceErrors:
    """Mean squared errors of the base on training pairs, float64, and their manifest's sha256.

    row_R: the pairs' numbers in the data, ascending.
    """

    row_R: Tensor
    error_RK2: Tensor
    latent_numbers: int
    sha256: str

    def of(self, rows_B: Tensor, number: int, reduction: Reduction) -> PairErrors:
        """Those of these pairs under their draw of that number.

        Raises ValueError for a pair that is not there.
        """
        place_B = torch.searchsorted(self.row_R, rows_B).clamp(max=len(self.row_R) - 1)
        missing = rows_B[self.row_R[place_B] != rows_B].tolist()
        if missing:
            raise ValueError(f"no reference errors of pairs {missing[:5]}: not for training")
        error_B2 = self.error_RK2[place_B, number]
        if reduction == "sum":
            error_B2 = error_B2 * self.latent_numbers
        return PairErrors(error_B2[:, 0], error_B2[:, 1])


def write_reference_errors(config: DpoConfig, resume: bool = False) -> Path:
    """Compute what is not there yet; returns the folder.

    Raises ValueError or ArtifactError for data or weights that do not fit, for a configuration
    whose reference is live, and for a folder that holds other errors, or any unless `resume`.
    """
    if config.reference_dir is None or config.reference != "cached":
        raise ValueError(f"reference is {config.reference!r}: nothing would read what is written")
    state = PartialState(cpu=not torch.accelerator.is_available())
    pairs = load_pairs(config.data_dir, "none", config.trained_preset.user_emb_dim)
    stage_c, base_sha256 = load_base(
        config.trained_preset, config.stage_c, config.dtype, state.device
    )
    model = PairModel(stage_c)
    latent_CHW = pairs.latent_NCHW.shape[1:]
    made_with = provenance(config, base_sha256, latent_CHW, state.device)
    if state.is_main_process:
        ShardFolder(config.reference_dir, made_with, resume)
        save_resolved(config, config.reference_dir)
    state.wait_for_everyone()
    folder = ShardFolder(config.reference_dir, made_with, resume=True)

    shards = list(enumerate(pairs.rows_in("train").split(PAIRS_PER_SHARD)))
    own = shards[state.process_index :: state.num_processes]
    for shard, row_P in tqdm(own, desc="reference errors", unit="shard", mininterval=15):
        name = f"{SHARD}{shard:05d}.safetensors"
        if not folder.has(name):
            error_PK2 = errors_of_pairs(model, pairs, row_P, config, state.device)
            folder.write(name, {"row_P": row_P, "error_PK2": error_PK2})

    state.wait_for_everyone()
    if state.is_main_process:
        folder.finish()
        print(f"complete: {config.reference_dir}", flush=True)
    return config.reference_dir


def errors_of_pairs(
    model: PairModel,
    pairs: PreferencePairs,
    row_P: Tensor,
    config: DpoConfig,
    device: torch.device,
) -> Tensor:
    """The base's mean squared errors, P x K x 2 on the CPU, in batches of a training step's."""
    assert model.reduction == "mean", "a sum is made of it when it is read"
    batches = []
    for row_B in row_P.split(config.micro_batch or config.batch):
        batch = pairs.batch(row_B, torch.zeros(len(row_B))).to(device)
        draws_K2B = []
        for number in range(config.draws_per_pair):
            draws = draw_of_pairs(row_B, number, pairs.latent_NCHW.shape[1:], 0, 0, config)
            errors = as_pairs(model.reference_errors(model.noised(batch, draws.to(device))))
            draws_K2B.append(torch.stack([errors.chosen_B, errors.rejected_B]))
        batches.append(torch.stack(draws_K2B).permute(2, 0, 1).cpu().double())
    return torch.cat(batches)


def load_reference_errors(
    config: DpoConfig, base_sha256: str, latent_CHW: torch.Size, device: torch.device
) -> ReferenceErrors:
    """What `write_reference_errors` wrote; each file's sha256 is checked.

    Raises ValueError when it was made with another base, data or draws, or on another device,
    each named, when it is not finished, and when a shard is missing or changed.
    """
    assert config.reference_dir is not None, "check first"
    folder = config.reference_dir
    if not (folder / MANIFEST).exists():
        raise ValueError(f"{folder} holds no {MANIFEST}; run training.reference_errors first")
    manifest = read_manifest(folder)
    wanted = provenance(config, base_sha256, latent_CHW, device)
    if differing := differences(manifest["provenance"], wanted):
        raise ValueError(f"{folder} holds the errors of another {differing}")
    read_manifest(folder, finished=True)
    shards = read_shards(folder, SHARD)
    return ReferenceErrors(
        row_R=torch.cat([shard["row_P"] for shard in shards]),
        error_RK2=torch.cat([shard["error_PK2"] for shard in shards]),
        latent_numbers=latent_CHW.numel(),
        sha256=sha256_of(folder / MANIFEST),
    )


def provenance(
    config: DpoConfig, base_sha256: str, latent_CHW: torch.Size, device: torch.device
) -> dict[str, Any]:
    """All that the errors depend on, in terms of json.

    beta * T magnifies what policy and reference round differently, so both belong on one device.
    `first_draw` is the sha256 of what is drawn for one pair: were a library to draw other numbers
    from the same seed, the errors would belong to noises that no step sees.
    """
    draws = draw_of_pairs(torch.tensor([1]), 0, latent_CHW, 0, 0, config)
    drawn = hashlib.sha256()
    for drawn_B in (
        draws.noise_chosen_BCHW,
        draws.noise_rejected_BCHW,
        draws.t_chosen_B,
        draws.t_rejected_B,
    ):
        drawn.update(drawn_B.numpy().tobytes())
    values = config.model_dump(mode="json", include=set(DRAWN_BY))
    return {key: values[key] for key in DRAWN_BY} | {
        "kind": "reference errors",
        "base_model": config.trained_preset.base_model,
        "base_dtype": config.base_dtype,
        "base weights": base_sha256,
        "data": sha256_of(config.data_dir / MANIFEST),
        "first_draw": drawn.hexdigest(),
        "device": device_name(device),
        "torch": str(torch.__version__),
    }


if __name__ == "__main__":
    run_job(write_reference_errors, DpoConfig, __doc__, unread=DpoConfig.model_fields.keys() - READ)
    PartialState().destroy_process_group()
