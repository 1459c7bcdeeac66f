"""Stage C with the adapter: text, a user embedding and noisy latents -> the predicted noise.

Legend: B rows, C H W latent channels and sides, S text tokens, D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ppd_model.files.artifact import ArtifactError, ArtifactSpec, load_artifact, load_strict
from ppd_model.files.safetensor_files import WeightFiles, assign_weights, refuse_meta
from ppd_model.nets.adapter import Adapter, AttentionInput, install, precompute_text
from ppd_model.nets.diffusion import sampler_dtype
from ppd_model.nets.unet import CascadeUNet
from ppd_model.presets import Preset


class StageCUNet(CascadeUNet):
    """``StableCascadeUNet`` whose attention blocks also take an ``AttentionInput``.

    Same weights under the same names. An ``AttentionInput`` given as ``clip_text_pooled`` goes to
    the blocks as it is; anything else is the stock model.
    """

    def get_clip_embeddings(
        self,
        clip_txt_pooled: Tensor | AttentionInput,
        clip_txt: Tensor | None = None,
        clip_img: Tensor | None = None,
    ) -> Tensor | AttentionInput:
        """An ``AttentionInput`` as it is; else the stock model's conditioning tokens."""
        if isinstance(clip_txt_pooled, AttentionInput):
            return clip_txt_pooled
        embeddings_BSD: Tensor = super().get_clip_embeddings(clip_txt_pooled, clip_txt, clip_img)
        return embeddings_BSD

    def text_tokens(self, tokens_BSD: Tensor, pooled_B1D: Tensor) -> Tensor:
        """All conditioning tokens of the base: words, pooled text, and an absent picture.

        The picture's place is zeros: with None the stock model silently drops the words.
        """
        no_image_B1D = pooled_B1D.new_zeros(len(pooled_B1D), 1, self.config.clip_image_in_channels)
        embeddings_BSD: Tensor = super().get_clip_embeddings(pooled_B1D, tokens_BSD, no_image_B1D)
        return embeddings_BSD


class StageC(nn.Module):
    """The frozen base and the adapter, as one model.

    The base is always in ``eval()`` and never takes gradient; the parameters that require gradient
    are exactly the adapter's. ``with stage_c.adapter.disabled():`` it is the base model. Base and
    adapter may differ in precision (bfloat16 and float32): each computes in its own. Times are in
    ``sampler_dtype`` of the base.
    """

    def __init__(self, unet: StageCUNet, adapter: Adapter) -> None:
        super().__init__()
        install(unet)
        self.unet = unet.requires_grad_(False)
        self.adapter = adapter
        self.train(False)

    def train(self, mode: bool = True) -> StageC:
        """Sets the adapter's mode only: the base's dropout (0.1 by default) stays off."""
        super().train(mode)
        self.unet.eval()
        return self

    def forward(
        self,
        xt_BCHW: Tensor,
        t_B: Tensor,
        tokens_BSD: Tensor,
        pooled_B1D: Tensor,
        user_emb_BD: Tensor | None = None,
        strength_B: Tensor | None = None,
    ) -> Tensor:
        """The predicted noise, B x C x H x W; gradient flows to the adapter and the embedding.

        ``t_B`` are times in [0, 1], one for each row, float32 unless the base is wider. No user
        embedding, a zero one, strength 0 and a disabled adapter all give the base's output, bit
        for bit.
        """
        attended = self.attend(tokens_BSD, pooled_B1D, user_emb_BD, strength_B)
        return self.predict_noise(xt_BCHW, t_B, attended)

    def attend(
        self,
        tokens_BSD: Tensor,
        pooled_B1D: Tensor,
        user_emb_BD: Tensor | None = None,
        strength_B: Tensor | None = None,
        *,
        precompute: bool = False,
    ) -> AttentionInput:
        """What the attention blocks see besides the picture; the same at every denoising step.

        ``precompute`` also fixes the text's keys and values, for a loop of many steps.
        """
        user = None
        if user_emb_BD is not None and self.adapter.enabled:
            if strength_B is None:
                strength_B = user_emb_BD.new_ones(len(user_emb_BD))
            own = self.adapter.projector.center_D.dtype
            user = self.adapter(user_emb_BD.to(own), strength_B).to(self.unet.dtype)
        text_BSD = self.unet.text_tokens(
            tokens_BSD.to(self.unet.dtype), pooled_B1D.to(self.unet.dtype)
        )
        attended = AttentionInput(text_BSD, user=user)
        return precompute_text(self.unet, attended) if precompute else attended

    def predict_noise(self, xt_BCHW: Tensor, t_B: Tensor, attended: AttentionInput) -> Tensor:
        """One forward pass with an input from ``attend``; noise in the dtype of ``xt_BCHW``."""
        expected = sampler_dtype(self.unet.dtype)
        assert t_B.dtype == expected, f"times in {t_B.dtype}: the schedule needs {expected}"
        (eps_BCHW,) = self.unet(
            sample=xt_BCHW.to(self.unet.dtype),
            timestep_ratio=t_B,
            clip_text_pooled=attended,
            return_dict=False,
        )
        noise_BCHW: Tensor = eps_BCHW.to(xt_BCHW.dtype)
        return noise_BCHW


def build_unet(preset: Preset) -> StageCUNet:
    """Stage C without the adapter and without loaded weights: what pretraining trains."""
    return StageCUNet(**preset.stage_c)


def build_adapter(preset: Preset, unet: StageCUNet) -> Adapter:
    """A fresh adapter for ``unet``: its output starts at the base's."""
    return Adapter.for_unet(
        unet,
        user_emb_dim=preset.user_emb_dim,
        token_dim=preset.user_token_dim,
        tokens=preset.user_tokens,
    )


def build_stage_c(preset: Preset) -> StageC:
    """Base and adapter without loaded weights, on the current default device."""
    unet = build_unet(preset)
    return StageC(unet, build_adapter(preset, unet))


def load_stage_c(preset: Preset, path: Path, *, sha256: str | None = None) -> StageC:
    """The base of ``path`` with a fresh adapter. Raises ArtifactError for any other file."""
    tensors, _ = load_artifact(path, kind="stage_c", sha256=sha256, base_model=preset.base_model)
    stage_c = build_stage_c(preset)
    load_strict(stage_c.unet, tensors)
    return stage_c


def load_published_stage_c(
    preset: Preset, weights: WeightFiles, *, dtype: torch.dtype, device: str = "cpu"
) -> StageC:
    """The published base as ``dtype`` with a fresh float32 adapter.

    Raises ArtifactError for keys or shapes that are not the preset's.
    """
    with torch.device("meta"):
        unet = build_unet(preset)
    assign_weights(unet, weights, dtype=dtype, device=device)
    refuse_meta(unet)
    return StageC(unet, build_adapter(preset, unet).to(device))


def load_adapter(
    stage_c: StageC,
    preset: Preset,
    path: Path,
    *,
    sha256: str | None = None,
    encoder_id: str | None = None,
) -> ArtifactSpec:
    """Put the adapter of ``path`` in place; it brings its own number of user tokens.

    Raises ArtifactError when it was trained for another base model, for the embeddings of another
    user encoder (checked where ``encoder_id`` is given), or for other sizes.
    """
    tensors, spec = load_artifact(
        path, kind="adapter", sha256=sha256, base_model=preset.base_model, encoder_id=encoder_id
    )
    fitting = adapter_for(tensors, preset, stage_c)
    load_strict(fitting, tensors)
    stage_c.adapter = fitting
    return spec


def read_adapter(
    stage_c: StageC,
    preset: Preset,
    path: Path,
    *,
    sha256: str | None = None,
    encoder_id: str | None = None,
) -> tuple[Adapter, ArtifactSpec]:
    """The adapter of ``path`` as a module of its own, where and in what dtype the one in place is.

    That one stays.

    Draws no random numbers. Raises ArtifactError as ``load_adapter`` does.
    """
    tensors, spec = load_artifact(
        path, kind="adapter", sha256=sha256, base_model=preset.base_model, encoder_id=encoder_id
    )
    with torch.device("meta"):
        adapter = build_adapter(_with_tokens_of(tensors, preset), stage_c.unet)
    own = stage_c.adapter.projector.center_D
    adapter.to(own.dtype).to_empty(device=own.device)
    load_strict(adapter, tensors)
    return adapter.train(stage_c.adapter.training), spec


def adapter_for(tensors: Mapping[str, Tensor], preset: Preset, stage_c: StageC) -> Adapter:
    """The adapter in place, or a fresh one beside it if these weights are of more or fewer tokens.

    Raises ArtifactError for fewer than two tokens.
    """
    fitting = _with_tokens_of(tensors, preset)
    if fitting.user_tokens == stage_c.adapter.projector.tokens:
        return stage_c.adapter
    own = stage_c.adapter.projector.center_D
    fresh = build_adapter(fitting, stage_c.unet).to(own.device, own.dtype)
    return fresh.train(stage_c.adapter.training)


def _with_tokens_of(tensors: Mapping[str, Tensor], preset: Preset) -> Preset:
    """The preset with as many user tokens as these weights make."""
    weight = tensors.get("projector.to_tokens.weight")
    tokens = preset.user_tokens
    if weight is not None and weight.dim() == 2:
        tokens = len(weight) // preset.user_token_dim
    if tokens < 2:
        raise ArtifactError(f"an adapter of {tokens} user tokens, expected 2 at least")
    return replace(preset, user_tokens=tokens)


def adapter_spec(preset: Preset, *, encoder_id: str, **extra: str) -> ArtifactSpec:
    """The spec of an adapter that was trained for ``preset`` on embeddings of ``encoder_id``."""
    config = {
        "user_emb_dim": preset.user_emb_dim,
        "user_tokens": preset.user_tokens,
        "user_token_dim": preset.user_token_dim,
    }
    return ArtifactSpec("adapter", config, preset.base_model, {"encoder_id": encoder_id, **extra})
