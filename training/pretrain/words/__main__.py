"""Teach mini's VLM to obey the profile's words, in the embedding space it has. START HERE.

    python -m training.pretrain.words --config training/configs/mini_words.yaml [--resume]

1. the VLM that is continued reads simulated people: their embeddings anchor the space, and a
linear map says where a stated taste lies in it; 2. a tokenizer that also knows everyday words;
3. the language model alone is trained: a person's own profile keeps its embedding, another text in
its place moves it where it states something, and texts without choices are read too; 4. export.

An adapter that was trained on the continued VLM's embeddings serves the new one's: the file says
whose space it is. Every step is kept in ``out``; ``--resume`` continues. Progress: ``log.jsonl``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import LlavaOnevisionForConditionalGeneration

from ppd_model.files.artifact import SHORT_DIGEST, sha256_of
from ppd_model.user_encoder import TOKENIZER_FILE, VLM_FILE, UserEncoder
from training.jobs.command_line import parse_command_line, run_command
from training.jobs.configuration import save_resolved
from training.jobs.files import replacing
from training.pretrain.vlm import profile_text
from training.pretrain.vlm.examples import World
from training.pretrain.vlm.saving import save_vlm
from training.pretrain.vlm.steps import Log
from training.pretrain.vlm.tokenizer import train_tokenizer
from training.pretrain.vlm.vision import all_features, small_pictures
from training.pretrain.words import statements
from training.pretrain.words.continued import continued_model, sentences
from training.pretrain.words.embedding_map import EmbeddingMap
from training.pretrain.words.language import Features, Material, train_language
from training.pretrain.words.readings import Readings, read_people
from training.pretrain.words.words_config import WordsConfig
from training.world.store import PictureStore
from training.world.tastes import posterior_mean

_MAX_NEW_TOKENS = 160


def main(argv: Sequence[str] | None = None) -> None:
    config, resume = parse_command_line(WordsConfig, argv, __doc__)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    save_resolved(config, config.out)
    log = Log(config.out / "log.jsonl", resume)
    store = PictureStore(config.world)

    readings, held_out = read_both(config, store)
    space = space_of(config, store, readings)
    log.write("space", people=len(readings), unexplained=unexplained(space, readings))
    tokenizer_path = config.out / TOKENIZER_FILE
    if not (resume and tokenizer_path.exists()):
        train_tokenizer(sentences(config.seed), config.vocab_size, tokenizer_path)
    model = continued_model(config.vlm, tokenizer_path)
    features = features_of(config, model, store, [readings, held_out])
    material = Material(readings, held_out, space, features, store.looks)
    train_language(config, model, material, tokenizer_path, log, resume)
    version = export(config, model, tokenizer_path)
    log.write("export", sha256=version, folder=str(config.out / "export"))


def read_both(config: WordsConfig, store: PictureStore) -> tuple[Readings, Readings]:
    """Stage 1: people of the pictures trained on, and people of those held out."""
    last = round(len(store) * (1 - config.holdout_share))
    trained = World(store, slice(0, last), config.prior_size, config.seed)
    unseen = World(store, slice(last, len(store)), config.prior_size, config.seed)

    def load(variant: str) -> UserEncoder:
        return UserEncoder.load("mini", config.vlm, prompt_variant=variant)

    return (
        read_people(config.out / "readings", config.people, trained, config.seed, load),
        read_people(config.out / "held_out", config.held_out_people, unseen, config.seed + 1, load),
    )


def space_of(config: WordsConfig, store: PictureStore, readings: Readings) -> EmbeddingMap:
    """Where tastes lie in the embedding space, fitted on the people's best estimates."""
    world = World(store, slice(0, 1), config.prior_size, config.seed)
    estimate_NL = np.stack(
        [
            posterior_mean(
                np.diff(store.looks[pictures_P2], axis=1)[:, 0], preferred_P, world.prior_NL
            )
            for pictures_P2, preferred_P in zip(
                readings.pictures_NP2, readings.preferred_NP, strict=True
            )
        ]
    )
    space = EmbeddingMap.fit(readings.user_emb_ND, estimate_NL)
    space.save(config.out / "space.npz")
    return space


def unexplained(space: EmbeddingMap, readings: Readings) -> float:
    """The share of the embeddings' variance that no taste stands for."""
    written_ND = space.mean_D + space.read(readings.user_emb_ND) @ space.write_LD
    error = np.square(readings.user_emb_ND - written_ND).sum()
    return round(float(error / np.square(readings.user_emb_ND - space.mean_D).sum()), 4)


def features_of(
    config: WordsConfig,
    model: LlavaOnevisionForConditionalGeneration,
    store: PictureStore,
    readings: Sequence[Readings],
) -> Features:
    """The vision tower's features of every picture that somebody was shown; kept on disk."""
    shown = np.unique(np.concatenate([part.pictures_NP2.ravel() for part in readings]))
    row_N = np.full(len(store), -1)
    row_N[shown] = np.arange(len(shown))
    path = config.out / "features.npy"
    if not path.exists() or len(np.load(path, mmap_mode="r")) != len(shown):
        side_px = model.config.vision_config.image_size
        pictures = small_pictures(store, side_px)[shown]
        features = np.concatenate(list(all_features(model.model.vision_tower.eval(), pictures)))
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            np.save(file, features)
    return Features(row_N, np.load(path))


def export(
    config: WordsConfig, model: LlavaOnevisionForConditionalGeneration, tokenizer_path: Path
) -> str:
    """Stage 4: fp16 weights and the tokenizer in ``out/export``; returns the weights' sha256."""
    read = {
        "max_new_tokens": _MAX_NEW_TOKENS,
        "profiles": profile_text.grammar().config(),
        "words": statements.known_words().config(),
    }
    space = {"space_of": f"vlm-{sha256_of(config.vlm / VLM_FILE)[:SHORT_DIGEST]}"}
    return save_vlm(config.out / "export", model, tokenizer_path, read, space)


if __name__ == "__main__":
    run_command(main)
