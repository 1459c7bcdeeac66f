"""The previewer's job: what it compares, and normalisations that belong to the weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.fake_store import FakeStore
from training.pretrain import previewer as module
from training.pretrain.previewer import PreviewerConfig, PreviewerJob


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> PreviewerJob:
    store = FakeStore()
    latents = np.random.default_rng(0).normal(size=(len(store), 16, 8, 8)).astype(np.float16)
    monkeypatch.setattr(module, "PictureStore", lambda _: store)
    monkeypatch.setattr(module, "stage_c_latents", lambda _: latents)
    monkeypatch.setattr(module, "HELD_OUT", 8)
    config = PreviewerConfig(out=Path("x"), run=Path("x"), steps=1, batch=8, lr=1, norm_batches=4)
    return PreviewerJob(config)


def test_pictures_are_made_as_small_as_previews(job: PreviewerJob) -> None:
    latent, image = job.pairs(np.array([0, 3]))
    assert latent.shape == (2, 16, 8, 8)
    assert image.shape == (2, 3, 64, 64) == job.previewer(latent).shape
    corner = job.store.pictures[3][:2, :2].astype(np.float32) / 255
    assert torch.allclose(image[1, :, 0, 0], torch.from_numpy(corner.mean((0, 1))), atol=1e-6)


def test_normalisations_are_measured_for_the_weights_that_are_kept(job: PreviewerJob) -> None:
    before = {key: value.clone() for key, value in job.previewer.state_dict().items()}
    kept = job.normalised(job.previewer).state_dict()
    for key, value in kept.items():
        assert torch.equal(value, before[key]) != ("running" in key or "tracked" in key), key
        assert torch.equal(job.previewer.state_dict()[key], before[key])
    generator = torch.Generator().manual_seed(0)
    seen = torch.cat([job.noised(generator)[0] for _ in range(4)])
    with torch.no_grad():
        expected = torch.nn.functional.gelu(job.previewer.blocks[0](seen)).mean((0, 2, 3))
    assert torch.allclose(kept["blocks.2.running_mean"], expected, atol=1e-5)
    generator.manual_seed(0)
    loss, numbers = job.loss(generator)
    assert loss.item() > numbers["mse"] > 0
