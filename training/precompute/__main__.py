"""START HERE for data: parquet preferences to everything that train_dpo.py reads, computed once.

    python -m training.precompute --config training/configs/mini_precompute.yaml [--resume]
    accelerate launch -m training.precompute --config ...

The same path for Pick-a-Pic and for the world, which world/export.py writes in its schema:

1. read the labels, split people and captions, choose support sets (plan.py);
2. latents of the query pairs' pictures, by the compressor; text features of their captions;
3. user embeddings: the VLM reads each support set, on the same path as serving.

Each is written shard by shard, by several processes every so-manieth one; an interrupted run goes
on with --resume, with as many processes as one likes. Training then loads neither VLM nor
compressor.

Files: latents-*, captions-*, people-*.safetensors; pictures-*.json (uids of the latents),
texts-*.json (the captions), profiles-*.json (who was read from what, and the profile), summary.json
(what became of every row), manifest.json. support_pictures/ is read by this job only.

Legend: N pictures, K captions, U people, E support sets, P query pairs, L looks, D embedding.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from torch import Tensor

from ppd_model.checkpoint import sha256_of
from ppd_model.presets import get_preset
from ppd_model.text_encoder import TextEncoder
from ppd_model.user_encoder import Choice, EncodedUser, EncodingError, UserEncoder
from training.configuration import parse_command_line, save_resolved
from training.data.pickapic import PickAPic
from training.data.preferences import Preferences
from training.data.shards import ShardFolder, read_manifest, verified
from training.data.splits import PersonPairs, SplitRule
from training.precompute.frozen_parts import (
    Compressor,
    load_compressor,
    load_text,
    open_picture,
    square,
)
from training.precompute.plan import Plan, make_plan
from training.precompute.support_pictures import SupportPictures, write_pictures
from training.world import users
from training.world.truth import GroundTruth

Item = TypeVar("Item")
FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
SUPPORT_FOLDER = "support_pictures"
SUMMARY = "summary.json"
BARRIER_TIMEOUT = timedelta(days=14)
"""Processes wait for each other at the end of each kind of shard, and may wait long."""


class PrecomputeConfig(SplitRule):
    """One data set. The keys of the splits are SplitRule's.

    data: parquet files, folders of them, or glob patterns. weights_dir holds compressor, text
    encoder and VLM: for a published preset what `ppd models pull` fills, or None for the hub.
    truth: the world's ground-truth file; with it the upper bounds "taste" and "posterior" can be
    trained and nothing else changes. support_sets: four-pair sets that each person is read from, at
    most. Without `vlm` no one is read. people: keep only so many, None: all.
    """

    preset: str
    data: str | tuple[str, ...]
    truth: Path | None = None
    weights_dir: Path | None = None
    output_dir: Path
    seed: int = 0
    people: int | None = None
    support_sets: int = 4
    vlm: bool = True
    prompt_variant: str = "paper"
    decoding: str = "greedy"
    population_samples: int = 20_000
    pictures_per_shard: int = 8192
    captions_per_shard: int = 1024
    people_per_shard: int = 64
    picture_batch: int = 64
    caption_batch: int = 64
    encode_batch: int = 32


PLACES = {
    "data",
    "truth",
    "weights_dir",
    "output_dir",
    "picture_batch",
    "caption_batch",
    "encode_batch",
}
"""Keys that say where things are and how they are computed, not what comes out."""


@dataclass(frozen=True)
class Worker:
    """This process among those of the run."""

    index: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    wait: Callable[[], None] = lambda: None

    @property
    def is_first(self) -> bool:
        """Whether this one writes what there is one of."""
        return self.index == 0

    def shards(self, total: int, size: int) -> Iterator[tuple[int, range]]:
        """Number and members of the shards that are this process's."""
        for shard in range(self.index, -(-total // size), self.count):
            yield shard, range(shard * size, min((shard + 1) * size, total))


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    config, resume = parse_command_line(PrecomputeConfig, argv, __doc__)
    state = PartialState(timeout=BARRIER_TIMEOUT)
    worker = Worker(state.process_index, state.num_processes, state.device, state.wait_for_everyone)
    precompute(config, resume, worker)
    state.destroy_process_group()


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
    places = [config.data] if isinstance(config.data, str) else config.data
    plan = make_plan(
        PickAPic(places), config, support_sets=config.support_sets, people=config.people
    )
    compressor = load_compressor(preset, config.weights_dir, worker.device)
    text, text_sha256 = load_text(preset, config.weights_dir, worker.device)
    encoder = load_encoder(config, worker) if config.vlm else None
    truth = None if config.truth is None else GroundTruth.load(config.truth)
    made_with = provenance(config, plan, compressor, text_sha256, encoder)
    folder = open_folder(config.output_dir, made_with, resume, worker)
    if worker.is_first:
        save_resolved(config, config.output_dir)
        write_summary(config, plan.counts)

    write_latents(config, plan, compressor, folder, worker)
    write_captions(config, plan, text, folder, worker)
    pictures = None
    if encoder is not None:
        pictures = gather_support(config, plan, made_with, resume, worker)
    write_people(config, plan, encoder, pictures, truth, folder, worker)

    worker.wait()
    if worker.is_first:
        folder.finish()
        write_summary(config, plan.counts | {"encoded": encoded_counts(config.output_dir)})
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
        "config": config.model_dump(mode="json", exclude=PLACES),
        "base_model": get_preset(config.preset).base_model,
        "encoder_id": "none" if encoder is None else encoder.encoder_version,
        "prompt_variant": config.prompt_variant if config.vlm else "none",
        "decoding": config.decoding if config.vlm else "none",
        "compressor_sha256": compressor.sha256,
        "compressor_side_px": compressor.side_px,
        "text_encoder_sha256": text_sha256,
        "truth_sha256": "none" if config.truth is None else sha256_of(config.truth),
        "files": plan.files.fingerprint(),
    }


def open_folder(path: Path, made_with: dict[str, Any], resume: bool, worker: Worker) -> ShardFolder:
    """The folder, opened by the first process and then by the others."""
    if worker.is_first:
        folder = ShardFolder(path, made_with, resume)
    worker.wait()
    return folder if worker.is_first else ShardFolder(path, made_with, resume=True)


def write_latents(
    config: PrecomputeConfig,
    plan: Plan,
    compressor: Compressor,
    folder: ShardFolder,
    worker: Worker,
) -> None:
    """latents-*.safetensors: latent_NCHW in float16, in the order of plan.query."""
    progress = Progress("latents", len(plan.query), worker)
    for shard, places in worker.shards(len(plan.query), config.pictures_per_shard):
        name = f"latents-{shard:05d}.safetensors"
        if folder.has(name):
            progress.passed(len(places))
            continue
        part = slice(places.start, places.stop)
        images = decoded(plan, plan.query.source_N2[part], compressor.side_px)
        latents = [
            compressor.latents(np.stack(batch), worker.device)
            for batch in in_batches(images, config.picture_batch)
        ]
        uids = [plan.preferences.pictures[number] for number in plan.query.picture_N[part]]
        folder.write_json(f"pictures-{shard:05d}.json", uids)
        folder.write(name, {"latent_NCHW": torch.cat(latents)})
        progress.made(len(places))


def decoded(plan: Plan, source_N2: IntArray, side_px: int) -> Iterator[NDArray[np.uint8]]:
    """The pictures, square. Raises ValueError, naming file and row, for one that is broken."""
    jpegs = plan.files.pictures(source_N2)
    for (row, side), jpeg in zip(source_N2.tolist(), jpegs, strict=True):
        try:
            yield square(open_picture(jpeg), side_px)
        except ValueError as error:
            raise ValueError(f"{plan.files.place_of(row)}, jpg_{side}: {error}") from error


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """The items, `size` at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


@torch.inference_mode()
def write_captions(
    config: PrecomputeConfig, plan: Plan, text: TextEncoder, folder: ShardFolder, worker: Worker
) -> None:
    """captions-*.safetensors: text_KST and pooled_K1T in float16; texts-*.json: the captions."""
    progress = Progress("captions", len(plan.captions), worker)
    for shard, places in worker.shards(len(plan.captions), config.captions_per_shard):
        name = f"captions-{shard:05d}.safetensors"
        if folder.has(name):
            progress.passed(len(places))
            continue
        texts = plan.captions[places.start : places.stop]
        features = [text.encode(batch) for batch in in_batches(texts, config.caption_batch)]
        folder.write_json(f"texts-{shard:05d}.json", texts)
        folder.write(
            name,
            {
                "text_KST": torch.cat([each.tokens_BSD.half().cpu() for each in features]),
                "pooled_K1T": torch.cat([each.pooled_B1D.half().cpu() for each in features]),
            },
        )
        progress.made(len(places))


def gather_support(
    config: PrecomputeConfig, plan: Plan, made_with: dict[str, Any], resume: bool, worker: Worker
) -> SupportPictures:
    """Copy what the VLM reads into support_pictures/, all processes together, and open it."""
    path = config.output_dir / SUPPORT_FOLDER
    folder = open_folder(path, made_with, resume, worker)
    progress = Progress("support pictures", len(plan.support), worker)
    for shard, places in worker.shards(len(plan.support), config.pictures_per_shard):
        name = f"jpegs-{shard:05d}.safetensors"
        if not folder.has(name):
            sources = plan.support.source_N2[places.start : places.stop]
            write_pictures(folder, name, list(plan.files.pictures(sources)))
        progress.made(len(places))
    worker.wait()
    if worker.is_first:
        folder.finish()
    worker.wait()
    return SupportPictures(verified(path, read_manifest(path), "jpegs-"))


def write_people(
    config: PrecomputeConfig,
    plan: Plan,
    encoder: UserEncoder | None,
    pictures: SupportPictures | None,
    truth: GroundTruth | None,
    folder: ShardFolder,
    worker: Worker,
) -> None:
    """people-*.safetensors and profiles-*.json, `people_per_shard` people each."""
    prior = None if truth is None else prior_samples(config)
    progress = Progress("people", len(plan.people), worker)
    first_set_U = np.cumsum([0, *(len(person.support_E4) for person in plan.people)])
    for shard, places in worker.shards(len(plan.people), config.people_per_shard):
        name = f"people-{shard:05d}.safetensors"
        if folder.has(name):
            progress.passed(len(places))
            continue
        people = [Read(person) for person in plan.people[places.start : places.stop]]
        if encoder is not None:
            assert pictures is not None
            seed = config.seed + int(first_set_U[places.start])
            read_sets(people, plan, pictures, encoder, config.encode_batch, seed)
        kept = [read for read in people if read.sets or config.support_sets == 0]
        if not kept:
            raise ValueError(f"{name}: no support set could be read: {people[0].failed[:1]}")
        tensors = people_tensors(kept, plan)
        if truth is not None and prior is not None:
            tensors |= truth_tensors(kept, plan.preferences, truth, prior)
        folder.write_json(f"profiles-{shard:05d}.json", [notes(read, plan) for read in people])
        folder.write(name, tensors)
        progress.made(len(places))


class Read:
    """One person, and what the VLM made of each support set; `failed` names those it could not.

    Until the VLM has read them, and when it never does, `sets` are all of the person's.
    """

    def __init__(self, person: PersonPairs) -> None:
        self.person = person
        self.sets: list[int] = list(range(len(person.support_E4)))
        self.encoded: dict[int, EncodedUser] = {}
        self.failed: list[dict[str, Any]] = []


def read_sets(
    people: Sequence[Read],
    plan: Plan,
    pictures: SupportPictures,
    encoder: UserEncoder,
    batch: int,
    seed: int,
) -> None:
    """Let the VLM read every set of these people.

    A set of which it makes no profile is read again on its own, and left out with the reason if it
    fails again: one answer in thousands that has no profile must not cost the rest.
    """
    asked = [(read, index) for read in people for index in read.sets]
    for begin in range(0, len(asked), batch):
        part = asked[begin : begin + batch]
        choices = [choices_of(read.person, index, plan, pictures) for read, index in part]
        try:
            encoded: list[EncodedUser | EncodingError] = [
                *encoder.encode_batch(choices, seed=seed + begin)
            ]
        except EncodingError:
            encoded = [
                _alone(encoder, each, seed + begin + place) for place, each in enumerate(choices)
            ]
        for (read, index), user in zip(part, encoded, strict=True):
            if isinstance(user, EncodingError):
                read.sets.remove(index)
                read.failed.append({"set": index, "reason": str(user)})
            else:
                read.encoded[index] = user


def _alone(encoder: UserEncoder, choices: list[Choice], seed: int) -> EncodedUser | EncodingError:
    try:
        return encoder.encode_batch([choices], seed=seed)[0]
    except EncodingError as error:
        return error


def choices_of(
    person: PersonPairs, index: int, plan: Plan, pictures: SupportPictures
) -> list[Choice]:
    """A support set as the VLM reads it."""
    preferences = plan.preferences
    choices = []
    for pair in person.support_E4[index].tolist():
        first, second = plan.support.place[preferences.picture_P2[pair]].tolist()
        choices.append(
            Choice(
                caption=preferences.captions[preferences.caption_P[pair]],
                image_0=pictures.open(first),
                image_1=pictures.open(second),
                preferred=int(preferences.preferred_P[pair]),
            )
        )
    return choices


def people_tensors(people: Sequence[Read], plan: Plan) -> dict[str, Tensor]:
    """One shard's tensors. `person_*` count from 0 within the shard.

    Someone without any set (support_sets 0) has one row of E all the same: whatever stands for
    them.
    """
    preferences = plan.preferences
    query_P = np.concatenate([read.person.query_P for read in people])
    preferred_P = preferences.preferred_P[query_P]
    picture_P2 = plan.query.place[preferences.picture_P2[query_P]]
    rows = np.arange(len(query_P))
    numbers = np.arange(len(people))
    tensors = {
        "person_E": np.repeat(numbers, [max(1, len(read.sets)) for read in people]),
        "person_P": np.repeat(numbers, [len(read.person.query_P) for read in people]),
        "split_P": np.concatenate([read.person.split_P for read in people]),
        "chosen_P": picture_P2[rows, preferred_P],
        "rejected_P": picture_P2[rows, 1 - preferred_P],
        "caption_P": plan.caption_place[preferences.caption_P[query_P]],
    }
    written = {name: torch.from_numpy(np.ascontiguousarray(of)) for name, of in tensors.items()}
    embeddings = [user.user_emb_D for read in people for user in in_order(read)]
    if embeddings:
        written["user_emb_ED"] = torch.from_numpy(np.stack(embeddings))
    return written


def in_order(read: Read) -> list[EncodedUser]:
    """What the VLM made of the sets that are kept."""
    return [read.encoded[index] for index in read.sets if index in read.encoded]


def prior_samples(config: PrecomputeConfig) -> FloatArray:
    """Tastes of the world's population, against which four answers are weighed."""
    rng = np.random.default_rng([config.seed, 3])
    return users.Population().sample(config.population_samples, rng).astype(np.float32)


def truth_tensors(
    people: Sequence[Read], preferences: Preferences, truth: GroundTruth, prior: FloatArray
) -> dict[str, Tensor]:
    """For the upper bounds: each person's taste, and the best estimate each set's answers allow.

    Also what that estimate was made of: support_delta_E4L, looks of the second picture minus
    looks of the first, and support_preferred_E4.
    """
    taste_UL = [truth.taste(preferences.users[read.person.user]) for read in people]
    tensors = {"taste_UL": np.stack(taste_UL)}
    supports = [read.person.support_E4[index] for read in people for index in read.sets]
    if supports:
        support_E4 = np.stack(supports)
        uids = [preferences.pictures[n] for n in preferences.picture_P2[support_E4].ravel()]
        looks_E42L = np.stack([truth.looks(uid) for uid in uids]).reshape(*support_E4.shape, 2, -1)
        delta_E4L = looks_E42L[:, :, 1] - looks_E42L[:, :, 0]
        preferred_E4 = preferences.preferred_P[support_E4]
        tensors["support_delta_E4L"] = delta_E4L
        tensors["support_preferred_E4"] = preferred_E4
        tensors["posterior_EL"] = np.stack(
            [
                users.posterior_mean(delta_4L, preferred_4, prior)
                for delta_4L, preferred_4 in zip(delta_E4L, preferred_E4, strict=True)
            ]
        )
    return {name: torch.from_numpy(np.ascontiguousarray(of)) for name, of in tensors.items()}


def notes(read: Read, plan: Plan) -> dict[str, Any]:
    """Who was read from what, and the profiles, for people and for the baselines with text."""
    preferences = plan.preferences

    def pair(number: int) -> dict[str, Any]:
        first, second = preferences.picture_P2[number].tolist()
        return {
            "caption": preferences.captions[preferences.caption_P[number]],
            "pictures": [preferences.pictures[first], preferences.pictures[second]],
            "preferred": int(preferences.preferred_P[number]),
        }

    sets = []
    for index in read.sets:
        entry: dict[str, Any] = {"pairs": [pair(n) for n in read.person.support_E4[index].tolist()]}
        if index in read.encoded:
            user = read.encoded[index]
            entry |= {
                "profile": user.profile,
                "confidence": user.confidence,
                "likes": user.likes,
                "dislikes": user.dislikes,
            }
        sets.append(entry)
    return {
        "user_id": preferences.users[read.person.user],
        "unseen": read.person.unseen,
        "sets": sets,
        "failed": read.failed,
    }


def write_summary(config: PrecomputeConfig, counts: dict[str, dict[str, int]]) -> None:
    """summary.json: what became of every row, person and set."""
    (config.output_dir / SUMMARY).write_text(json.dumps(counts, indent=2) + "\n")


def encoded_counts(folder: Path) -> dict[str, int]:
    """How many sets were read, how many could not be, and who is left without any."""
    people = [
        person
        for path in verified(folder, read_manifest(folder), "profiles-")
        for person in json.loads(path.read_text())
    ]
    return {
        "support_sets": sum(len(person["sets"]) for person in people),
        "failed_sets": sum(len(person["failed"]) for person in people),
        "people_lost": sum(bool(person["failed"]) and not person["sets"] for person in people),
    }


class Progress:
    """Prints how far this process is, and for how long it still has to go."""

    def __init__(self, what: str, total: int, worker: Worker) -> None:
        self._what, self._total = what, total
        self._share = f" (process {worker.index})" if worker.count > 1 else ""
        self._left = total / worker.count
        self._made = 0
        self._started_s = time.monotonic()

    def passed(self, count: int) -> None:
        """Some were there already."""
        self._left -= count

    def made(self, count: int) -> None:
        """Some are done."""
        self._made += count
        self._left -= count
        rate = self._made / (time.monotonic() - self._started_s)
        print(
            f"{self._what}{self._share}: {self._made} of {self._total}, {rate:.1f}/s, "
            f"eta {max(0.0, self._left) / rate:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
