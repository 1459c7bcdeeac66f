"""Where the models work: what the settings say, what is refused, and what the loaders are told."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ppd_model import pipeline as pipeline_module
from ppd_model import user_encoder
from ppd_model.files.artifact import ArtifactError, save_artifact, sha256_of
from ppd_model.nets.stage_c import StageC, adapter_spec, build_adapter
from ppd_model.pipeline import MINI_WEIGHTS_DIR, Pipeline
from ppd_model.presets import VLM_7B, Preset, get_preset
from ppd_model.types import ImageRequest, LabelledPair
from ppd_model.user_encoder import UserEncoder
from service.cli.commands import app
from service.core.errors import JobFailure
from service.core.placement import CPU, Place
from service.core.ports import AdapterFile, Usage
from service.settings import Settings
from service.worker import model_runtime as engine
from service.worker.model_runtime import PpdRuntime, check_adapter, served_ids
from tests.tiny_published import modules, tiny_preset, weight_file, write_published
from tests.tiny_vlm import Scripted, four_choices

SPEC = ImageRequest("a red boat", 1, np.ones(32, np.float32), 1.0, "", 2, 4.0, 128, 128)


def a_runtime(preset: str, weights_dir: Path | None = None, **how: Any) -> PpdRuntime:
    chosen = {"prompt_variant": "paper", "decoding": "greedy", "threads": 1}
    return PpdRuntime(preset, weights_dir, **chosen, **how)


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


# Settings


def test_by_default_both_models_work_on_the_processor_as_they_like() -> None:
    assert Settings().generator_place == Settings().encoder_place == Place("cpu", None, False)


def test_the_vlm_goes_where_the_generator_is_unless_it_is_sent_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PPD_DEVICE", "cuda:1")
    monkeypatch.setenv("PPD_DTYPE", "float32")
    assert Settings().generator_place == Settings().encoder_place == Place("cuda:1", "float32")
    monkeypatch.setenv("PPD_VLM_DEVICE", "cuda")
    monkeypatch.setenv("PPD_DTYPE", "bfloat16")
    monkeypatch.setenv("PPD_OFFLOAD", "1")
    assert Settings().generator_place == Place("cuda:1", "bfloat16", offload=True)
    assert Settings().encoder_place == Place("cuda", "bfloat16", offload=True)


def test_what_works_in_main_memory_is_not_offloaded_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PPD_OFFLOAD", "1")
    monkeypatch.setenv("PPD_VLM_DEVICE", "cuda")
    assert Settings().generator_place == CPU
    assert Settings().encoder_place == Place("cuda", offload=True)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PPD_DEVICE", "gpu", r"device\s.*expected cpu, cuda or cuda:N"),
        ("PPD_DEVICE", "cuda:", r"device\s.*expected cpu, cuda or cuda:N"),
        ("PPD_VLM_DEVICE", "cuda:-1", r"vlm_device\s.*expected cpu, cuda or cuda:N"),
        ("PPD_DTYPE", "float16", r"dtype\s.*'auto', 'float32', 'bfloat16' or 'float64'"),
        ("PPD_OFFLOAD", "perhaps", r"offload\s.*boolean"),
        ("PPD_OFFLOAD", "1", "PPD_OFFLOAD .*set PPD_DEVICE or PPD_VLM_DEVICE to cuda"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        Settings()


# What this preset or machine does not have


@pytest.mark.parametrize(
    ("name", "value", "count", "message"),
    [
        ("PPD_DEVICE", "cuda", 0, "PPD_DEVICE=cuda: torch sees 0 CUDA devices here"),
        ("PPD_VLM_DEVICE", "cuda:2", 2, "PPD_VLM_DEVICE=cuda:2: torch sees 2 CUDA devices here"),
        ("PPD_DTYPE", "bfloat16", 0, "PPD_DTYPE=bfloat16: mini runs in float32 or float64"),
    ],
)
def test_the_service_does_not_start_where_it_cannot_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    count: int,
    message: str,
) -> None:
    gpus(monkeypatch, count)
    monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, ["serve", "--data-dir", str(tmp_path / "d")])
    assert result.exit_code == 1
    assert message in result.stderr
    assert (
        f"FAULT   weights: {message}"
        in CliRunner().invoke(app, ["doctor", "--data-dir", str(tmp_path)]).stdout
    )


def test_the_last_gpu_there_is_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    a_runtime("mini", generator_place=Place("cuda:1"), encoder_place=Place("cuda", "float32"))


def test_float64_is_for_mini() -> None:
    wide = Place(dtype="float64")
    a_runtime("mini", generator_place=wide, encoder_place=wide)
    message = "PPD_DTYPE=float64: stable-cascade-1b runs in float32 or bfloat16"
    with pytest.raises(ValueError, match=message):
        a_runtime("stable-cascade-1b", generator_place=wide, encoder_place=None)


# What the loaders are told


def test_each_loader_is_told_its_own_place(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    told: list[tuple[Any, ...]] = []

    class Stop(Exception):  # noqa: N818
        pass

    def encoder(*where: Any, **how: Any) -> UserEncoder:
        told.append((where[2], how["dtype"], how["offload"]))
        return Loaded()

    def pipeline(*where: Any, **how: Any) -> Pipeline:
        told.append((where[2], how["dtype"], how["offload"]))
        raise Stop

    class Loaded(UserEncoder):
        encoder_version = "encoder-1"

        def __init__(self) -> None:
            pass

    monkeypatch.setattr(engine.UserEncoder, "load", encoder)
    monkeypatch.setattr(engine.Pipeline, "load", pipeline)
    runtime = a_runtime(
        "stable-cascade",
        generator_place=Place("cuda:1", "bfloat16", offload=True),
        encoder_place=Place("cuda:0"),
    )
    with pytest.raises(Stop):
        runtime.load()
    assert told == [("cuda:0", None, False), ("cuda:1", "bfloat16", True)]


@pytest.fixture(scope="module")
def preset() -> Preset:
    return tiny_preset()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, preset: Preset) -> Path:
    folder = tmp_path_factory.mktemp("published")
    write_published(folder, preset)
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path, preset: Preset) -> Path:
    """A copy with an adapter for the VLM beside it."""
    folder = shutil.copytree(published, tmp_path / "weights")
    with pytest.MonkeyPatch.context() as names:
        names.setattr(user_encoder, "get_preset", {preset.name: preset}.__getitem__)
        encoder_id = UserEncoder.version_of(preset.name, folder)
    write_adapter(folder, preset, encoder_id)
    return folder


@pytest.fixture(autouse=True)
def tiny_and_quick(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tiny size under the real size's name, a VLM whose words are given, and one thread."""

    def known(name: str) -> Preset:
        return preset if name == preset.name else get_preset(name)

    for module in (pipeline_module, user_encoder, engine):
        monkeypatch.setattr(module, "get_preset", known)
    monkeypatch.setattr(engine, "UserEncoder", Scripted)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def write_adapter(folder: Path, preset: Preset, encoder_id: str) -> Path:
    unet = modules(preset)["stage_c"]
    stage_c = StageC(unet, build_adapter(preset, unet))
    path = folder / "adapter.safetensors"
    spec = adapter_spec(preset, encoder_id=encoder_id)
    save_artifact(path, stage_c.adapter.state_dict(), spec)
    return path


def pairs() -> list[LabelledPair]:
    return [
        LabelledPair(c.caption, c.image_0, c.image_1, 1 if c.preferred else 0)
        for c in four_choices()
    ]


def test_the_chosen_precision_reaches_both_models(folder: Path, preset: Preset) -> None:
    bf16 = Place(dtype="bfloat16")
    runtime = a_runtime(preset.name, folder, generator_place=bf16, encoder_place=bf16)
    runtime.load()
    assert runtime._pipeline is not None
    assert runtime._encoder is not None
    assert runtime._pipeline.stage_c.unet.dtype == torch.bfloat16
    assert runtime._encoder.model.dtype == torch.bfloat16
    assert runtime.encode(pairs(), 0, None).user_emb_D.dtype == np.float32
    (picture,) = runtime.generate([SPEC], lambda *_: None, lambda: False, lambda _: None)
    assert picture.image_HWC.shape == (128, 128, 3)


# One model alone


def test_a_process_that_only_makes_pictures_needs_nothing_of_the_vlm(
    folder: Path, preset: Preset
) -> None:
    both = a_runtime(preset.name, folder)
    versions = both.load()
    shutil.rmtree(folder / VLM_7B.split("/")[1])
    alone = a_runtime(preset.name, folder, encoder_place=None)
    assert alone.load() == versions
    made, expected = (
        runtime.generate([SPEC], lambda *_: None, lambda: False, lambda _: None)[0].image_HWC
        for runtime in (alone, both)
    )
    assert np.array_equal(made, expected)
    assert alone.unread("a red boat") == ""
    with pytest.raises(ValueError, match="the encoder is not loaded in this process"):
        alone.encode(pairs(), 0, None)


def test_a_process_that_only_reads_choices_needs_nothing_of_the_generator(
    folder: Path, preset: Preset
) -> None:
    both = a_runtime(preset.name, folder)
    versions = both.load()
    for repository in ("stable-cascade", "stable-cascade-prior"):
        shutil.rmtree(folder / repository)
    (folder / "adapter.safetensors").unlink()
    alone = a_runtime(preset.name, folder, generator_place=None)
    found = alone.load()
    assert (found.model, found.adapter_version) == (None, None)
    assert found.encoder_version == versions.encoder_version
    mine, theirs = (runtime.encode(pairs(), 0, None).user_emb_D for runtime in (alone, both))
    assert np.array_equal(mine, theirs)
    with pytest.raises(ValueError, match="the generator is not loaded in this process"):
        alone.generate([SPEC], lambda *_: None, lambda: False, lambda _: None)
    with pytest.raises(ValueError, match="the generator is not loaded in this process"):
        alone.unread("a red boat")


def test_the_shipped_generator_alone_takes_its_encoders_id_from_the_adapter() -> None:
    encoder_id = UserEncoder.version_of("mini", MINI_WEIGHTS_DIR)
    mini = a_runtime("mini", encoder_place=None)
    assert mini.load().encoder_version == encoder_id
    asked = ImageRequest(prompt="a boat at the sea", seed=1)
    assert mini.usage(asked) == Usage(text_tokens=5, latent_tokens=8 * 8)


def test_an_adapter_that_names_no_encoder_cannot_be_served(folder: Path, preset: Preset) -> None:
    write_adapter(folder, preset, "")
    with pytest.raises(ValueError, match="does not say whose embeddings it takes"):
        a_runtime(preset.name, folder, encoder_place=None).load()
    with pytest.raises(ArtifactError, match="user encoder is ''"):
        a_runtime(preset.name, folder).load()


def test_without_an_adapter_beside_published_weights_one_comes_by_activation(
    folder: Path, preset: Preset, tmp_path: Path
) -> None:
    path = shutil.move(folder / "adapter.safetensors", tmp_path / "later.safetensors")
    runtime = a_runtime(preset.name, folder)
    assert runtime.load().adapter_version == "none"

    def generate(spec: ImageRequest, adapter: AdapterFile | None = None) -> np.ndarray:
        (made,) = runtime.generate(
            [spec], lambda *_: None, lambda: False, lambda _: None, adapter=adapter
        )
        return made.image_HWC

    base = generate(replace(SPEC, user_emb_D=None))
    assert np.array_equal(generate(replace(SPEC, strength=0.0)), base)
    with pytest.raises(JobFailure, match="adapter_unavailable"):
        generate(SPEC)
    sha256 = sha256_of(path)
    activated = AdapterFile(sha256[:12], path, sha256)
    assert generate(SPEC, activated).shape == (128, 128, 3)
    with pytest.raises(FileNotFoundError, match="no adapter weights"):
        a_runtime(preset.name, folder, encoder_place=None).load()


def test_a_runtime_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="neither a generator nor an encoder"):
        a_runtime("mini", generator_place=None, encoder_place=None)


def test_an_adapter_is_checked_against_the_encoder_in_the_precision_that_is_served(
    folder: Path, preset: Preset
) -> None:
    """Files of unknown commit are known by their content, which differs by precision."""
    path = weight_file(folder, preset, "vlm")
    halved = {name: value.bfloat16() for name, value in load_file(path).items()}
    save_file(halved, path.with_name("model.bf16.safetensors"), metadata={"format": "pt"})
    chosen = {"prompt_variant": "paper", "decoding": "greedy"}
    adapter = folder / "adapter.safetensors"
    check_adapter(
        adapter, preset.name, *served_ids(preset.name, folder, encoder_place=CPU, **chosen)
    )
    for place in (Place(dtype="bfloat16"), Place("cuda")):
        with pytest.raises(ArtifactError, match="user encoder"):
            check_adapter(
                adapter,
                preset.name,
                *served_ids(preset.name, folder, encoder_place=place, **chosen),
            )


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPD_VLM_DEVICE", "")
    assert Settings().encoder_place == CPU
