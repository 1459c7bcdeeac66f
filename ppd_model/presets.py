"""The three sizes of the one model: mini, stable-cascade-1b, stable-cascade.

A published size may be followed by options: ``stable-cascade-1b+lite-decoder+small-vlm``. With
``+tiny`` its files keep their names and keys and its layers are a few values wide: for rehearsals
and tests, on weights that are random (tests/tiny_published.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ppd_model.types import Sampling, Solver

Target = Literal["epsilon", "velocity"]
"""What a network predicts: the noise, or the velocity."""

STABLE_CASCADE_PX_PER_LATENT = 42.67

PRIOR = "stabilityai/stable-cascade-prior"
DECODER = "stabilityai/stable-cascade"
VLM_7B = "llava-hf/llava-onevision-qwen2-7b-ov-chat-hf"
VLM_05B = "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"

REVISIONS = {
    PRIOR: "main",
    DECODER: "a89f66d459ae653e3b4d4f992a7c3789d0dc4d16",
    VLM_7B: "main",
    VLM_05B: "74dd0bf867a4cda7950c17663794267c60cf4b40",
}
"""Commit of each published repository, or the branch where no commit is known to be right."""


@dataclass(frozen=True)
class PublishedPart:
    """Where a part lies in its repository: ``{folder}/{stem}.safetensors``, whole or in shards.

    ``beside`` are patterns of the small files that belong to it (configuration, tokenizer).
    """

    repository: str
    folder: str = ""
    stem: str = ""
    """Name of the weights without their ending; "" for a part without weights."""
    beside: tuple[str, ...] = ("*.json", "*.txt", "*.jinja")
    full_precision: bool = False
    """Small, and run in float32: its plain file is wanted whatever the others run in."""


@dataclass(frozen=True)
class Preset:
    """Everything that tells one size from another; the code path is the same.

    ``stage_c``, ``stage_b``, ``stage_a`` and ``text_encoder`` are keyword arguments of
    ``StableCascadeUNet``, ``StableCascadeUNet``, ``PaellaVQModel`` and ``CLIPTextConfig``;
    ``compressor`` those of ``SmallCompressor``, or of ``EfficientNetEncoder`` where it has
    ``stages``.
    """

    name: str
    base_model: str
    default_side_px: int
    allowed_sides_px: tuple[int, ...]
    px_per_latent: float
    stage_a_downscale: int
    """Pixels per Stage A latent, along one side."""
    stage_c: dict[str, Any]
    stage_b: dict[str, Any]
    stage_a: dict[str, Any]
    text_encoder: dict[str, Any]
    vlm: str | dict[str, Any]
    """The hub id of a published LLaVA-OneVision, or the small configuration."""
    user_emb_dim: int
    user_token_dim: int
    user_tokens: int = 4
    latent_channels: int = 16
    previewer_hidden: int = 512
    sampling: Sampling = field(default_factory=Sampling)
    personalize_below: float = 1.0
    """The adapter acts at times t up to this. 1 is always, as in the paper."""
    stage_c_x0_clamp: float | None = None
    stage_b_x0_clamp: float | None = None
    stage_b_target: Target = "epsilon"
    stage_b_steps: int = 10
    stage_b_solver: Solver = "ddpm"
    stage_b_guidance: float = 0.0
    stage_b_uses_text: bool = True
    compressor: dict[str, Any] = field(default_factory=dict)
    published: dict[str, PublishedPart] = field(default_factory=dict)
    """Part -> where it was published; empty for ``mini``, whose weights are this project's own."""
    revisions: dict[str, str] = field(default_factory=dict)
    """Repository -> commit or branch that is used unless another is asked for."""

    def latent_hw(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Height and width of the Stage C latents of a picture, rounded up.

        Raises ValueError for a side this preset does not make.
        """
        for side_px in (height_px, width_px):
            if side_px not in self.allowed_sides_px:
                raise ValueError(
                    f"side of {side_px} px: {self.name} makes {list(self.allowed_sides_px)}"
                )
        return (
            math.ceil(height_px / self.px_per_latent),
            math.ceil(width_px / self.px_per_latent),
        )


def get_preset(name: str) -> Preset:
    """The preset of that name, with its options. Raises ValueError that lists what there is."""
    makers = {
        "mini": _mini,
        "stable-cascade-1b": _stable_cascade_1b,
        "stable-cascade": _stable_cascade,
    }
    options = {"lite-decoder": _with_lite_decoder, "small-vlm": _with_small_vlm, "tiny": _tiny}
    size, *chosen = name.split("+")
    if size not in makers:
        raise ValueError(f"unknown preset {size!r}; known: {', '.join(makers)}")
    preset = makers[size]()
    for option in chosen:
        if option not in options or not preset.published:
            known = ", ".join(options) if preset.published else "none"
            raise ValueError(f"unknown option {option!r} of preset {size!r}; known: {known}")
        preset = options[option](preset)
    return replace(preset, name=name)


_CTA = ("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock")
_CT = ("SDCascadeResBlock", "SDCascadeTimestepBlock")

# What `mini` shares with Stability AI's sizes, and their values (StableCascade, modules/stage_c.py,
# stage_b.py); a size overrides the rest.
_STAGE_C = dict(
    in_channels=16,
    out_channels=16,
    patch_size=1,
    timestep_ratio_embedding_dim=64,
    down_blocks_repeat_mappers=(1, 1),
    up_blocks_repeat_mappers=(1, 1),
    block_types_per_layer=(_CTA, _CTA),
    clip_text_in_channels=1280,
    clip_text_pooled_in_channels=1280,
    clip_image_in_channels=768,
    clip_seq=4,
    kernel_size=3,
    dropout=(0.1, 0.1),
    self_attn=True,
    timestep_conditioning_type=("sca", "crp"),
    switch_level=(False,),
)
_STAGE_B = dict(
    in_channels=4,
    out_channels=4,
    patch_size=2,
    timestep_ratio_embedding_dim=64,
    conditioning_dim=1280,
    block_out_channels=(320, 640, 1280, 1280),
    num_attention_heads=(-1, -1, 20, 20),
    down_num_layers_per_block=(2, 6, 28, 6),
    up_num_layers_per_block=(6, 28, 6, 2),
    down_blocks_repeat_mappers=(1, 1, 1, 1),
    up_blocks_repeat_mappers=(3, 3, 2, 2),
    block_types_per_layer=(_CT, _CT, _CTA, _CTA),
    clip_text_in_channels=None,
    clip_text_pooled_in_channels=1280,
    clip_image_in_channels=None,
    clip_seq=4,
    effnet_in_channels=16,
    pixel_mapper_in_channels=3,
    kernel_size=3,
    dropout=(0.0, 0.0, 0.1, 0.1),
    self_attn=True,
    timestep_conditioning_type=("sca",),
    switch_level=None,
)
_STAGE_B_LITE = _STAGE_B | dict(
    block_out_channels=(320, 576, 1152, 1152),
    num_attention_heads=(-1, 9, 18, 18),
    down_num_layers_per_block=(2, 4, 14, 4),
    up_num_layers_per_block=(4, 14, 4, 2),
    up_blocks_repeat_mappers=(2, 2, 2, 2),
)
_STAGE_A = dict(
    in_channels=3,
    out_channels=3,
    up_down_scale_factor=2,
    levels=2,
    bottleneck_blocks=12,
    embed_dim=384,
    latent_channels=4,
    num_vq_embeddings=8192,
    scale_factor=0.3764,
)
_CLIP_BIGG = dict(
    vocab_size=49408,
    hidden_size=1280,
    intermediate_size=5120,
    projection_dim=1280,
    num_hidden_layers=32,
    num_attention_heads=20,
    max_position_embeddings=77,
    hidden_act="gelu",
)
_EFFICIENTNET_V2_S = (
    # block, expansion, stride, channels, repeats (Tan and Le, 2021, Table 4)
    ("fused", 1, 1, 24, 2),
    ("fused", 4, 2, 48, 4),
    ("fused", 4, 2, 64, 4),
    ("squeezed", 4, 2, 128, 6),
    ("squeezed", 6, 1, 160, 9),
    ("squeezed", 6, 2, 256, 15),
)


def _mini() -> Preset:
    text_width = 128
    return Preset(
        name="mini",
        base_model="ppd-mini-1",
        default_side_px=128,
        allowed_sides_px=(128,),
        px_per_latent=16,
        stage_a_downscale=4,
        previewer_hidden=48,
        stage_c=_STAGE_C
        | dict(
            conditioning_dim=128,
            block_out_channels=(96, 192),
            num_attention_heads=(3, 6),
            down_num_layers_per_block=(1, 2),
            up_num_layers_per_block=(2, 1),
            clip_text_in_channels=text_width,
            clip_text_pooled_in_channels=text_width,
            clip_image_in_channels=32,
            dropout=(0.0, 0.0),
            switch_level=None,
        ),
        stage_b=_STAGE_B
        | dict(
            timestep_ratio_embedding_dim=32,
            conditioning_dim=64,
            block_out_channels=(64, 128),
            num_attention_heads=(-1, 4),
            down_num_layers_per_block=(2, 2),
            up_num_layers_per_block=(2, 2),
            down_blocks_repeat_mappers=(1, 1),
            up_blocks_repeat_mappers=(1, 1),
            block_types_per_layer=(_CT, _CTA),
            clip_text_pooled_in_channels=text_width,
            clip_seq=1,
            dropout=(0.0, 0.0),
        ),
        stage_a=_STAGE_A
        | dict(
            bottleneck_blocks=1,
            embed_dim=64,
            num_vq_embeddings=1024,
            scale_factor=1.0,
            decoder_channels=(48, 32, 8),
            decoder_blocks=(2, 1),
        ),
        text_encoder=dict(
            hidden_size=text_width,
            intermediate_size=4 * text_width,
            projection_dim=text_width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=24,
            hidden_act="quick_gelu",
        ),
        vlm=dict(hidden_size=128),
        user_emb_dim=128,
        user_token_dim=128,
        personalize_below=0.93,
        stage_c_x0_clamp=2.5,
        stage_b_x0_clamp=3.0,
        stage_b_target="velocity",
        stage_b_steps=1,
        sampling=Sampling(steps=8, solver="dpm++2m-sde"),
        stage_b_uses_text=False,
        compressor=dict(widths=(24, 48, 96, 128), latent_channels=16),
    )


def _stable_cascade_1b() -> Preset:
    return _published("stable-cascade-1b", folder="prior_lite", width=1536, layers=(4, 12))


def _stable_cascade() -> Preset:
    return _published("stable-cascade", folder="prior", width=2048, layers=(8, 24))


def _published(name: str, folder: str, width: int, layers: tuple[int, int]) -> Preset:
    """Stability AI's sizes (StableCascade, modules/stage_c.py and train/train_c.py)."""
    unet = "diffusion_pytorch_model"
    return Preset(
        name=name,
        base_model=f"{PRIOR}:{folder}",
        default_side_px=1024,
        allowed_sides_px=tuple(range(512, 1537, 64)),
        px_per_latent=STABLE_CASCADE_PX_PER_LATENT,
        stage_a_downscale=4,
        stage_c=_STAGE_C
        | dict(
            conditioning_dim=width,
            block_out_channels=(width, width),
            num_attention_heads=(width // 64, width // 64),
            down_num_layers_per_block=layers,
            up_num_layers_per_block=layers[::-1],
        ),
        stage_b=dict(_STAGE_B),
        stage_a=dict(_STAGE_A),
        text_encoder=dict(_CLIP_BIGG),
        vlm=VLM_7B,
        user_emb_dim=3584,
        user_token_dim=width,
        compressor=dict(stages=_EFFICIENTNET_V2_S, features=1280, latent_channels=16),
        published={
            "stage_c": PublishedPart(PRIOR, folder, unet),
            "text_encoder": PublishedPart(PRIOR, "text_encoder", "model"),
            "tokenizer": PublishedPart(PRIOR, "tokenizer"),
            "stage_b": PublishedPart(DECODER, "decoder", unet),
            "stage_a": PublishedPart(DECODER, "vqgan", unet, full_precision=True),
            "compressor": PublishedPart(
                DECODER, "", "effnet_encoder", beside=(), full_precision=True
            ),
            "previewer": PublishedPart(DECODER, "", "previewer", beside=(), full_precision=True),
            "vlm": PublishedPart(VLM_7B, "", "model"),
        },
        revisions={repository: REVISIONS[repository] for repository in (PRIOR, DECODER, VLM_7B)},
    )


def _with_lite_decoder(preset: Preset) -> Preset:
    """Stage B of 700 million parameters (StableCascade, train/train_b.py, 700M)."""
    lite = replace(preset.published["stage_b"], folder="decoder_lite")
    return replace(
        preset, stage_b=dict(_STAGE_B_LITE), published=preset.published | {"stage_b": lite}
    )


def _with_small_vlm(preset: Preset) -> Preset:
    """LLaVA-OneVision of half a billion parameters: embeddings of 896 values."""
    small = replace(preset.published["vlm"], repository=VLM_05B)
    return replace(
        preset,
        vlm=VLM_05B,
        user_emb_dim=896,
        published=preset.published | {"vlm": small},
        revisions={PRIOR: REVISIONS[PRIOR], DECODER: REVISIONS[DECODER]}
        | {VLM_05B: REVISIONS[VLM_05B]},
    )


def _tiny(preset: Preset) -> Preset:
    """The same files with narrow layers, small pictures and 67 tokens."""
    return replace(
        preset,
        base_model=f"{preset.base_model}:tiny",
        default_side_px=128,
        allowed_sides_px=(128,),
        stage_c=preset.stage_c
        | dict(
            conditioning_dim=16,
            block_out_channels=(16, 16),
            num_attention_heads=(2, 2),
            down_num_layers_per_block=(1, 2),
            up_num_layers_per_block=(2, 1),
            clip_text_in_channels=16,
            clip_text_pooled_in_channels=24,
            clip_image_in_channels=8,
        ),
        stage_b=preset.stage_b
        | dict(
            conditioning_dim=16,
            block_out_channels=(8, 8, 16, 16),
            num_attention_heads=(-1, -1, 2, 2),
            down_num_layers_per_block=(1, 1, 2, 1),
            up_num_layers_per_block=(1, 2, 1, 1),
            clip_text_pooled_in_channels=24,
        ),
        stage_a=preset.stage_a | dict(embed_dim=16, num_vq_embeddings=32, bottleneck_blocks=2),
        text_encoder=preset.text_encoder
        | dict(
            hidden_size=16,
            intermediate_size=32,
            projection_dim=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            vocab_size=67,
        ),
        compressor=dict(
            stages=(
                ("fused", 1, 1, 24, 1),
                ("fused", 4, 2, 8, 2),
                ("squeezed", 4, 2, 8, 1),
                ("squeezed", 6, 2, 16, 2),
                ("squeezed", 6, 2, 16, 1),
            ),
            features=32,
            latent_channels=16,
        ),
        user_emb_dim=32,
        user_token_dim=12,
        stage_b_steps=2,
    )
