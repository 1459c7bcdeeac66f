"""Published layouts at tiny size make pictures and profiles; what does not fit is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor

from ppd_model import pipeline as pipeline_module
from ppd_model import user_encoder
from ppd_model.files.artifact import ArtifactError, ArtifactSpec, save_artifact
from ppd_model.files.pull import pull
from ppd_model.files.safetensor_files import ALIGNMENT
from ppd_model.nets.compressor import build_compressor, load_compressor
from ppd_model.nets.decoder import Decoder
from ppd_model.nets.stage_c import StageC, adapter_spec, build_adapter
from ppd_model.nets.text_encoder import TextEncoder, load_published_tokenizer
from ppd_model.pipeline import Pipeline
from ppd_model.presets import DECODER, VLM_7B, Preset
from ppd_model.published import generator_dtype, load_generator
from ppd_model.types import ImageRequest
from ppd_model.verify import verify_part
from tests.tiny_published import (
    COMMITS,
    FolderHub,
    edit_weights,
    modules,
    tiny_preset,
    weight_file,
    write_published,
)
from tests.tiny_vlm import RESPONSE, Scripted, four_choices

SameBits = Callable[[Tensor, Tensor], bool]
REQUEST = ImageRequest("a red boat", 1, steps=2)


@pytest.fixture(scope="module")
def preset() -> Preset:
    return tiny_preset()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, preset: Preset) -> Path:
    folder = tmp_path_factory.mktemp("published")
    write_published(folder, preset)
    return folder


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(published, tmp_path / "weights")


@pytest.fixture(autouse=True)
def tiny_names(preset: Preset, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny size under the real size's name."""
    monkeypatch.setattr(pipeline_module, "get_preset", {preset.name: preset}.__getitem__)
    monkeypatch.setattr(user_encoder, "get_preset", {preset.name: preset}.__getitem__)


def from_memory(preset: Preset, folder: Path) -> Pipeline:
    """The same weights, never written."""
    parts = modules(preset)
    unet = parts["stage_c"]
    tokenizer = load_published_tokenizer(folder / "stable-cascade-prior" / "tokenizer", 16)
    return Pipeline(
        preset,
        TextEncoder(parts["text_encoder"], tokenizer),
        StageC(unet, build_adapter(preset, unet)),
        Decoder(preset, parts["stage_b"], parts["stage_a"]),
        model_id="memory",
    )


def image(pipeline: Pipeline, request: ImageRequest = REQUEST) -> np.ndarray:
    return pipeline.generate([request])[0].image_HWC


def load(preset: Preset, folder: Path, **how: object) -> Pipeline:
    return Pipeline.load(preset.name, folder, **{"with_adapter": False, **how})


# The generator


def test_a_published_folder_makes_the_picture_of_its_weights(
    preset: Preset, published: Path
) -> None:
    loaded = load(preset, published)
    made = image(loaded)
    assert made.shape == (128, 128, 3)
    assert made.std() > 0
    assert np.array_equal(made, image(from_memory(preset, published)))
    assert loaded.model_id.startswith("stabilityai/stable-cascade-prior:prior_lite:tiny@")
    assert not any(parameter.requires_grad for parameter in loaded.stage_c.unet.parameters())


def test_shards_make_the_same_picture(preset: Preset, published: Path, tmp_path: Path) -> None:
    write_published(tmp_path, preset, shard_size="20KB")
    prior = tmp_path / "stable-cascade-prior"
    index = prior / "prior_lite" / "diffusion_pytorch_model.safetensors.index.json"
    assert len(set(json.loads(index.read_text())["weight_map"].values())) > 2
    assert (prior / "text_encoder" / "model.safetensors.index.json").is_file()
    assert np.array_equal(image(load(preset, tmp_path)), image(load(preset, published)))


def test_where_a_tensor_lies_in_its_file_decides_nothing(preset: Preset, published: Path) -> None:
    """Products over weights at other addresses round otherwise: all begin where torch's own do."""
    loaded = load(preset, published)
    parts = (loaded.stage_c, loaded.text_encoder.model, loaded.decoder)
    vlm = Scripted.load(preset.name, published).model
    compressor = load_compressor(preset, published)
    for part in (*parts, vlm, compressor):
        assert not [n for n, p in part.named_parameters() if p.data_ptr() % ALIGNMENT]
    in_file = load_file(weight_file(published, preset, "stage_c"))
    assert any(tensor.data_ptr() % ALIGNMENT for tensor in in_file.values())


@pytest.mark.parametrize("shard_size", [None, "20KB"])
def test_the_bf16_variant_runs_with_float32_latents_times_and_adapter(
    preset: Preset, tmp_path: Path, same_bits: SameBits, shard_size: str | None
) -> None:
    write_published(tmp_path, preset, bf16=True, shard_size=shard_size)
    loaded = load(preset, tmp_path, dtype="bfloat16")
    assert loaded.stage_c.unet.dtype == loaded.decoder.stage_b.dtype == torch.bfloat16
    assert loaded.text_encoder.model.dtype == torch.bfloat16
    assert loaded.decoder.stage_a.dtype == torch.float32
    adapter = loaded.stage_c.adapter
    assert {parameter.dtype for parameter in adapter.parameters()} == {torch.float32}

    for weight in adapter.to_v.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    base, zero = (
        ImageRequest("a red boat", 1, user_emb_D=user_emb_D, steps=2)
        for user_emb_D in (None, np.zeros(preset.user_emb_dim, np.float32))
    )
    on = ImageRequest("a red boat", 1, user_emb_D=np.ones(32, np.float32), steps=2)
    drawn = [
        loaded.sample_latents([request], [torch.Generator().manual_seed(1)])
        for request in (base, zero, on)
    ]
    assert drawn[0].dtype == torch.float32
    assert same_bits(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert image(loaded, on).std() > 0


def test_the_adapter_takes_gradient_through_a_bf16_base(preset: Preset, published: Path) -> None:
    stage_c = load_generator(preset, published, dtype=torch.bfloat16).stage_c
    eps = stage_c(
        torch.randn(1, 16, 3, 3),
        torch.tensor([0.5]),
        torch.randn(1, 16, 16),
        torch.randn(1, 1, 24),
        torch.randn(1, preset.user_emb_dim),
    )
    assert eps.dtype == torch.float32
    eps.square().sum().backward()
    gradients = [weight.grad for weight in stage_c.adapter.to_v.parameters()]
    assert all(grad is not None and grad.dtype == torch.float32 for grad in gradients)
    assert any(bool(grad.abs().max() > 0) for grad in gradients)


def test_an_adapter_of_this_base_is_put_on_it(preset: Preset, folder: Path) -> None:
    own = from_memory(preset, folder)
    for weight in own.stage_c.adapter.to_v.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    path = folder / "adapter.safetensors"
    spec = adapter_spec(preset, encoder_id="encoder-1")
    save_artifact(path, own.stage_c.adapter.state_dict(), spec)
    loaded = load(preset, folder, with_adapter=True, encoder_id="encoder-1")
    mine = ImageRequest("a red boat", 1, user_emb_D=np.ones(32, np.float32), steps=2)
    assert np.array_equal(image(loaded, mine), image(own, mine))
    with pytest.raises(ArtifactError, match="user encoder is 'encoder-1', expected 'encoder-2'"):
        load(preset, folder, with_adapter=True, encoder_id="encoder-2")


def test_offloaded_parts_take_turns_and_make_the_same_picture(
    preset: Preset, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[tuple[str, str]] = []

    def record(module: torch.nn.Module) -> Callable[..., torch.nn.Module]:
        def to(device: torch.device | str) -> torch.nn.Module:
            turns.append((type(module).__name__, str(device)))
            return module

        return to

    loaded = load(preset, published, offload=True)
    loaded.device = torch.device("cpu:0")
    parts = (loaded.text_encoder.model, loaded.stage_c, loaded.decoder)
    for part in parts:
        monkeypatch.setattr(part, "to", record(part))
    made = image(loaded)
    names = ["CLIPTextModelWithProjection", "StageC", "CLIPTextModelWithProjection", "Decoder"]
    assert turns == [(name, device) for name in names for device in ("cpu:0", "cpu")]
    assert np.array_equal(made, image(load(preset, published)))


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_the_generator_runs_in_no_other_precision(dtype: str) -> None:
    with pytest.raises(ValueError, match=f"dtype '{dtype}': the generator runs in float32 or bfl"):
        generator_dtype(dtype, "cuda")
    assert generator_dtype(None, "cuda:1") == torch.bfloat16
    assert generator_dtype(None, "cpu") == torch.float32


def test_without_a_folder_there_is_no_adapter_to_load(preset: Preset) -> None:
    with pytest.raises(ValueError, match="no adapter is published for stable-cascade-1b"):
        Pipeline.load(preset.name)


# What does not fit


@pytest.mark.parametrize("part", ["stage_c", "stage_b", "stage_a", "text_encoder"])
def test_a_missing_a_misnamed_and_an_extra_key_are_named(
    preset: Preset, folder: Path, part: str
) -> None:
    path = weight_file(folder, preset, part)
    key = sorted(load_file(path))[3]

    def rename(tensors: dict[str, Tensor]) -> None:
        tensors[f"old.{key}"] = tensors.pop(key)

    edit_weights(path, rename)
    message = rf"{path.name}: 1 keys missing \['{key}'\], 1 keys unknown \['old.{key}'\]"
    with pytest.raises(ArtifactError, match=message):
        load(preset, folder)
    edit_weights(path, lambda tensors: tensors.update({key: tensors[f"old.{key}"].clone()}))
    with pytest.raises(ArtifactError, match=rf"0 keys missing \[\], 1 keys unknown \['old.{key}'"):
        load(preset, folder)


def test_another_shape_and_a_value_that_is_not_finite_are_named(
    preset: Preset, folder: Path
) -> None:
    path = weight_file(folder, preset, "stage_c")
    original = path.read_bytes()
    edit_weights(path, lambda tensors: tensors.update({"clip_txt_mapper.bias": torch.ones(3)}))
    with pytest.raises(ArtifactError, match=r"clip_txt_mapper.bias has shape \(3,\), expected"):
        load(preset, folder)
    path.write_bytes(original)
    bad = torch.full((16,), float("nan"))
    edit_weights(path, lambda tensors: tensors.update({"clip_txt_mapper.bias": bad}))
    with pytest.raises(ArtifactError, match=r"clip_txt_mapper\.bias holds NaN or infinity"):
        load(preset, folder)


def test_a_missing_file_says_what_was_looked_for(preset: Preset, folder: Path) -> None:
    weight_file(folder, preset, "stage_b").unlink()
    with pytest.raises(FileNotFoundError, match=r"decoder: looked for diffusion_pytorch_model\.sa"):
        load(preset, folder)
    shutil.rmtree(folder / "stable-cascade")
    with pytest.raises(FileNotFoundError, match="`ppd models pull stable-cascade-1b --dir"):
        load(preset, folder)


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("stage_c", "num_attention_heads", [4, 4], r"num_attention_heads is \[4, 4\]"),
        ("stage_b", "num_attention_heads", [0, 0, 2, 4], r"num_attention_heads is \[0, 0, 2, 4"),
        ("stage_b", "self_attn", False, "self_attn is False, expected True"),
        ("stage_a", "scale_factor", 0.5, "scale_factor is 0.5, expected 0.3764"),
        ("text_encoder", "hidden_act", "quick_gelu", "hidden_act is 'quick_gelu', expected 'gelu'"),
    ],
)
def test_a_setting_that_shapes_do_not_show_is_checked(
    preset: Preset, folder: Path, part: str, name: str, value: object, message: str
) -> None:
    path = weight_file(folder, preset, part).parent / "config.json"
    config = json.loads(path.read_text()) | {name: value}
    path.write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match=message):
        load(preset, folder)


def test_heads_of_levels_without_attention_do_not_matter(preset: Preset, folder: Path) -> None:
    path = weight_file(folder, preset, "stage_b").parent / "config.json"
    config = json.loads(path.read_text()) | {"num_attention_heads": [0, 0, 2, 2]}
    path.write_text(json.dumps(config))
    load(preset, folder)


def test_position_ids_of_older_files_are_no_extra_key(preset: Preset, folder: Path) -> None:
    path = weight_file(folder, preset, "text_encoder")
    ids = torch.arange(16)[None]
    edit_weights(path, lambda t: t.update({"text_model.embeddings.position_ids": ids}))
    load(preset, folder)


def test_shards_that_are_not_what_their_index_says_are_refused(
    preset: Preset, tmp_path: Path
) -> None:
    write_published(tmp_path, preset, shard_size="20KB")
    path = weight_file(tmp_path, preset, "stage_c")
    key = sorted(load_file(path))[0]
    edit_weights(path, lambda tensors: tensors.update({"extra": tensors.pop(key)}))
    message = rf"1 listed keys in no shard \['{key}'\], 1 keys not listed \['extra'\]"
    with pytest.raises(ArtifactError, match=message):
        load(preset, tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{path.name} is missing; .*index.json lists it"):
        load(preset, tmp_path)


# The lock


def test_a_pulled_folder_is_loaded_only_as_it_was_pulled(
    preset: Preset, published: Path, tmp_path: Path
) -> None:
    pull(preset, tmp_path, FolderHub(published, []), dtype=torch.float32)
    assert np.array_equal(image(load(preset, tmp_path)), image(load(preset, published)))

    path = weight_file(tmp_path, preset, "stage_a")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=rf"{path.name}: sha256 is '.*', expected"):
        load(preset, tmp_path)
    path.write_bytes(content)
    added = tmp_path / "stable-cascade-prior" / "tokenizer" / "added_tokens.json"
    added.write_text("{}")
    with pytest.raises(ArtifactError, match=r"added_tokens\.json: not among the files"):
        load(preset, tmp_path)


def test_a_damaged_lock_is_refused(preset: Preset, folder: Path) -> None:
    (folder / "ppd-models.json").write_text('{"format": "other"}')
    with pytest.raises(ArtifactError, match="not a lock"):
        load(preset, folder)


# The hub's cache


@pytest.fixture
def cache(published: Path, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds everything, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for hub_id, revision in preset.revisions.items():
        home = tmp_path / f"models--{hub_id.replace('/', '--')}"
        is_commit = len(revision) == 40
        commit = revision if is_commit else COMMITS[hub_id]
        shutil.copytree(published / hub_id.split("/")[-1], home / "snapshots" / commit)
        if not is_commit:
            (home / "refs").mkdir()
            (home / "refs" / revision).write_text(commit)
    return tmp_path


def test_offline_the_hubs_cache_is_read(preset: Preset, published: Path, cache: Path) -> None:
    loaded = Pipeline.load(preset.name, with_adapter=False)
    assert np.array_equal(image(loaded), image(load(preset, published)))
    encoder = user_encoder.UserEncoder.load(preset.name)
    assert encoder.encoder_version.startswith(f"{VLM_7B.split('/')[1]}-{COMMITS[VLM_7B][:12]}.")
    assert isinstance(load_compressor(preset, None), torch.nn.Module)


def test_offline_what_the_cache_lacks_is_named(preset: Preset, cache: Path) -> None:
    shutil.rmtree(cache / "models--stabilityai--stable-cascade")
    pinned = preset.revisions[DECODER]
    with pytest.raises(FileNotFoundError, match=f"{DECODER} at {pinned} is not in the hub's cache"):
        Pipeline.load(preset.name, with_adapter=False)


# The compressor


def test_the_compressor_is_loaded_strictly(preset: Preset, folder: Path) -> None:
    own = modules(preset)["compressor"]
    image_B3HW = torch.rand(1, 3, 64, 96)
    loaded = load_compressor(preset, folder)
    latent_BCHW = loaded(image_B3HW)
    assert latent_BCHW.shape == (1, 16, 2, 3)
    assert torch.equal(latent_BCHW, own(image_B3HW))
    assert not loaded.training

    path = folder / "stable-cascade" / "effnet_encoder.safetensors"
    counts = [key for key in own.state_dict() if key.endswith("num_batches_tracked")]
    assert len(counts) > 1
    edit_weights(path, lambda t: [t.pop(key) for key in counts])
    assert torch.equal(load_compressor(preset, folder)(image_B3HW), latent_BCHW)
    assert verify_part(preset, "compressor", folder, torch.float32).keys > len(counts)
    edit_weights(path, lambda t: t.update({"mapper.0.bias": torch.ones(16)}))
    with pytest.raises(ArtifactError, match=r"1 keys unknown \['mapper.0.bias'\]"):
        load_compressor(preset, folder)


def test_the_small_compressor_is_loaded_by_the_same_function(tiny: Preset, tmp_path: Path) -> None:
    own = build_compressor(tiny)
    spec = ArtifactSpec("compressor", {}, tiny.base_model)
    save_artifact(tmp_path / "compressor.safetensors", own.state_dict(), spec)
    image_B3HW = torch.rand(1, 3, 64, 64)
    assert torch.equal(load_compressor(tiny, tmp_path)(image_B3HW), own(image_B3HW))


# The VLM


@pytest.mark.parametrize(
    ("bf16", "shard_size", "dtype"),
    [(False, None, "float32"), (False, "20KB", "float32"), (True, None, "bfloat16")],
)
def test_a_published_vlm_writes_down_a_taste(
    preset: Preset, tmp_path: Path, bf16: bool, shard_size: str | None, dtype: str
) -> None:
    write_published(tmp_path, preset, bf16=bf16, shard_size=shard_size)
    encoder = Scripted.load(preset.name, tmp_path, dtype=dtype)
    assert str(encoder.model.dtype) == f"torch.{dtype}"
    user = encoder.encode(four_choices())
    assert user.transcript == RESPONSE
    assert user.profile == "Prefers bright pictures."
    assert user.user_emb_D.shape == (preset.user_emb_dim,)
    assert user.user_emb_D.dtype == np.float32
    version = user_encoder.UserEncoder.version_of(preset.name, tmp_path, dtype=dtype)
    assert version == encoder.encoder_version


def test_the_vlms_own_folder_will_do(preset: Preset, published: Path) -> None:
    whole = Scripted.load(preset.name, published)
    alone = Scripted.load(preset.name, published / VLM_7B.split("/")[1])
    assert alone.encoder_version == whole.encoder_version
    assert np.array_equal(
        alone.encode(four_choices()).user_emb_D, whole.encode(four_choices()).user_emb_D
    )


def test_the_names_of_the_published_vision_tower_are_known(preset: Preset, folder: Path) -> None:
    expected = Scripted.load(preset.name, folder).encode(four_choices()).user_emb_D
    path = weight_file(folder, preset, "vlm")
    tensors = load_file(path)
    renamed = {
        key.replace("vision_tower.", "vision_tower.vision_model."): value
        for key, value in tensors.items()
    }
    assert renamed.keys() != tensors.keys()
    save_file(renamed, path, metadata={"format": "pt"})
    assert np.array_equal(
        Scripted.load(preset.name, folder).encode(four_choices()).user_emb_D, expected
    )


def test_a_vlm_with_a_misnamed_or_misshapen_key_is_refused(preset: Preset, folder: Path) -> None:
    path = weight_file(folder, preset, "vlm")
    original = path.read_bytes()
    edit_weights(path, lambda t: t.update({"image_newlines": t.pop("image_newline")}))
    message = r"1 keys missing \['model.image_newline'\], 1 keys unknown \['image_newlines'\]"
    with pytest.raises(ArtifactError, match=message):
        Scripted.load(preset.name, folder)
    path.write_bytes(original)
    edit_weights(path, lambda t: t.update({"image_newline": torch.ones(5)}))
    with pytest.raises(ArtifactError, match=r"1 keys of another shape .*image_newline"):
        Scripted.load(preset.name, folder)


def test_an_offloaded_vlm_is_on_its_device_only_while_it_reads(
    preset: Preset, published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Scripted.load(preset.name, published, offload=True)
    turns: list[str] = []
    monkeypatch.setattr(encoder.model, "to", lambda device: turns.append(str(device)))
    encoder.device = torch.device("cpu:0")
    encoder.encode(four_choices())
    assert turns == ["cpu:0", "cpu"]


def test_a_vlm_in_no_other_precision(preset: Preset, published: Path) -> None:
    with pytest.raises(ValueError, match="dtype 'int4': the VLM runs in float32 or bfloat16 or fl"):
        Scripted.load(preset.name, published, dtype="int4")
