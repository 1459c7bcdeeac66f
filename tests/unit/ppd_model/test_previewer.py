"""The previewer's parameters are named and shaped as the published file's."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ppd_model.files.artifact import ArtifactError, sha256_of
from ppd_model.files.lock import Lock, LockedFile, LockedRepository, write_lock
from ppd_model.nets.previewer import (
    Previewer,
    build_previewer,
    find_previewer,
    load_previewer,
    load_published_previewer,
)
from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.presets import get_preset

# Index in `blocks`, kind of layer, and its weight's shape, of Stability AI's previewer.
PUBLISHED = [
    (0, (512, 16, 1, 1)),
    (3, (512, 512, 3, 3)),
    (6, (512, 256, 2, 2)),
    (9, (256, 256, 3, 3)),
    (12, (256, 128, 2, 2)),
    (15, (128, 128, 3, 3)),
    (18, (128, 64, 2, 2)),
    (21, (64, 64, 3, 3)),
    (24, (3, 64, 1, 1)),
]


def test_the_published_file_would_load() -> None:
    with torch.device("meta"):
        previewer = Previewer(hidden=get_preset("stable-cascade").previewer_hidden)
    shapes = {name: tuple(value.shape) for name, value in previewer.state_dict().items()}
    expected: dict[str, tuple[int, ...]] = {}
    for index, shape in PUBLISHED:
        transposed = index in (6, 12, 18)
        expected[f"blocks.{index}.weight"] = shape
        expected[f"blocks.{index}.bias"] = (shape[1] if transposed else shape[0],)
        if index == 24:
            continue
        for name in ("weight", "bias", "running_mean", "running_var"):
            expected[f"blocks.{index + 2}.{name}"] = expected[f"blocks.{index}.bias"]
        expected[f"blocks.{index + 2}.num_batches_tracked"] = ()
    assert shapes == expected


def test_a_preview_is_eight_times_as_large_and_each_row_its_own() -> None:
    torch.manual_seed(0)
    previewer = Previewer(hidden=16).eval().double()
    latents = torch.randn(3, 16, 8, 8).double()
    with torch.no_grad():
        together, alone = previewer(latents), previewer(latents[1:2])
    assert together.shape == (3, 3, 64, 64)
    # Float64 rounds by 1e-16 of a few units, some hundred times over.
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-12)


def test_a_width_that_cannot_be_halved_three_times_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        Previewer(hidden=12)


def test_the_shipped_one_loads_and_shows_colours() -> None:
    preset = get_preset("mini")
    previewer = load_previewer(preset, MINI_WEIGHTS_DIR / "previewer.safetensors")
    assert not previewer.training
    with torch.no_grad():
        image = previewer(torch.zeros(1, 16, 8, 8))
    assert 0 < image.mean() < 1  # the mean latent is a picture too, not black and not white
    other = replace(preset, base_model="ppd-mini-0")
    with pytest.raises(ArtifactError, match="expected 'ppd-mini-0'"):
        load_previewer(other, MINI_WEIGHTS_DIR / "previewer.safetensors")
    with pytest.raises(ArtifactError, match="kind"):
        load_previewer(preset, MINI_WEIGHTS_DIR / "adapter.safetensors")


def test_a_published_file_must_fit(tmp_path: Path) -> None:
    preset = replace(get_preset("stable-cascade"), previewer_hidden=16)
    path = tmp_path / "previewer.safetensors"
    with pytest.raises(FileNotFoundError, match=str(path)):
        load_published_previewer(preset, path)
    tensors = build_previewer(preset).state_dict()
    save_file(tensors, path)
    loaded = load_published_previewer(preset, path).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
    older = {name: value for name, value in tensors.items() if "num_batches" not in name}
    assert len(tensors) - len(older) == 8
    save_file(older, path)
    loaded = load_published_previewer(preset, path).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in older.items())
    save_file({"blocks.0.bias": torch.zeros(16)}, path)
    with pytest.raises(ArtifactError, match="keys missing"):
        load_published_previewer(preset, path)
    path.write_bytes(b"not one")
    with pytest.raises(ArtifactError, match="not a readable file"):
        load_published_previewer(preset, path)


def test_it_is_found_among_the_weights_or_done_without(tmp_path: Path) -> None:
    assert find_previewer(get_preset("mini"), MINI_WEIGHTS_DIR) is not None
    preset = replace(get_preset("stable-cascade"), previewer_hidden=16)
    assert find_previewer(preset, tmp_path) is None
    where = tmp_path / "stable-cascade" / "previewer.safetensors"
    where.parent.mkdir()
    save_file(build_previewer(preset).state_dict(), where)
    assert find_previewer(preset, tmp_path) is not None
    assert find_previewer(preset, where.parent) is not None
    where.write_bytes(b"not one")
    with pytest.raises(ArtifactError, match="not a readable file"):
        find_previewer(preset, tmp_path)


def test_a_pulled_one_is_what_was_pulled(tmp_path: Path) -> None:
    preset = replace(get_preset("stable-cascade"), previewer_hidden=16)
    where = tmp_path / "stable-cascade" / "previewer.safetensors"
    where.parent.mkdir()
    save_file(build_previewer(preset).state_dict(), where)
    file = LockedFile(sha256_of(where), where.stat().st_size)
    repository = LockedRepository("main", "a" * 40, {where.name: file})
    write_lock(tmp_path, Lock({"stabilityai/stable-cascade": repository}))
    assert find_previewer(preset, tmp_path) is not None
    save_file(build_previewer(preset).state_dict(), where)
    with pytest.raises(ArtifactError, match="sha256"):
        find_previewer(preset, tmp_path)
