"""The job that finishes Stages B and A: what learns, from whose loss, and from which latents."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ppd_model.nets.stage_a import build_stage_a
from ppd_model.presets import get_preset
from tests.fake_store import FakeStore
from training.pretrain import decoder as module
from training.pretrain.decoder import DecoderConfig, DecoderJob, sharpness
from training.pretrain.stage_b import new_stage_b
from training.pretrain.training_loop import save_averaged

Make = Callable[..., DecoderJob]


@pytest.fixture(name="run")
def run_of_untrained_parts(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    parts = {"stage_a": build_stage_a(get_preset("mini")), "stage_b": new_stage_b()}
    for name, part in parts.items():
        (tmp_path / name).mkdir()
        save_averaged(tmp_path / name, {name: part})
    return tmp_path


@pytest.fixture(name="make")
def make_job(run: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    store, rng = FakeStore(per_content=1), np.random.default_rng(0)
    latents = {
        "stage_c_latents": rng.normal(size=(len(store), 16, 8, 8)).astype(np.float16),
        "stage_a_latents": rng.normal(size=(len(store), 4, 32, 32)).astype(np.float16),
    }
    monkeypatch.setattr(module, "PictureStore", lambda _: store)
    monkeypatch.setattr(module, "HELD_OUT", 8)
    for name, values in latents.items():
        monkeypatch.setattr(module, name, lambda _, values=values: values)

    def make(**options: float) -> DecoderJob:
        values: dict[str, object] = {"run": run, "out": run / "x", "steps": 1, "batch": 4, "lr": 1}
        return DecoderJob(DecoderConfig.model_validate(values | options))

    return make


def gradients(job: DecoderJob) -> dict[str, Tensor]:
    """Of everything that learns, after one loss."""
    job.loss(torch.Generator().manual_seed(1))[0].backward()
    return {
        f"{name}.{key}": weight.grad
        for name, part in job.modules.items()
        for key, weight in part.named_parameters()
        if weight.grad is not None
    }


def test_both_stages_and_the_discriminator_learn_and_the_encoder_stays(make: Make) -> None:
    job = make()
    learning = {name for name, gradient in gradients(job).items() if gradient.any()}
    everything = {
        f"{name}.{key}" for name, part in job.modules.items() for key, _ in part.named_parameters()
    }
    stays = ("stage_a.in_block", "stage_a.down_blocks", "stage_a.vquantizer")
    assert not any(name.startswith(stays) for name in learning)
    for part in ("stage_a.up_blocks", "stage_a.out_block", "stage_b.clf", "discriminator"):
        assert any(name.startswith(part) for name in learning), part
    assert learning < everything


def test_what_the_stages_are_told_teaches_the_discriminator_nothing(make: Make) -> None:
    quiet = gradients(make(adversarial=0, features=0))
    loud = gradients(make(adversarial=10, features=10))
    for part, same in (("discriminator", True), ("stage_a", False)):
        of_part = [name for name in quiet if name.startswith(part) and quiet[name].any()]
        assert all(
            torch.allclose(quiet[name], loud[name], atol=1e-7) == same for name in of_part
        ), part


def test_rows_are_shared_between_stage_b_and_the_encoder(make: Make) -> None:
    def kept(share: float) -> int:
        job, indices = make(latent_noise=0, drawn_share=share), np.arange(4)
        encoded = job.stage_a_latents[indices].float()
        latents = job._latents(indices, encoded, torch.Generator().manual_seed(0))
        return int((latents == encoded).flatten(1).all(1).sum())

    assert [kept(share) for share in (0.25, 0.5, 1)] == [3, 2, 0]


def test_the_discriminator_sees_pictures_and_latents_of_the_same_window(make: Make) -> None:
    job = make()
    across = torch.arange(128).expand(1, 1, 128, 128)
    latents = torch.arange(8).expand(1, 1, 8, 8)
    for seed in range(8):
        window = job._window(torch.Generator().manual_seed(seed))
        picture, latent = module._cut(across, window), module._cut(latents, window)
        assert picture.shape[2:] == (64, 64)
        assert latent.shape[2:] == (4, 4)
        assert picture[0, 0, 0, 0] == 16 * latent[0, 0, 0, 0]
        assert (
            module._cut(across.mT, window)[0, 0, 0, 0]
            == 16 * module._cut(latents.mT, window)[0, 0, 0, 0]
        )


def test_sharpness_is_that_of_the_region_and_shows_a_grid_of_cells() -> None:
    lines = torch.zeros(1, 3, 64, 64)
    lines[..., ::4] = 1
    found = sharpness(lines).reshape(1, 2, 16, 2, 2)
    across, down = found[0, 0].reshape(4, 4, 2, 2), found[0, 1]
    sharp = across.amax((0, 2, 3)) > 0.5
    assert sharp.tolist() == [True, False, False, True]  # a line and its two sides, of four places
    assert down.max() < 0.01
    soft = torch.nn.functional.avg_pool2d(lines, 3, stride=1, padding=1)
    assert sharpness(soft).mean() < sharpness(lines).mean()


def test_sharpness_does_not_mind_where_in_its_region_an_edge_lies() -> None:
    step = (torch.arange(64) >= 12).float().expand(1, 3, 64, 64)
    moved = step.roll(4, dims=3)
    moved[..., :4] = 0
    assert torch.allclose(sharpness(step), sharpness(moved), atol=1e-6)
    assert not torch.allclose(step, moved)


def test_the_discriminator_pulls_its_own_way_as_strongly_as_the_painted_picture() -> None:
    decoded = torch.tensor([3.0, -4.0], requires_grad=True)
    pull = module._pull(1000 * decoded.square().sum(), decoded, as_strong_as=decoded.abs().sum())
    (gradient,) = torch.autograd.grad(pull, decoded)
    assert pull.item() == 0
    assert torch.allclose(gradient, 2**0.5 * torch.tensor([0.6, -0.8]))
