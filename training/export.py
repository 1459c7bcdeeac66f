"""Averaged weights of a run become the artifacts that are shipped.

``python -m training.export --run runs/mini --out runs/mini/export`` writes every part that the run
has trained (fp16 safetensors with their specs), the tokenizers, the looks' standardizer and the
manifest. ``--out ppd_model/mini`` ships them: then no part may be missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from ppd_model.files.artifact import ArtifactSpec, save_artifact, verify_manifest, write_manifest
from ppd_model.presets import get_preset
from training.jobs.command_line import run_job
from training.jobs.configuration import Configuration, git_commit
from training.jobs.shared_options import Out
from training.pretrain.latents import trained_compressor, trained_stage_a
from training.pretrain.previewer import trained_previewer
from training.pretrain.stage_b import trained_stage_b
from training.pretrain.stage_c import trained_stage_c
from training.pretrain.text_encoder import trained_text_encoder

FINISHED_IN = {"stage_a": "decoder", "stage_b": "decoder"}
"""Folder of a part that its own job only begins."""
COPIED = {
    "text_tokenizer.json": "text_encoder/text_tokenizer.json",
    "vlm.safetensors": "words/export/vlm.safetensors",
    "vlm_tokenizer.json": "words/export/vlm_tokenizer.json",
    "adapter.safetensors": "adapter_nft/adapter.safetensors",
    "standardizer.json": "world/standardizer.json",
}


def export(run: Path, out: Path, *, partial: bool) -> list[str]:
    """Write the parts of ``run`` to ``out`` and return their names.

    Raises FileNotFoundError for a part the run lacks, unless ``partial``.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, load in _TRAINED.items():
        folder = run / FINISHED_IN.get(kind, kind)
        if partial and not (folder / "ema.pt").exists():
            continue
        module = load(folder)
        spec = ArtifactSpec(kind, {}, get_preset("mini").base_model, {"commit": git_commit()})
        save_artifact(out / f"{kind}.safetensors", module.state_dict(), spec, dtype=torch.float16)
        written.append(kind)
    for name, source in COPIED.items():
        if partial and not (run / source).exists():
            continue
        shutil.copyfile(run / source, out / name)
        written.append(name)
    write_manifest(out)
    verify_manifest(out)
    return written


_TRAINED: dict[str, Callable[[Path], nn.Module]] = {
    "stage_a": trained_stage_a,
    "stage_b": trained_stage_b,
    "stage_c": trained_stage_c,
    "text_encoder": lambda out: trained_text_encoder(out).model,
    "compressor": trained_compressor,
    "previewer": trained_previewer,
}


class ArtifactsConfig(Configuration):
    """Which run becomes artifacts, and where."""

    run: Path
    """Folder with all parts of the model."""
    out: Out
    partial: bool = False
    """Leave out what is not trained yet."""


def main(config: ArtifactsConfig) -> None:
    print("\n".join(export(config.run, config.out, partial=config.partial)))


if __name__ == "__main__":
    run_job(main, ArtifactsConfig, __doc__)
