"""An adapter for the VLM that now reads in the space the adapter was trained in.

    python -m training.pretrain.words.adopt --vlm runs/mini/words/export --adapter A --out B

The weights stay; the file names the new VLM as whose embeddings it takes, and keeps the old name as
the one that it was trained on. An adapter of any other space is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ppd_model.files.artifact import ArtifactSpec, load_artifact, save_artifact
from ppd_model.presets import get_preset
from ppd_model.user_encoder import VLM_FILE, UserEncoder
from training.jobs.command_line import parse_command_line, run_command
from training.jobs.configuration import Configuration

BASE_MODEL = get_preset("mini").base_model


class AdoptConfig(Configuration):
    """Which adapter, for which VLM."""

    vlm: Path
    """Folder of the VLM that training.pretrain.words exported."""
    adapter: Path
    """The adapter's file."""
    out: Path
    """Where the file that is served goes."""


def adopt(config: AdoptConfig) -> str:
    """Write the adapter for that VLM; returns the encoder that it now names.

    Raises ValueError where the two are not of one space.
    """
    tensors, spec = load_artifact(config.adapter, kind="adapter", base_model=BASE_MODEL)
    trained_on = spec.extra.get("encoder_id", "")
    check_space(config.vlm, trained_on, str(config.adapter))
    how = trained_on.partition(".")[2]
    version = UserEncoder.version_of("mini", config.vlm)
    encoder_id = f"{version.partition('.')[0]}.{how}"
    extra = {**spec.extra, "encoder_id": encoder_id, "trained_on": trained_on}
    adopted = ArtifactSpec(spec.kind, spec.config, spec.base_model, extra)
    dtype = next(iter(tensors.values())).dtype
    config.out.parent.mkdir(parents=True, exist_ok=True)
    save_artifact(config.out, tensors, adopted, dtype=dtype)
    return encoder_id


def check_space(vlm: Path, trained_on: str, adapter: str) -> None:
    """Raises ValueError where an adapter's embeddings are of another space than that VLM's."""
    _, spec = load_artifact(vlm / VLM_FILE, kind="vlm", base_model=BASE_MODEL)
    space = spec.extra.get("space_of")
    if trained_on.partition(".")[0] != space:
        raise ValueError(
            f"{adapter} takes embeddings of {trained_on!r}; {vlm} reads in the space of {space!r}"
        )


def main(argv: Sequence[str] | None = None) -> None:
    config, _ = parse_command_line(AdoptConfig, argv, __doc__, resumable=False)
    print(adopt(config))


if __name__ == "__main__":
    run_command(main)
