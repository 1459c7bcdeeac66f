"""The judge of content, on pictures whose content is plain to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ppd_model.files.artifact import ArtifactError, ArtifactSpec, save_artifact
from training.content_classifier import __main__ as module
from training.content_classifier.__main__ import ClassifierConfig, augment, train
from training.content_classifier.network import load_classifier, to_tensor


class ColouredStore:
    """The subject is the shade of red, the setting of blue; 400 pictures of 32x32."""

    def __init__(self, folder: Path) -> None:
        content = np.arange(400) % 48
        self.subject, self.setting = content // 6, content % 6
        self.pictures = np.zeros((400, 32, 32, 3), np.uint8)
        self.pictures[..., 0] = (self.subject * 36)[:, None, None]
        self.pictures[..., 2] = (self.setting * 50)[:, None, None]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClassifierConfig:
    monkeypatch.setattr(module, "PictureStore", ColouredStore)
    return ClassifierConfig(
        store_dir=tmp_path,
        output_dir=tmp_path / "out",
        steps=120,
        batch=24,
        widths=(16, 32),
        held_out=96,
        noise_std=0.01,
        lr=1e-2,
        checkpoint_every=60,
    )


def test_it_learns_what_can_be_seen_and_is_read_back(config: ClassifierConfig) -> None:
    report = train(config)
    assert report["subject_accuracy"] > 0.7
    assert report["setting_accuracy"] > 0.7
    model = load_classifier(config.output_dir / "classifier.safetensors")
    store = ColouredStore(config.store_dir)
    subject_B, setting_B = model.name(store.pictures)
    assert (subject_B == store.subject).mean() > 0.7
    assert (setting_B == store.setting).mean() > 0.7


def test_a_resumed_run_ends_like_an_uninterrupted_one(
    config: ClassifierConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = config.model_copy(update={"steps": 6, "checkpoint_every": 4})
    whole = train(short)
    broken = short.model_copy(update={"output_dir": config.output_dir / "broken"})
    real, calls = augment, []

    def fail_at_five(*arguments: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as once:
        once.setattr(module, "augment", fail_at_five)
        with pytest.raises(KeyboardInterrupt):
            train(broken)
    assert train(broken, resume=True) == whole


def test_augmentation_keeps_pictures_in_range_and_some_untouched(config: ClassifierConfig) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    plain = to_tensor(pictures)
    strong = config.model_copy(update={"noise_std": 0.5})
    varied = augment(plain, strong, torch.Generator().manual_seed(0))
    assert varied.shape == plain.shape == (64, 3, 16, 16)
    assert 0 <= varied.min() < varied.max() <= 1
    untouched = (varied == plain).flatten(1).all(1).sum()
    assert 2 <= untouched <= 20  # one in eight escapes all three


def test_another_artifact_is_refused(tmp_path: Path) -> None:
    spec = ArtifactSpec("adapter", {}, "mini")
    save_artifact(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, spec)
    with pytest.raises(ArtifactError, match="content-classifier"):
        load_classifier(tmp_path / "x.safetensors")
