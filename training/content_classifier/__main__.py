"""Says which subject and setting a picture shows; the judge of content in training.evaluate.

A small convolutional net on pictures reduced to 64x64, trained on painted ones of every look. While
training, a picture is blurred, given noise and shifted a little, each with probability one half, so
that the slight softness of decoded pictures is not held against them. Held-out accuracy is measured
on untouched painted pictures that were never trained on.

    python -m training.content_classifier --config training/configs/mini_classifier.yaml

Legend: B pictures, H W side in pixels.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from ppd_model.files.artifact import ArtifactSpec, save_artifact
from training.content_classifier.network import ARTIFACT_KIND, ContentClassifier, to_tensor
from training.jobs.command_line import run_job
from training.jobs.configuration import Configuration, save_resolved
from training.jobs.files import replacing, write_json
from training.jobs.shared_options import Out, Seed
from training.world.scene import SETTINGS, SUBJECTS
from training.world.store import PictureStore


class ClassifierConfig(Configuration):
    """One training run. Probabilities of the augmentations are one half each."""

    store_dir: Path
    """Pictures of the world, which training.world.store painted."""
    output_dir: Out
    seed: Seed = 0
    steps: int = 2000
    """Optimiser steps."""
    batch: int = 48
    """Pictures of a step."""
    lr: float = 2e-3
    """Highest learning rate."""
    widths: tuple[int, ...] = (24, 48, 96)
    """Channels of the convolutions."""
    held_out: int = 2000
    """Pictures that are never trained on."""
    blur: float = 1.0
    """Upper end of the share of a 3x3 mean (of 64x64 pictures, so about 6 px of the original)."""
    noise_std: float = 0.04
    """Upper end of the pixel noise, on pictures in [0, 1]."""
    shift_px: int = 3
    """A picture is shifted by so many pixels at most."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""


def augment(image_B3HW: Tensor, config: ClassifierConfig, generator: torch.Generator) -> Tensor:
    """Blur, noise and shift, each applied to about half of the rows, strengths uniform."""
    batch = len(image_B3HW)

    def uniform() -> Tensor:
        return torch.rand(batch, generator=generator)

    share_B = uniform() * config.blur * (uniform() < 0.5)
    mean_B3HW = functional.avg_pool2d(image_B3HW, 3, stride=1, padding=1, count_include_pad=False)
    blurred = torch.lerp(image_B3HW, mean_B3HW, share_B.view(-1, 1, 1, 1))
    std_B = uniform() * config.noise_std * (uniform() < 0.5)
    noisy = blurred + std_B.view(-1, 1, 1, 1) * torch.randn(image_B3HW.shape, generator=generator)
    reach = config.shift_px
    padded = functional.pad(noisy, (reach,) * 4, mode="replicate")
    side_h, side_w = image_B3HW.shape[2:]
    offset_B2 = torch.randint(0, 2 * reach + 1, (batch, 2), generator=generator)
    offset_B2[uniform() < 0.5] = reach
    rows = [
        padded[row, :, dy : dy + side_h, dx : dx + side_w]
        for row, (dy, dx) in enumerate(offset_B2.tolist())
    ]
    return torch.stack(rows).clamp(0, 1)


def train(config: ClassifierConfig, resume: bool = False) -> dict[str, float]:
    """Train, write classifier.safetensors and report.json; returns held-out accuracies."""
    store = PictureStore(config.store_dir)
    subject_N = torch.from_numpy(np.asarray(store.subject, dtype=np.int64))
    setting_N = torch.from_numpy(np.asarray(store.setting, dtype=np.int64))
    order = np.random.default_rng(config.seed).permutation(len(subject_N))
    held_out, train_rows = order[: config.held_out], order[config.held_out :]
    if len(train_rows) < config.batch:
        raise ValueError(
            f"{config.store_dir} holds {len(order)} pictures; {config.held_out} are held out and "
            f"a batch needs {config.batch} more"
        )
    torch.manual_seed(config.seed)
    model = ContentClassifier(config.widths, len(SUBJECTS), len(SETTINGS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, config.steps)
    save_resolved(config, config.output_dir)
    state_path = config.output_dir / "state.pt"
    first = 0
    if resume and state_path.exists():
        state = torch.load(state_path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first = state["step"]
        print(f"resumed at step {first}", flush=True)
    model.train()
    bar = tqdm(
        range(first, config.steps), initial=first, total=config.steps, unit="step", mininterval=5
    )
    for step in bar:
        rng = np.random.default_rng([config.seed, step])
        rows = np.sort(rng.choice(train_rows, config.batch, replace=False))
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        image_B3HW = augment(to_tensor(np.asarray(store.pictures[rows])), config, generator)
        subject, setting = model(image_B3HW)
        loss = functional.cross_entropy(subject, subject_N[rows]) + functional.cross_entropy(
            setting, setting_N[rows]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        done = step + 1
        if done % 50 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
        if done % config.checkpoint_every == 0 and done < config.steps:
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "step": done,
            }
            with replacing(state_path) as unfinished:
                torch.save(state, unfinished)
    model.eval()
    subject_B, setting_B = model.name(np.asarray(store.pictures[np.sort(held_out)]))
    report = {
        "held_out_pictures": float(len(held_out)),
        "subject_accuracy": float(np.mean(subject_B == subject_N.numpy()[np.sort(held_out)])),
        "setting_accuracy": float(np.mean(setting_B == setting_N.numpy()[np.sort(held_out)])),
    }
    if not all(math.isfinite(value) for value in report.values()):
        raise ValueError(f"training did not end in finite numbers: {report}")
    save_artifact(
        config.output_dir / "classifier.safetensors",
        {key: value.contiguous() for key, value in model.state_dict().items()},
        ArtifactSpec(
            kind=ARTIFACT_KIND,
            config={
                "widths": list(config.widths),
                "subjects": len(SUBJECTS),
                "settings": len(SETTINGS),
            },
            base_model="none",
            extra={key: f"{value:.4f}" for key, value in report.items()},
        ),
        dtype=torch.float16,
    )
    write_json(config.output_dir / "report.json", report)
    state_path.unlink(missing_ok=True)
    print(json.dumps(report), flush=True)
    return report


if __name__ == "__main__":
    run_job(train, ClassifierConfig, __doc__)
