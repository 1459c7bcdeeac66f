"""Rewards from published files (random weights in the published layout) and the world's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import gelu, normalize

from ppd_model.files.artifact import ArtifactError, ArtifactSpec, load_artifact, save_artifact
from ppd_model.pipeline import MINI_WEIGHTS_DIR
from tests.tiny_rewards import WORDS, write_tokenizer
from training.rewards import picture_tower, published, world_rewards
from training.rewards.catalog import RewardSources, load_rewards
from training.rewards.clip import (
    VIT_H_14,
    VIT_L_14,
    build_clip,
    frame,
    load_clip,
    load_clip_tokenizer,
)
from training.rewards.open_clip_keys import to_transformers
from training.rewards.picture_tower import TEXT_ENCODER
from training.rewards.weights import first_file, read_tensors
from training.world.captions import SETTING_PHRASES, SUBJECT_WORDS, TEMPLATES, canonical
from training.world.painter import paint
from training.world.scene import LOOKS, SETTINGS, Scene

SIDE, PATCH, WIDTH, TEXT_WIDTH, JOINT, HEADS, TOKENS = 28, 14, 24, 16, 12, 2, 9
ROUNDING = 16 * float(np.finfo(np.float32).eps)
"""Of numbers about 1 that a few layers of sums make in float32."""
VOCABULARY = len(WORDS) + 2


def tiny(projection: int = JOINT, act: str = "gelu") -> dict[str, Any]:
    shared = {"num_hidden_layers": 2, "num_attention_heads": HEADS, "hidden_act": act}
    return {
        "projection_dim": projection,
        "text_config": {
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 4 * TEXT_WIDTH,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": TOKENS,
            **shared,
        },
        "vision_config": {
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "image_size": SIDE,
            "patch_size": PATCH,
            **shared,
        },
    }


class OpenClipBlock(nn.Module):
    """A residual attention block with open_clip's names, on torch's own attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
        )

    def forward(self, x_BSD: Tensor, mask_SS: Tensor | None) -> Tensor:
        normed = self.ln_1(x_BSD)
        x_BSD = x_BSD + self.attn(normed, normed, normed, attn_mask=mask_SS, need_weights=False)[0]
        return x_BSD + self.mlp["c_proj"](gelu(self.mlp["c_fc"](self.ln_2(x_BSD))))


class OpenClipTower(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(OpenClipBlock(width) for _ in range(2))


class OpenClipVisual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(WIDTH))
        self.positional_embedding = nn.Parameter(torch.randn((SIDE // PATCH) ** 2 + 1, WIDTH))
        self.proj = nn.Parameter(torch.randn(WIDTH, JOINT))
        self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.transformer = OpenClipTower(WIDTH)

    def forward(self, pixels_B3HW: Tensor) -> Tensor:
        patches_BSD = self.conv1(pixels_B3HW).flatten(2).mT
        first = self.class_embedding.expand(len(patches_BSD), 1, -1)
        x_BSD = self.ln_pre(torch.cat([first, patches_BSD], 1) + self.positional_embedding)
        for block in self.transformer.resblocks:
            x_BSD = block(x_BSD, None)
        return self.ln_post(x_BSD[:, 0]) @ self.proj


class OpenClip(nn.Module):
    """open_clip's two towers, written from the paper's description of them, with its names."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = OpenClipVisual()
        self.transformer = OpenClipTower(TEXT_WIDTH)
        self.token_embedding = nn.Embedding(VOCABULARY, TEXT_WIDTH)
        self.positional_embedding = nn.Parameter(torch.randn(TOKENS, TEXT_WIDTH))
        self.ln_final = nn.LayerNorm(TEXT_WIDTH)
        self.text_projection = nn.Parameter(torch.randn(TEXT_WIDTH, JOINT))
        self.logit_scale = nn.Parameter(torch.tensor(3.0))
        for parameter in self.parameters():  # biases and norms that start at 0 or 1 tell nothing
            if parameter.ndim == 1:
                nn.init.normal_(parameter, mean=0.5)

    def text(self, ids_BS: Tensor) -> Tensor:
        x_BSD = self.token_embedding(ids_BS) + self.positional_embedding[: ids_BS.shape[1]]
        length = ids_BS.shape[1]
        mask_SS = torch.full((length, length), float("-inf")).triu(1)
        for block in self.transformer.resblocks:
            x_BSD = block(x_BSD, mask_SS)
        # open_clip reads the text off at its largest id, the end token.
        x_BD = self.ln_final(x_BSD)[torch.arange(len(ids_BS)), ids_BS.argmax(1)]
        return x_BD @ self.text_projection


@dataclass(frozen=True)
class Published:
    """A folder of rewards, with the open_clip model behind HPS."""

    folder: Path
    hps: OpenClip


@pytest.fixture
def folder_of_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """The published layout with tiny random models: transformers' names, open_clip's names in a
    half-precision torch file, an old file with buffers."""
    torch.manual_seed(0)
    monkeypatch.setattr(published, "VIT_H_14", tiny())
    monkeypatch.setattr(published, "VIT_L_14", tiny(projection=20, act="quick_gelu"))
    write_tokenizer(tmp_path / published.VIT_H_FOLDER)

    def random_clip(size: dict[str, Any]) -> dict[str, Tensor]:
        state = build_clip(size, None).state_dict()
        return {key: 0.3 * torch.randn(value.shape) for key, value in state.items()}

    save_file(random_clip(tiny()), tmp_path / published.VIT_H_FOLDER / "model.safetensors")
    large = tmp_path / published.VIT_L_FOLDER
    large.mkdir()
    save_file(random_clip(tiny(projection=20, act="quick_gelu")), large / "model.safetensors")
    pick = tmp_path / published.PICKSCORE_FOLDER
    pick.mkdir()
    old = {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
    torch.save(random_clip(tiny()) | old, pick / "pytorch_model.bin")
    hps = OpenClip().eval()
    (tmp_path / "HPSv2").mkdir()
    state = {key: value.half() for key, value in hps.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / published.HPS_FILE)
    predictor = tmp_path / published.AESTHETIC_FILE
    predictor.parent.mkdir()
    torch.save(published.AestheticPredictor(20).state_dict(), predictor)
    return Published(tmp_path, hps)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def test_narrow_files_are_refused_where_published_ones_are_expected(
    folder_of_rewards: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "narrow", lambda size: size)  # the fixture's are as narrow
    sources = RewardSources(rewards_dir=folder_of_rewards.folder, rewards_narrow=True)
    assert np.isfinite(load_rewards(("clip",), sources)[0].score(pictures(1), ["a cat"])).all()
    monkeypatch.undo()
    published_ones = RewardSources(rewards_dir=folder_of_rewards.folder)
    with pytest.raises((ArtifactError, ValueError)):
        load_rewards(("clip",), published_ones)


def test_open_clip_weights_give_open_clips_vectors(tmp_path: Path) -> None:
    torch.manual_seed(1)
    reference = OpenClip().eval()
    path = tmp_path / "open_clip_pytorch_model.bin"
    torch.save(reference.state_dict(), path)
    write_tokenizer(tmp_path)
    tokenizer = load_clip_tokenizer(tmp_path)
    clip = load_clip(path, tiny(), tokenizer)
    images = pictures(3)
    prompts = ["a cat on the moon", "the dog", "a a a a a a a a a a a a"]
    pixels = torch.stack([frame(image, SIDE, "crop") for image in images])
    ids = tokenizer(prompts, padding="max_length", max_length=TOKENS, truncation=True)["input_ids"]
    with torch.no_grad():
        expected_images = normalize(reference.visual(pixels), dim=-1)
        expected_texts = normalize(reference.text(torch.tensor(ids)), dim=-1)
    # Two implementations sum in another order: unit vectors differ by a few roundings.
    torch.testing.assert_close(clip.images(images), expected_images, atol=ROUNDING, rtol=0)
    torch.testing.assert_close(clip.texts(prompts), expected_texts, atol=ROUNDING, rtol=0)
    assert clip.logit_scale == pytest.approx(np.exp(3.0), rel=1e-6)


def test_padding_does_not_change_a_text(folder_of_rewards: Published) -> None:
    folder = folder_of_rewards.folder / published.VIT_H_FOLDER
    clip = load_clip(folder / "model.safetensors", tiny(), load_clip_tokenizer(folder))
    ids = clip.tokenizer(["a cat"], return_tensors="pt").input_ids
    assert ids.shape == (1, 4)
    with torch.no_grad():
        alone = clip.model.get_text_features(input_ids=ids).pooler_output
    torch.testing.assert_close(clip.texts(["a cat"]), normalize(alone, dim=-1))


def test_keys_that_open_clip_does_not_have_are_named(tmp_path: Path) -> None:
    tensors = OpenClip().state_dict() | {
        "visual.transformer.resblocks.0.ls_1.gamma": torch.ones(1),
        "transformer.resblocks.0.extra.weight": torch.ones(1),
    }
    with pytest.raises(ArtifactError, match=r"2 keys unknown .*extra\.weight.*ls_1\.gamma"):
        to_transformers(tensors, tmp_path / "file.pt")


def test_missing_and_misshapen_weights_are_named(tmp_path: Path) -> None:
    state = OpenClip().state_dict()
    lacking = {key: value for key, value in state.items() if key != "visual.ln_post.bias"}
    torch.save(lacking, tmp_path / "lacking.pt")
    with pytest.raises(ArtifactError, match=r"1 keys missing .*post_layernorm\.bias"):
        load_clip(tmp_path / "lacking.pt", tiny(), None)
    torch.save(state | {"visual.proj": torch.ones(WIDTH, JOINT + 1)}, tmp_path / "wide.pt")
    with pytest.raises(ArtifactError, match=r"visual_projection\.weight has shape \(13, 24\)"):
        load_clip(tmp_path / "wide.pt", tiny(), None)
    torch.save(state | {"logit_scale": torch.tensor(torch.nan)}, tmp_path / "nan.pt")
    with pytest.raises(ArtifactError, match="logit_scale holds NaN"):
        load_clip(tmp_path / "nan.pt", tiny(), None)


def test_a_pickle_that_holds_more_than_tensors_is_never_run(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "it-ran",))

    torch.save({"layers.0.weight": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(ArtifactError, match="tensors alone"):
        read_tensors(tmp_path / "harmful.pth")
    assert not (tmp_path / "it-ran").exists()
    torch.save({"state_dict": {"epoch": 3}}, tmp_path / "other.pt")
    with pytest.raises(ArtifactError, match="epoch"):
        read_tensors(tmp_path / "other.pt")


def test_published_sizes_have_the_published_numbers_of_weights() -> None:
    for size, expected in ((VIT_H_14, 986_109_441), (VIT_L_14, 427_616_513)):
        model = build_clip(size, None)
        assert all(parameter.is_meta for parameter in model.parameters())
        assert sum(parameter.numel() for parameter in model.parameters()) == expected
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in published.AestheticPredictor().state_dict().items()}
    assert shapes == {
        "layers.0.weight": (1024, 768),
        "layers.0.bias": (1024,),
        "layers.2.weight": (128, 1024),
        "layers.2.bias": (128,),
        "layers.4.weight": (64, 128),
        "layers.4.bias": (64,),
        "layers.6.weight": (16, 64),
        "layers.6.bias": (16,),
        "layers.7.weight": (1, 16),
        "layers.7.bias": (1,),
    }


def test_every_published_reward_scores_a_batch_row_by_row(folder_of_rewards: Published) -> None:
    names = ("clip", "aesthetic", "hps", "pickscore")
    rewards = load_rewards(names, RewardSources(rewards_dir=folder_of_rewards.folder))
    images, prompts = pictures(3), ["a cat", "the dog on the moon", "moon"]
    for name, reward in zip(names, rewards, strict=True):
        scores = reward.score(images, prompts)
        assert (reward.name, scores.shape, scores.dtype) == (name, (3,), np.float32)
        turned = reward.score(images[::-1].copy(), prompts[::-1])
        np.testing.assert_allclose(turned[::-1], scores, atol=100 * ROUNDING, rtol=ROUNDING)
        other = reward.score(images, [prompts[1], prompts[0], prompts[2]])
        assert np.allclose(other, scores) == (name == "aesthetic")
        assert np.ptp(scores) > 0
    assert len({reward.identity for reward in rewards}) == 4


def test_both_versions_of_hps_can_be_asked(folder_of_rewards: Published) -> None:
    folder = folder_of_rewards.folder
    state = torch.load(folder / published.HPS_FILE, weights_only=True)["state_dict"]
    older = {key: torch.randn_like(value) for key, value in state.items()}
    torch.save({"state_dict": older}, folder / "HPSv2" / "HPS_v2_compressed.pt")
    rewards = load_rewards(("hps", "hps_v2.0"), RewardSources(rewards_dir=folder))
    new, old = (reward.score(pictures(2), ["a cat", "the dog"]) for reward in rewards)
    assert not np.allclose(new, old)
    assert rewards[0].identity.startswith("HPS_v2.1_compressed.pt-")
    assert rewards[1].identity.startswith("HPS_v2_compressed.pt-")


@pytest.mark.parametrize("name", ["clip", "aesthetic", "hps", "pickscore"])
def test_scores_of_another_precision_are_not_the_same_scores(
    folder_of_rewards: Published, name: str
) -> None:
    of = {
        dtype: published.load_published(name, folder_of_rewards.folder, dtype=dtype).identity
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert of[torch.float32].endswith(".float32")
    assert of[torch.bfloat16] == of[torch.float32].removesuffix("float32") + "bfloat16"


def test_scales_are_those_of_the_paper(folder_of_rewards: Published) -> None:
    clip, hps, pick = load_rewards(
        ("clip", "hps", "pickscore"), RewardSources(rewards_dir=folder_of_rewards.folder)
    )
    assert isinstance(clip, published.CosineReward)
    assert isinstance(pick, published.CosineReward)
    assert clip.scale == 100
    assert pick.scale == pytest.approx(pick.encoder.logit_scale)
    images, prompts = pictures(2), ["a cat", "the dog"]
    pixels = torch.stack([frame(image, SIDE, "pad") for image in images])
    folder = folder_of_rewards.folder / published.VIT_H_FOLDER
    ids = load_clip_tokenizer(folder)(prompts, padding="max_length", max_length=TOKENS)["input_ids"]
    with torch.no_grad():
        picture_BD = normalize(folder_of_rewards.hps.visual(pixels), dim=-1)
        text_BD = normalize(folder_of_rewards.hps.text(torch.tensor(ids)), dim=-1)
    expected = 100 * (picture_BD * text_BD).sum(-1)
    # The file is in half precision; a cosine, times 100, is off by about its eps, three allowed.
    half = 3 * 100 * float(np.finfo(np.float16).eps)
    np.testing.assert_allclose(hps.score(images, prompts), expected, atol=half, rtol=0)


def test_the_aesthetic_predictor_is_one_linear_map(folder_of_rewards: Published) -> None:
    """Five linear maps without activations make one: half way between is half way."""
    predictor = published.load_predictor(folder_of_rewards.folder / published.AESTHETIC_FILE, 20)
    a, b = torch.randn(2, 20)
    middle = predictor(torch.stack([a, b, (a + b) / 2])).detach()
    assert float(middle[2]) == pytest.approx(float(middle[:2].mean()), abs=ROUNDING)


def test_what_is_missing_is_named(folder_of_rewards: Published, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none of model\.safetensors.*is there"):
        first_file(tmp_path / "nowhere", published.CLIP_FILES)
    (folder_of_rewards.folder / published.HPS_FILE).unlink()
    with pytest.raises(FileNotFoundError, match="HPS_v2"):
        load_rewards(("hps",), RewardSources(rewards_dir=folder_of_rewards.folder))
    with pytest.raises(ValueError, match="needs rewards_dir"):
        load_rewards(("clip",), RewardSources())
    with pytest.raises(ValueError, match="no reward 'beauty'"):
        load_rewards(("beauty",), RewardSources())
    with pytest.raises(ValueError, match="each once"):
        load_rewards(("detail", "detail"), RewardSources())


def test_a_tokenizer_of_another_model_is_refused(folder_of_rewards: Published) -> None:
    folder = folder_of_rewards.folder / published.VIT_H_FOLDER
    tokenizer = load_clip_tokenizer(folder)
    size = tiny()
    size["text_config"]["vocab_size"] += 1
    with pytest.raises(ValueError, match="8 tokens, the model reads 9"):
        load_clip(folder / "model.safetensors", size, tokenizer)


def test_a_wide_picture_is_cut_or_put_between_bars() -> None:
    white = np.full((SIDE, 2 * SIDE, 3), 255, dtype=np.uint8)
    white[:, :4] = 0
    cut, barred = frame(white, SIDE, "crop"), frame(white, SIDE, "pad")
    assert cut.shape == barred.shape == (3, SIDE, SIDE)
    # All white: the channels differ by their means and deviations, by less than 1.
    assert float(cut.min()) == pytest.approx(float(cut[0].min()), abs=1)
    assert torch.all(cut[0] > 1.9)  # the black edge is cut away
    assert torch.all(barred[0, : SIDE // 4] < 0)
    assert torch.all(barred[0, SIDE // 4 : -SIDE // 4, 4:] > 1.5)


def test_a_square_picture_of_the_models_side_is_only_normalised() -> None:
    image = pictures(1)[0]
    expected = (image[..., 0] / 255 - 0.48145466) / 0.26862954
    for framing in ("crop", "pad"):
        np.testing.assert_allclose(frame(image, SIDE, framing)[0], expected, atol=ROUNDING)


def test_rewards_refuse_batches_that_do_not_fit() -> None:
    (detail,) = load_rewards(("detail",), RewardSources())
    with pytest.raises(ValueError, match="2 pictures and 1 prompts"):
        detail.score(np.zeros((2, 128, 128, 3), np.uint8), ["a boat at the sea"])
    with pytest.raises(ValueError, match="uint8"):
        detail.score(np.zeros((1, 128, 128, 3), np.float32), ["a boat at the sea"])


def test_every_caption_of_the_world_names_its_content() -> None:
    for subject, words in enumerate(SUBJECT_WORDS.values()):
        for setting, phrases in enumerate(SETTING_PHRASES.values()):
            for template in TEMPLATES:
                for word in words:
                    for phrase in phrases:
                        caption = template.format(subject=word, setting=phrase)
                        assert (
                            world_rewards.content_named(caption)
                            == subject * len(SETTINGS) + setting
                        )


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a boat", "no setting"),
        ("in the mountains", "no subject"),
        ("a boat and a tree at the sea", "'boat', 'tree'"),
        ("a spaceboat at the sea", "no subject"),
    ],
)
def test_a_prompt_without_one_content_is_refused(prompt: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        world_rewards.content_named(prompt)


def scene(subject: int, setting: int, **looks: float) -> np.ndarray:
    looks_L = np.array([looks.get(name, 0.0) for name in LOOKS], dtype=np.float32)
    return paint(Scene(subject, setting, looks_L, seed=5))


def test_looks_are_read_from_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    measure_all = world_rewards.measure_all

    def counted(images: np.ndarray) -> np.ndarray:
        measured.append(len(images))
        return measure_all(images)

    monkeypatch.setattr(world_rewards, "measure_all", counted)
    warmth, detail = load_rewards(("warmth", "detail"), RewardSources())
    images = np.stack([scene(3, 2, warmth=0.9, detail=-0.9), scene(3, 2, warmth=-0.9, detail=0.9)])
    prompts = [canonical(3, 2)] * 2
    assert np.ptp(warmth.score(images, prompts)) > 1
    assert warmth.score(images, prompts)[0] > warmth.score(images, prompts)[1]
    assert detail.score(images, prompts)[0] < detail.score(images, prompts)[1]
    assert measured == [2], "the same pictures are measured once"
    warmth.score(images[:1], prompts[:1])
    assert measured == [2, 1]


class Seer(picture_tower.PictureTower):
    """Sees one prompt's words in every picture."""

    def __init__(self, seen_D: torch.Tensor) -> None:
        super().__init__(len(seen_D))
        self.seen_D = seen_D

    def read(self, images_BHW3: np.ndarray) -> torch.Tensor:
        return torch.nn.functional.normalize(self.seen_D.expand(len(images_BHW3), -1), dim=-1)


def test_alignment_is_a_hundred_times_the_cosine_of_picture_and_words() -> None:
    encoder = picture_tower.text_encoder_of(MINI_WEIGHTS_DIR)
    said, other = canonical(0, 0), canonical(3, 2)
    said_D, other_D = encoder.encode([said, other]).pooled_B1D[:, 0]
    alignment = world_rewards.AlignmentReward("alignment", encoder, Seer(said_D))
    scores = alignment.score(np.stack([scene(0, 0)] * 2), [said, other])
    cosine = torch.nn.functional.cosine_similarity(said_D, other_D, dim=0)
    np.testing.assert_allclose(scores, [100, 100 * float(cosine)], atol=100 * ROUNDING)


def test_a_tower_belongs_to_the_weights_of_its_text_encoder(tmp_path: Path) -> None:
    """Exported once more, the file differs and the weights do not."""
    encoder = picture_tower.text_encoder_of(MINI_WEIGHTS_DIR)
    width = encoder.model.config.projection_dim
    tower = tmp_path / picture_tower.FILE
    save_artifact(
        tower,
        picture_tower.PictureTower(width).state_dict(),
        ArtifactSpec(
            picture_tower.ARTIFACT_KIND,
            {"width": width},
            "mini",
            {"text_weights_sha256": picture_tower.weights_sha256(encoder)},
        ),
    )
    tokenizer = MINI_WEIGHTS_DIR / picture_tower.TEXT_TOKENIZER
    (tmp_path / tokenizer.name).write_bytes(tokenizer.read_bytes())
    tensors, spec = load_artifact(MINI_WEIGHTS_DIR / TEXT_ENCODER, kind="text_encoder")
    again = replace(spec, extra={"commit": "another"})
    save_artifact(tmp_path / TEXT_ENCODER, tensors, again)
    assert picture_tower.load_tower(tower, tmp_path) is not None
    tensors["text_projection.weight"][0, 0] += 0.1
    save_artifact(tmp_path / TEXT_ENCODER, tensors, again)
    with pytest.raises(ArtifactError, match="belongs to a text encoder"):
        picture_tower.load_tower(tower, tmp_path)


def test_a_run_of_another_text_encoder_exports_no_tower(tmp_path: Path) -> None:
    encoder = picture_tower.text_encoder_of(MINI_WEIGHTS_DIR)
    run = tmp_path / "text_encoder"
    run.mkdir()
    states = {name: value + 0.1 for name, value in encoder.model.state_dict().items()}
    torch.save({"text_encoder": states, "reader": {}}, run / "ema.pt")
    with pytest.raises(ValueError, match="another text encoder"):
        picture_tower.export(tmp_path, MINI_WEIGHTS_DIR, tmp_path / "out")
    assert not (tmp_path / "out").exists()
