"""mini's text encoder learned against pictures, as CLIP does: this is the side that saw them.

Pretraining needs the pictures' side of the contrast only while it runs, and mini is shipped
without it. As a file of its own it measures how well a picture fits its caption, by the very
encoder whose text Stage C reads:

    python -m training.rewards.picture_tower --run runs/mini --out runs/mini/judge

writes OUT/picture_tower.safetensors, which names the text encoder it belongs to, and prints how
often the picture of a held-out caption is told from those of the 47 other contents.

Legend: B pictures, D embedding.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from ppd_model.files.artifact import (
    ArtifactError,
    ArtifactSpec,
    load_artifact,
    load_strict,
    save_artifact,
)
from ppd_model.nets.text_encoder import TextEncoder, load_text_encoder
from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.presets import get_preset
from training.jobs.command_line import run_job
from training.jobs.configuration import Configuration
from training.jobs.shared_options import Out
from training.pretrain.pictures import HELD_OUT
from training.pretrain.text_encoder import PictureTower
from training.world.captions import canonical
from training.world.scene import CONTENTS, SETTINGS
from training.world.store import PictureStore

ARTIFACT_KIND = "picture-tower"
FILE = f"{ARTIFACT_KIND.replace('-', '_')}.safetensors"
TEXT_ENCODER = "text_encoder.safetensors"
TEXT_TOKENIZER = "text_tokenizer.json"
PART = "picture."
"""Where the tower's weights lie among those of the text encoder's run."""


def export(run: Path, weights_dir: Path, out: Path) -> Path:
    """Write the tower of a text encoder's run, for the text encoder in `weights_dir`.

    Raises FileNotFoundError for a run without averaged weights, and ValueError when the run is of
    another text encoder.
    """
    averaged = run / "text_encoder" / "ema.pt"
    if not averaged.is_file():
        raise FileNotFoundError(f"{averaged}: train the text encoder first")
    states = torch.load(averaged, weights_only=True)
    encoder = text_encoder_of(weights_dir)
    for name, value in encoder.model.state_dict().items():
        own = states["text_encoder"].get(name)
        if own is None or not torch.allclose(own.half().float(), value, atol=1e-6):
            raise ValueError(f"{averaged} is of another text encoder than {weights_dir}: {name}")
    tower = PictureTower(encoder.model.config.projection_dim)
    load_strict(
        tower,
        {
            name.removeprefix(PART): value
            for name, value in states["reader"].items()
            if name.startswith(PART)
        },
    )
    store = PictureStore(run / "world")
    recognised = recognition(
        encoder, tower.eval(), store.pictures[-HELD_OUT:], store.content[-HELD_OUT:]
    )
    path = out / FILE
    spec = ArtifactSpec(
        kind=ARTIFACT_KIND,
        config={"width": encoder.model.config.projection_dim},
        base_model=get_preset("mini").base_model,
        extra={
            "text_weights_sha256": weights_sha256(encoder),
            "recognised": f"{recognised:.4f}",
        },
    )
    save_artifact(path, tower.state_dict(), spec, dtype=torch.float16)
    return path


def load_tower(path: Path, weights_dir: Path) -> PictureTower:
    """The tower, for the text encoder in `weights_dir`.

    Raises ArtifactError when it belongs to another one.
    """
    tensors, spec = load_artifact(path, kind=ARTIFACT_KIND)
    found = weights_sha256(text_encoder_of(weights_dir))
    expected = spec.extra["text_weights_sha256"]
    if found != expected:
        raise ArtifactError(
            f"{path} belongs to a text encoder whose weights have sha256 {expected}, those in "
            f"{weights_dir} have {found}: write it anew with "
            f"python -m training.rewards.picture_tower"
        )
    tower = PictureTower(**spec.config)
    load_strict(tower, tensors)
    return tower.eval().requires_grad_(False)


def text_encoder_of(weights_dir: Path) -> TextEncoder:
    return load_text_encoder(
        get_preset("mini"), weights_dir / TEXT_ENCODER, weights_dir / TEXT_TOKENIZER
    )


def weights_sha256(encoder: TextEncoder) -> str:
    """Of the weights as they are shipped, in half precision; what else a file says is left out."""
    digest = hashlib.sha256()
    for name, value in sorted(encoder.model.state_dict().items()):
        digest.update(name.encode() + value.half().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def recognition(
    encoder: TextEncoder,
    tower: PictureTower,
    images_BHW3: NDArray[np.uint8],
    content_B: NDArray[np.int64],
) -> float:
    """Share of pictures whose own content's plainest caption is the nearest of all 48."""
    captions = [canonical(*divmod(content, len(SETTINGS))) for content in range(CONTENTS)]
    text_CD = normalize(encoder.encode(captions).pooled_B1D[:, 0], dim=-1)
    nearest_B = (tower.read(images_BHW3) @ text_CD.T).argmax(1).numpy()
    return float(np.mean(nearest_B == content_B))


class TowerConfig(Configuration):
    """Which pictures, and whose text encoder."""

    run: Path
    """Folder with the world's pictures and the trained parts of the model."""
    weights_dir: Path = MINI_WEIGHTS_DIR
    """Folder of mini's weights, for the text encoder."""
    out: Out


def main(config: TowerConfig) -> None:
    path = export(config.run, config.weights_dir, config.out)
    _, spec = load_artifact(path, kind=ARTIFACT_KIND)
    print(f"{path}: held-out pictures recognised among 48 contents {spec.extra['recognised']}")


if __name__ == "__main__":
    run_job(main, TowerConfig, __doc__)
