"""A run's averaged weights become artifacts that the pipeline accepts; a missing part is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import ppd_model
from ppd_model.files.artifact import load_artifact
from ppd_model.nets.compressor import SmallCompressor
from ppd_model.nets.stage_a import build_stage_a
from ppd_model.nets.text_encoder import save_word_tokenizer
from ppd_model.pipeline import Pipeline
from ppd_model.presets import get_preset
from ppd_model.types import ImageRequest
from training.export import export
from training.pretrain.previewer import new_previewer, trained_previewer
from training.pretrain.stage_b import new_stage_b
from training.pretrain.stage_c import new_stage_c
from training.pretrain.text_encoder import new_text_encoder
from training.pretrain.training_loop import save_averaged


@pytest.fixture
def untrained_run(tmp_path: Path) -> Path:
    """A run folder of mini's parts as they are before the first step."""
    preset, text_encoder, run = get_preset("mini"), new_text_encoder(), tmp_path / "run"
    parts = {
        "stage_c": new_stage_c(),
        "text_encoder": text_encoder.model,
        "compressor": SmallCompressor(**preset.compressor),
        "previewer": new_previewer(),
    }
    for name, module in parts.items():
        (run / name).mkdir(parents=True)
        save_averaged(run / name, {name: module})
    (run / "decoder").mkdir()
    save_averaged(run / "decoder", {"stage_a": build_stage_a(preset), "stage_b": new_stage_b()})
    save_word_tokenizer(text_encoder.tokenizer, run / "text_encoder" / "text_tokenizer.json")
    (run / "world").mkdir()
    shipped = Path(ppd_model.__file__).parent / "mini" / "standardizer.json"
    shutil.copyfile(shipped, run / "world" / "standardizer.json")
    return run


def test_what_is_exported_paints(untrained_run: Path, tmp_path: Path) -> None:
    export(untrained_run, tmp_path / "out", partial=True)
    pipeline = Pipeline.load("mini", tmp_path / "out", with_adapter=False)
    request = ImageRequest("a boat at the sea", seed=1, steps=2)
    first, again = pipeline.generate([request])[0], pipeline.generate([request])[0]
    assert first.image_HWC.shape == (128, 128, 3)
    assert np.array_equal(first.image_HWC, again.image_HWC)


def test_an_exported_previewer_shows_what_the_trained_one_did(
    untrained_run: Path, tmp_path: Path
) -> None:
    export(untrained_run, tmp_path / "out", partial=True)
    tensors, _ = load_artifact(tmp_path / "out" / "previewer.safetensors", kind="previewer")
    loaded, trained = new_previewer().eval(), trained_previewer(untrained_run / "previewer")
    loaded.load_state_dict(tensors)
    latents = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(loaded(latents), trained(latents), atol=1e-2)  # stored as fp16


def test_a_part_that_is_not_trained_is_named(untrained_run: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"vlm\.safetensors"):
        export(untrained_run, tmp_path / "out", partial=False)
    (untrained_run / "decoder" / "ema.pt").unlink()
    with pytest.raises(FileNotFoundError, match="decoder"):
        export(untrained_run, tmp_path / "out", partial=False)
