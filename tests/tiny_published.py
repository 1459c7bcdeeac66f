"""Published repositories with the same files, keys and dtypes as Stability AI's, at tiny size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from ppd_model.files.hub import Listing
from ppd_model.nets.compressor import build_compressor
from ppd_model.nets.decoder import build_decoder
from ppd_model.nets.previewer import build_previewer
from ppd_model.nets.stage_c import build_unet
from ppd_model.presets import DECODER, PRIOR, VLM_7B, Preset, get_preset
from tests.tiny_vlm import save_published, write_tokenizer

COMMITS = {PRIOR: "a" * 40, DECODER: "b" * 40, VLM_7B: "c" * 40}
START, END, PAD = "<|startoftext|>", "<|endoftext|>", "!"
MERGES = [("b", "o"), ("bo", "a"), ("boa", "t</w>"), ("r", "e"), ("re", "d</w>")]


def vocabulary() -> dict[str, int]:
    letters = "abcdefghijklmnopqrstuvwxyz<|>!"
    tokens = [PAD, *letters.replace(PAD, ""), *(f"{letter}</w>" for letter in letters)]
    tokens += ["".join(pair) for pair in MERGES] + [START, END]
    return {token: number for number, token in enumerate(tokens)}


def tiny_preset() -> Preset:
    """The shape of ``stable-cascade-1b``, with narrow layers and small pictures."""
    preset = get_preset("stable-cascade-1b+tiny")
    assert preset.text_encoder["vocab_size"] == len(vocabulary())
    return replace(preset, name="stable-cascade-1b")


def modules(preset: Preset) -> dict[str, nn.Module]:
    """Every part but the VLM, with random weights that are the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        decoder = build_decoder(preset)
        tokens = dict(bos_token_id=len(vocabulary()) - 2, eos_token_id=len(vocabulary()) - 1)
        text = CLIPTextConfig(**preset.text_encoder, **tokens, pad_token_id=0)
        return {
            "stage_c": build_unet(preset).eval(),
            "text_encoder": CLIPTextModelWithProjection(text).eval(),
            "stage_b": decoder.stage_b,
            "stage_a": decoder.stage_a,
            "compressor": build_compressor(preset),
            "previewer": build_previewer(preset),
        }


def write_published(
    folder: Path, preset: Preset, *, bf16: bool = False, shard_size: str | None = None
) -> None:
    """What `ppd models pull` makes, without its lock: the library's own saving of each class."""
    how: dict[str, object] = {"variant": "bf16"} if bf16 else {}
    if shard_size is not None:
        how["max_shard_size"] = shard_size
    dtype = torch.bfloat16 if bf16 else torch.float32
    parts = modules(preset)
    for part in ("stage_c", "stage_b", "stage_a", "text_encoder"):
        where = preset.published[part]
        target = folder / where.repository.split("/")[-1] / where.folder
        parts[part].to(dtype).save_pretrained(target, **how)
    decoder = folder / DECODER.split("/")[-1]
    save_file(parts["compressor"].state_dict(), decoder / "effnet_encoder.safetensors")
    save_file(parts["previewer"].state_dict(), decoder / "previewer.safetensors")
    write_tokenizer_files(folder / PRIOR.split("/")[-1] / "tokenizer")
    vlm = folder / VLM_7B.split("/")[-1]
    vlm.mkdir()
    save_published(vlm, write_tokenizer(folder), dim=preset.user_emb_dim, **how)
    (folder / "vlm_tokenizer.json").unlink()


def write_tokenizer_files(folder: Path) -> None:
    """CLIP's four files."""
    folder.mkdir(parents=True)
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": PAD}
    config = special | {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16}
    (folder / "vocab.json").write_text(json.dumps(vocabulary()), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES), ""]
    (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def weight_file(folder: Path, preset: Preset, part: str) -> Path:
    where = preset.published[part]
    found = (folder / where.repository.split("/")[-1] / where.folder).glob(
        f"{where.stem}*.safetensors"
    )
    return next(iter(sorted(found)))


def edit_weights(path: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """Rewrite a safetensors file."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@dataclass
class FolderHub:
    """A hub whose repositories lie in a folder; it counts what is fetched."""

    folder: Path
    fetched: list[str]

    def listing(self, hub_id: str, revision: str) -> Listing:
        root = self.folder / hub_id.split("/")[-1]
        paths = [path for path in root.rglob("*") if path.is_file()]
        sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}
        return Listing(hub_id, COMMITS[hub_id], sizes)

    def fetch(self, hub_id: str, revision: str, name: str, folder: Path | None) -> Path:
        assert revision == COMMITS[hub_id]
        assert folder is not None
        self.fetched.append(name)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.folder / hub_id.split("/")[-1] / name, target)
        return target
