"""START HERE for data: parquet preferences to everything that train_dpo.py reads, computed once.

    python -m training.precompute --config training/configs/mini_precompute.yaml [--resume]
    accelerate launch -m training.precompute --config ...

The same path for Pick-a-Pic and for the world, which world/export.py writes in its schema:

1. read the labels, split people and captions, choose support sets (plan.py);
2. latents of the query pairs' pictures, by the compressor; text features of their captions;
3. user embeddings: the VLM reads each support set, on the same path as serving.

Each is written shard by shard, by several processes every so-manieth one; an interrupted run goes
on with --resume, with as many processes as one likes. Where parquet files were replaced or added,
another folder takes over with --reuse what the earlier one holds of the others. Training then loads
neither VLM nor compressor.

Files: latents-*, captions-*, people-*.safetensors; pictures-*.json (uids of the latents),
unreadable-*.json (pictures that could not be read: file, row, person, reason; their pairs are left
out), texts-*.json (the captions), profiles-*.json (who was read from what, and the profile),
summary.json (what became of every row), manifest.json. support_pictures/ is read by this job only.

Legend: N pictures, K captions, U people, E support sets, P query pairs, L looks, D embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import PartialState

from ppd_model.files.artifact import sha256_of
from ppd_model.presets import get_preset
from ppd_model.user_encoder import UserEncoder
from training.data.shards import read_lists
from training.jobs.command_line import run_job
from training.jobs.configuration import save_resolved
from training.jobs.files import write_json
from training.precompute.frozen_parts import (
    Compressor,
    load_compressor,
    load_text,
)
from training.precompute.people_shards import gather_support, write_people
from training.precompute.plan import Plan, make_plan
from training.precompute.precompute_config import PLACES, PrecomputeConfig
from training.precompute.processes import Worker, open_folder, this_process
from training.precompute.query_shards import write_captions, write_latents
from training.precompute.reuse import Earlier
from training.precompute.unreadable import as_line, listed, lost_pictures, without
from training.world.truth import GroundTruth

SUMMARY = "summary.json"
"""What became of every row, person and set."""


def main(config: PrecomputeConfig, resume: bool) -> None:
    precompute(config, resume, this_process())
    PartialState().destroy_process_group()


def precompute(
    config: PrecomputeConfig, resume: bool = False, worker: Worker | None = None
) -> Path:
    """Write all shards; returns the folder.

    Raises ValueError for data that cannot be read, for a folder made with other data, weights or
    values, and for a ground truth that does not know the data's people or pictures; ArtifactError
    for weights that are not what they should be.
    """
    worker = worker or Worker()
    preset = get_preset(config.preset)
    plan = make_plan(config)
    compressor = load_compressor(preset, config.weights_dir, worker.device)
    text, text_sha256 = load_text(preset, config.weights_dir, worker.device)
    encoder = load_encoder(config, worker) if config.vlm else None
    truth = None if config.truth is None else GroundTruth.load(config.truth)
    made_with = provenance(config, plan, compressor, text_sha256, encoder)
    earlier = None if config.reuse is None else Earlier(config.reuse, made_with, plan)
    folder = open_folder(config.output_dir, made_with, resume, worker)
    if worker.is_first:
        save_resolved(config, config.output_dir)
        write_json(config.output_dir / SUMMARY, plan.counts)

    write_latents(config, plan, compressor, folder, worker, earlier)
    write_captions(config, plan, text, folder, worker, earlier)
    pictures = None
    if encoder is not None:
        pictures = gather_support(config, plan, made_with, resume, worker)
    worker.wait()  # until all know which pictures cannot be read
    write_people(config, plan, encoder, pictures, truth, folder, worker, earlier)

    worker.wait()
    if worker.is_first:
        folder.finish()
        lost_N = lost_pictures(config.output_dir, plan)
        unreadable = {
            "pictures": int(lost_N.sum()),
            "pairs": sum(
                len(person.query_P) - len(without(person, lost_N, plan).query_P)
                for person in plan.people
            ),
        }
        encoded = encoded_counts(config.output_dir)
        counts = plan.counts | {"unreadable": unreadable, "encoded": encoded}
        write_json(config.output_dir / SUMMARY, counts)
        for entry in listed(config.output_dir):
            print(f"left out: {as_line(entry)}", flush=True)
        print(f"unreadable: {unreadable}; read by the VLM: {encoded}", flush=True)
        print(f"complete: {config.output_dir}", flush=True)
    return config.output_dir


def load_encoder(config: PrecomputeConfig, worker: Worker) -> UserEncoder:
    """The VLM. Raises ValueError when there is nothing for it to read."""
    if config.support_sets < 1:
        raise ValueError("support_sets is 0: the VLM would read nobody; set vlm to false")
    return UserEncoder.load(
        config.preset,
        config.weights_dir,
        device=str(worker.device),
        prompt_variant=config.prompt_variant,
        decoding=config.decoding,
    )


def provenance(
    config: PrecomputeConfig,
    plan: Plan,
    compressor: Compressor,
    text_sha256: str,
    encoder: UserEncoder | None,
) -> dict[str, Any]:
    """What the shards depend on; a folder made with anything else is refused."""
    return {
        "config": values_of(config),
        "base_model": get_preset(config.preset).base_model,
        "encoder_id": "none" if encoder is None else encoder.encoder_version,
        "prompt_variant": config.prompt_variant if config.vlm else "none",
        "decoding": config.decoding if config.vlm else "none",
        "compressor_sha256": compressor.sha256,
        "compressor_side_px": compressor.side_px,
        "text_encoder_sha256": text_sha256,
        "truth_sha256": "none" if config.truth is None else sha256_of(config.truth),
        "files": plan.files.fingerprint(),
        "validation_files": [path.name for path in plan.validation_files],
    }


def values_of(config: PrecomputeConfig) -> dict[str, Any]:
    """What decides the shards; "pickapic" is not said, so that folders from before there was
    another layout can be resumed."""
    usual = {"layout"} if config.layout == "pickapic" else set()
    return config.model_dump(mode="json", exclude=PLACES | usual)


def encoded_counts(folder: Path) -> dict[str, int]:
    """How many sets were read, how many of them only after the VLM was given the profile's heading,
    how many could not be, and who is left without any."""
    people = read_lists(folder, "profiles-")
    sets = [each for person in people for each in person["sets"]]
    return {
        "support_sets": len(sets),
        "headings_given": sum(each.get("heading_given", False) for each in sets),
        "failed_sets": sum(len(person["failed"]) for person in people),
        "people_lost": sum(bool(person["failed"]) and not person["sets"] for person in people),
    }


if __name__ == "__main__":
    run_job(main, PrecomputeConfig, __doc__)
