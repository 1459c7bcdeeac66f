"""A tiny Stage C, random pairs, and training runs in processes of their own."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from ppd_model.files.artifact import ArtifactSpec, save_artifact
from ppd_model.nets.stage_c import build_stage_c
from ppd_model.presets import Preset, get_preset
from training import reference_errors, train_dpo
from training.data.dataset import PairBatch, drawn_set
from training.dpo import dpo_config
from training.dpo.dpo_config import DpoConfig

MINI = get_preset("mini")
SMALL: dict[str, object] = {
    "conditioning_dim": 16,
    "block_out_channels": (16, 32),
    "num_attention_heads": (2, 4),
}
PRESET = replace(MINI, stage_c=MINI.stage_c | SMALL, user_emb_dim=12, user_token_dim=16)
PEOPLE, PAIRS_EACH, PICTURES, CAPTIONS, SETS_EACH = 8, 6, 12, 5, 2
PAIRS = "pairs.pt"


@dataclass(frozen=True)
class TinyPairs:
    """Stands for dataset.PreferencePairs; each person's last pair is for validation."""

    latent_NCHW: Tensor
    text_KST: Tensor
    pooled_K1T: Tensor
    user_emb_ED: Tensor
    first_embedding_U: Tensor
    embeddings_U: Tensor
    sets_P: Tensor
    person_P: Tensor
    chosen_P: Tensor
    rejected_P: Tensor
    caption_P: Tensor
    provenance: dict[str, Any]

    @property
    def people(self) -> int:
        return PEOPLE

    def rows_of(self, people: range) -> Tensor:
        inside = (self.person_P >= people.start) & (self.person_P < people.stop)
        return torch.nonzero(inside).flatten()

    def rows_in(self, split: str) -> Tensor:
        is_last = torch.arange(len(self.person_P)) % PAIRS_EACH == PAIRS_EACH - 1
        return torch.nonzero(is_last if split == "validation" else ~is_last).flatten()

    def batch(self, rows_B: Tensor, draw_B: Tensor) -> PairBatch:
        caption_B = self.caption_P[rows_B]
        return PairBatch(
            chosen_BCHW=self.latent_NCHW[self.chosen_P[rows_B]],
            rejected_BCHW=self.latent_NCHW[self.rejected_P[rows_B]],
            text_BST=self.text_KST[caption_B],
            pooled_B1T=self.pooled_K1T[caption_B],
            user_emb_BD=self.embeddings(rows_B, draw_B),
        )

    def embeddings(self, rows_B: Tensor, draw_B: Tensor) -> Tensor:
        person_B = self.person_P[rows_B]
        which_B = drawn_set(self.sets_P[rows_B], draw_B)
        return self.user_emb_ED[self.first_embedding_U[person_B] + which_B]


def load_tiny_pairs(folder: Path, user: str, user_emb_dim: int) -> TinyPairs:
    """Stands for dataset.load_pairs."""
    pairs = TinyPairs(**torch.load(folder / PAIRS))
    if user in ("none", "learned"):
        return replace(pairs, user_emb_ED=torch.zeros_like(pairs.user_emb_ED))
    assert pairs.user_emb_ED.shape[1] == user_emb_dim
    return pairs


def write_world(folder: Path, preset: Preset = PRESET) -> None:
    """Random base weights and random pairs."""
    torch.manual_seed(0)
    unet = build_stage_c(preset).unet
    spec = ArtifactSpec("stage_c", {}, preset.base_model)
    save_artifact(folder / "stage_c.safetensors", unet.state_dict(), spec)
    text_width, pooled_width = (preset.text_encoder[k] for k in ("hidden_size", "projection_dim"))
    chosen_P = torch.randint(PICTURES, (PEOPLE * PAIRS_EACH,))
    pairs = {
        "latent_NCHW": torch.randn(PICTURES, 16, 8, 8),
        "text_KST": torch.randn(CAPTIONS, 7, text_width),
        "pooled_K1T": torch.randn(CAPTIONS, 1, pooled_width),
        "user_emb_ED": torch.randn(SETS_EACH * PEOPLE, preset.user_emb_dim),
        "first_embedding_U": SETS_EACH * torch.arange(PEOPLE),
        "embeddings_U": torch.full((PEOPLE,), SETS_EACH),
        "sets_P": torch.full((PEOPLE * PAIRS_EACH,), 2**SETS_EACH - 1),
        "person_P": torch.arange(PEOPLE).repeat_interleave(PAIRS_EACH),
        "chosen_P": chosen_P,
        "rejected_P": (chosen_P + 1) % PICTURES,
        "caption_P": torch.randint(CAPTIONS, chosen_P.shape),
        "provenance": {"encoder_id": "random"},
    }
    (folder / "pairs").mkdir()
    torch.save(pairs, folder / "pairs" / PAIRS)
    (folder / "pairs" / "manifest.json").write_text("{}")


def tiny_config(world: Path, output_dir: Path, **changes: object) -> DpoConfig:
    values: dict[str, object] = {
        "preset": "mini",
        "data_dir": world / "pairs",
        "stage_c": world / "stage_c.safetensors",
        "output_dir": output_dir,
        "steps": 3,
        "batch": 4,
        "lr": 1e-3,
        "beta": 0.5,
        "validation_people": 2,
        "log_every": 1,
        "checkpoint_every": 1,
        "trackers": (),
    }
    return DpoConfig.model_validate(values | changes)


def log_of(output_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output_dir / "log.jsonl").read_text().splitlines()]


@contextmanager
def tiny_parts(preset: Preset = PRESET) -> Iterator[None]:
    """Within it, train_dpo and reference_errors find this preset and the tiny pairs."""
    known = {"mini": preset}.__getitem__
    with (
        patch.object(dpo_config, "get_preset", known),
        patch.object(train_dpo, "load_pairs", load_tiny_pairs),
        patch.object(reference_errors, "load_pairs", load_tiny_pairs),
    ):
        yield


Job = Callable[[DpoConfig, bool], object]


def work_in_process(
    job: Job, config: DpoConfig, resume: bool, environment: Mapping[str, str]
) -> None:
    """All that a process does that `start_process` starts."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    with tiny_parts():
        job(config, resume)


def start_process(
    config: DpoConfig,
    *,
    resume: bool = False,
    environment: Mapping[str, str] | None = None,
    job: Job = train_dpo.train,
) -> BaseProcess:
    """A training run, or another job, in a new process, which can be killed.

    Processes are forked from a server that has imported everything once: torch and diffusers take
    seconds to import.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tiny_training"])
    process = context.Process(target=work_in_process, args=(job, config, resume, environment or {}))
    process.start()
    return process


def ranks(count: int) -> list[dict[str, str]]:
    """What a launcher tells each of several processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
        }
        for rank in range(count)
    ]
