"""Everything train_dpo.py reads that does not change while it trains, computed once.

    python -m training.precompute --config training/configs/mini_precompute.yaml [--resume]

- latents of the store's pictures, by the compressor;
- text features of a bank of captions, by the text encoder;
- people: simulated, each answering one or more four-choice sets and many query pairs; each set is
  read by the VLM (the same path as serving) and gives one user embedding.

Each is written shard by shard; an interrupted run goes on with --resume.

Legend: N pictures, K captions, U people, E support sets, P query pairs, L looks, D embedding.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ppd_model.checkpoint import load_artifact, load_strict, sha256_of
from ppd_model.compressor import SmallCompressor
from ppd_model.presets import Preset, get_preset
from ppd_model.text_encoder import load_text_encoder
from ppd_model.user_encoder import Choice, UserEncoder
from training.configuration import Configuration, parse_command_line, save_resolved
from training.preferences import (
    CHOICES_PER_PROFILE,
    FloatArray,
    Person,
    person_seeds,
    simulate,
    taste_of,
)
from training.shards import ShardFolder
from training.world import captions, users
from training.world.scene import CONTENTS, SETTINGS
from training.world.store import PictureStore

PICTURES_PER_SHARD = 8192


class PrecomputeConfig(Configuration):
    """One data set.

    weights_dir holds compressor, text encoder and (with `vlm`) the VLM. Without `vlm` only the
    true taste and the posterior mean stand for the person. People of "test" are refused: what is
    written here is trained on.
    """

    preset: str
    store_dir: Path
    weights_dir: Path
    output_dir: Path
    seed: int = 0
    people: int
    split: Literal["train", "validate"] = "train"
    support_sets: int = 2
    query_pairs: int = 48
    tie_below: float = 0.1
    population_samples: int = 20_000
    captions_per_content: int = 24
    vlm: bool = True
    prompt_variant: str = "paper"
    decoding: str = "greedy"
    people_per_shard: int = 64
    encode_batch: int = 16


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    config, resume = parse_command_line(PrecomputeConfig, argv, __doc__)
    precompute(config, resume)


def precompute(config: PrecomputeConfig, resume: bool = False) -> Path:
    """Write all shards; returns the folder.

    Raises ValueError for a folder made with other weights or values, ArtifactError for weights
    that are not what they should be.
    """
    store = PictureStore(config.store_dir)
    encoder = None
    if config.vlm:
        encoder = UserEncoder.load(
            config.preset,
            config.weights_dir,
            prompt_variant=config.prompt_variant,
            decoding=config.decoding,
        )
    folder = ShardFolder(config.output_dir, provenance(config, store, encoder), resume)
    save_resolved(config, config.output_dir)
    write_latents(config, store, folder)
    bank = caption_bank(config)
    write_captions(config, bank, folder)
    write_people(config, store, encoder, folder)
    folder.finish()
    print(f"complete: {config.output_dir}", flush=True)
    return config.output_dir


def provenance(
    config: PrecomputeConfig, store: PictureStore, encoder: UserEncoder | None
) -> dict[str, Any]:
    """What the shards depend on; a folder made with anything else is refused."""
    places = {"store_dir", "weights_dir", "output_dir", "encode_batch"}
    return {
        "config": config.model_dump(mode="json", exclude=places),
        "base_model": get_preset(config.preset).base_model,
        "encoder_id": "none" if encoder is None else encoder.encoder_version,
        "compressor_sha256": sha256_of(config.weights_dir / "compressor.safetensors"),
        "text_encoder_sha256": sha256_of(config.weights_dir / "text_encoder.safetensors"),
        "pictures": len(store),
    }


@torch.inference_mode()
def write_latents(config: PrecomputeConfig, store: PictureStore, folder: ShardFolder) -> None:
    """latents-*.safetensors: latent_NCHW in float16, in the store's order."""
    compressor = load_compressor(
        get_preset(config.preset), config.weights_dir / "compressor.safetensors"
    )
    total = len(store)
    for shard, first in enumerate(range(0, total, PICTURES_PER_SHARD)):
        name = f"latents-{shard:05d}.safetensors"
        if folder.has(name):
            continue
        parts = []
        last = min(first + PICTURES_PER_SHARD, total)
        for begin in range(first, last, 64):
            images = np.asarray(store.pictures[begin : min(begin + 64, last)])
            image_B3HW = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
            parts.append(compressor(image_B3HW).half())
        folder.write(name, {"latent_NCHW": torch.cat(parts)})
        print(f"latents {last}/{total}", flush=True)


def load_compressor(preset: Preset, path: Path) -> SmallCompressor:
    """The compressor in eval mode. Raises ArtifactError when the file is not one of this base."""
    tensors, _ = load_artifact(path, kind="compressor", base_model=preset.base_model)
    compressor = SmallCompressor(**preset.compressor)
    load_strict(compressor, tensors)
    return compressor.eval()


def caption_bank(config: PrecomputeConfig) -> list[str]:
    """Captions of every content, `captions_per_content` each, content by content."""
    rng = np.random.default_rng([config.seed, 2])
    return [
        captions.caption(*divmod(content, len(SETTINGS)), rng)
        for content in range(CONTENTS)
        for _ in range(config.captions_per_content)
    ]


@torch.inference_mode()
def write_captions(config: PrecomputeConfig, bank: list[str], folder: ShardFolder) -> None:
    """captions.safetensors: text_KST and pooled_K1T in float16; captions.json: the texts."""
    name = "captions.safetensors"
    (folder.folder / "captions.json").write_text(json.dumps(bank, indent=0))
    if folder.has(name):
        return
    encoder = load_text_encoder(
        get_preset(config.preset),
        config.weights_dir / "text_encoder.safetensors",
        config.weights_dir / "text_tokenizer.json",
    )
    texts, pooled = [], []
    for first in range(0, len(bank), 64):
        features = encoder.encode(bank[first : first + 64])
        texts.append(features.tokens_BSD.half())
        pooled.append(features.pooled_B1D.half())
    folder.write(name, {"text_KST": torch.cat(texts), "pooled_K1T": torch.cat(pooled)})
    print(f"captions {len(bank)}", flush=True)


def write_people(
    config: PrecomputeConfig, store: PictureStore, encoder: UserEncoder | None, folder: ShardFolder
) -> None:
    """people-*.safetensors and profiles-*.json, `people_per_shard` people each."""
    population = users.Population()
    samples_KL = population.sample(
        config.population_samples, np.random.default_rng([config.seed, 3])
    ).astype(np.float32)
    seeds = person_seeds(config.split, config.people)
    started_s, made = time.monotonic(), 0
    for shard, first in enumerate(range(0, len(seeds), config.people_per_shard)):
        name = f"people-{shard:05d}.safetensors"
        if folder.has(name):
            continue
        people = [
            simulate(
                seed,
                taste_of(population, seed),
                store,
                support_sets=config.support_sets,
                query_pairs=config.query_pairs,
                tie_below=config.tie_below,
            )
            for seed in seeds[first : first + config.people_per_shard]
        ]
        tensors = answers(people, store, samples_KL, config)
        if encoder is not None:
            asked = [
                choices_of(person, index, store)
                for person in people
                for index in range(config.support_sets)
            ]
            embeddings, profiles = [], []
            for begin in range(0, len(asked), config.encode_batch):
                encoded = encoder.encode_batch(asked[begin : begin + config.encode_batch])
                embeddings += [torch.from_numpy(user.user_emb_D) for user in encoded]
                profiles += [user.profile for user in encoded]
            tensors["user_emb_ED"] = torch.stack(embeddings)
            path = folder.folder / f"profiles-{shard:05d}.json"
            path.write_text(json.dumps(profiles, indent=0))
        folder.write(name, tensors)
        made += len(people)
        done = first + len(people)
        rate = made / (time.monotonic() - started_s)
        print(
            f"people {done}/{len(seeds)} {rate:.1f} people/s "
            f"eta {(len(seeds) - done) / rate:.0f} s",
            flush=True,
        )


def answers(
    people: Sequence[Person], store: PictureStore, samples_KL: FloatArray, config: PrecomputeConfig
) -> dict[str, Tensor]:
    """One shard's tensors without the embeddings. `person_*` count from 0 within the shard."""
    posterior, caption = [], []
    for person in people:
        rng = np.random.default_rng([person.seed, 4])
        for pictures_42, preferred_4 in zip(
            person.support_pictures_E42, person.support_preferred_E4, strict=True
        ):
            first_4L, second_4L = store.looks[pictures_42[:, 0]], store.looks[pictures_42[:, 1]]
            posterior.append(users.posterior_mean(second_4L - first_4L, preferred_4, samples_KL))
        content_P = store.content[person.chosen_P]
        offset_P = rng.integers(config.captions_per_content, size=len(content_P))
        caption.append(content_P * config.captions_per_content + offset_P)
    sets, pairs = config.support_sets, config.query_pairs
    return {
        "seed_U": torch.tensor([person.seed for person in people]),
        "taste_UL": torch.from_numpy(np.stack([person.taste_L for person in people])),
        "person_E": torch.arange(len(people)).repeat_interleave(sets),
        "posterior_EL": torch.from_numpy(np.stack(posterior)),
        "support_pictures_E42": torch.from_numpy(
            np.concatenate([person.support_pictures_E42 for person in people])
        ),
        "support_preferred_E4": torch.from_numpy(
            np.concatenate([person.support_preferred_E4 for person in people])
        ),
        "person_P": torch.arange(len(people)).repeat_interleave(pairs),
        "chosen_P": torch.from_numpy(np.concatenate([person.chosen_P for person in people])),
        "rejected_P": torch.from_numpy(np.concatenate([person.rejected_P for person in people])),
        "caption_P": torch.from_numpy(np.concatenate(caption)),
    }


def choices_of(person: Person, index: int, store: PictureStore) -> list[Choice]:
    """A support set as the VLM is asked: captions and pictures, in the order shown."""
    rng = np.random.default_rng([person.seed, 5, index])
    pictures_42 = person.support_pictures_E42[index]
    preferred_4 = person.support_preferred_E4[index]
    assert pictures_42.shape == (CHOICES_PER_PROFILE, 2)
    return [
        Choice(
            caption=captions.caption(int(store.subject[a]), int(store.setting[a]), rng),
            image_0=Image.fromarray(np.asarray(store.pictures[a])),
            image_1=Image.fromarray(np.asarray(store.pictures[b])),
            preferred=int(preferred),
        )
        for (a, b), preferred in zip(pictures_42.tolist(), preferred_4, strict=True)
    ]


if __name__ == "__main__":
    main()
