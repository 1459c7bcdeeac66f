"""The model behind `ModelRuntime`: the only module of the service that touches torch."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ppd_model.checkpoint import load_artifact, refuse_other_keys, shapes_of
from ppd_model.pipeline import MINI_WEIGHTS_DIR, Cancelled, ImageRequest, NumericalError, Pipeline
from ppd_model.presets import get_preset
from ppd_model.stage_c import build_stage_c
from ppd_model.user_encoder import Choice, EncodingError, UserEncoder
from service.core.errors import JobCanceled, JobFailure
from service.core.ports import (
    Capabilities,
    LabelledPair,
    Picture,
    PictureSpec,
    Taste,
    Versions,
)


def weights_folder(preset: str, weights_dir: Path | None) -> Path:
    """Where the weights are looked for. Raises ValueError for a preset that ships none."""
    if weights_dir is not None:
        return weights_dir
    if get_preset(preset).name != "mini":
        raise ValueError(f"the weights of {preset} are not shipped: set PPD_WEIGHTS_DIR")
    return MINI_WEIGHTS_DIR


def check_adapter(
    preset: str, weights_dir: Path | None, path: Path, *, prompt_variant: str, decoding: str
) -> tuple[str, str]:
    """The base model and the encoder that an adapter belongs to, without loading any model.

    Raises ArtifactError for another base model, another encoder, other sizes or a damaged file,
    and FileNotFoundError.
    """
    chosen = get_preset(preset)
    encoder_id = UserEncoder.version_of(preset, weights_dir, prompt_variant, decoding)
    with torch.device("meta"):
        adapter = build_stage_c(chosen).adapter
    tensors, spec = load_artifact(
        path, kind="adapter", base_model=chosen.base_model, encoder_id=encoder_id
    )
    refuse_other_keys("Adapter", shapes_of(adapter.state_dict()), shapes_of(tensors))
    return spec.base_model, encoder_id


class PpdRuntime:
    """Pipeline and user encoder of one preset; every method but `capabilities` blocks."""

    def __init__(
        self,
        preset: str,
        weights_dir: Path | None,
        device: str,
        *,
        prompt_variant: str,
        decoding: str,
        threads: int,
        adapter: Path | None = None,
    ) -> None:
        self._preset = get_preset(preset)
        self._weights_dir = weights_dir
        self._device = device
        self._prompt_variant = prompt_variant
        self._decoding = decoding
        self._threads = threads
        self._adapter = adapter
        self._parts: tuple[Pipeline, UserEncoder] | None = None

    @property
    def capabilities(self) -> Capabilities:
        """What the preset accepts."""
        return Capabilities(
            self._preset.name, self._preset.default_side_px, self._preset.allowed_sides_px
        )

    def load(self) -> Versions:
        """Read the weights; an adapter of another encoder is refused with both ids named."""
        torch.set_num_threads(self._threads)
        encoder = UserEncoder.load(
            self._preset.name,
            self._weights_dir,
            self._device,
            prompt_variant=self._prompt_variant,
            decoding=self._decoding,
        )
        pipeline = Pipeline.load(
            self._preset.name,
            self._weights_dir,
            self._device,
            with_adapter=self._adapter is None,
            encoder_id=encoder.encoder_version,
        )
        if self._adapter is not None:
            pipeline.use_adapter(self._adapter, encoder_id=encoder.encoder_version)
        return self.use(pipeline, encoder)

    def use(self, pipeline: Pipeline, encoder: UserEncoder) -> Versions:
        """Work with parts that are in memory already."""
        self._parts = (pipeline, encoder)
        return Versions(pipeline.model_id, pipeline.adapter_version, encoder.encoder_version)

    def generate(
        self,
        specs: Sequence[PictureSpec],
        on_step: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> list[Picture]:
        """Make all pictures in one batch."""
        pipeline, _ = self._loaded()
        requests = [
            ImageRequest(
                prompt=spec.prompt,
                seed=spec.seed,
                user_emb_D=spec.user_emb_D,
                strength=spec.strength,
                negative_prompt=spec.negative_prompt,
                steps=spec.steps,
                guidance_scale=spec.guidance_scale,
                width_px=spec.width_px,
                height_px=spec.height_px,
            )
            for spec in specs
        ]
        try:
            made = pipeline.generate(requests, on_step, cancelled)
        except Cancelled:
            raise JobCanceled from None
        except NumericalError as error:
            raise JobFailure("numerical_error") from error
        # The batch is timed as a whole; each picture is given its share.
        share = 1 / len(made)
        return [Picture(g.image_HWC, g.seed, g.denoise_s * share, g.decode_s * share) for g in made]

    def encode(self, pairs: Sequence[LabelledPair], seed: int, text: str | None) -> Taste:
        """Read four pairs; an answer that cannot be used is asked for once more."""
        _, encoder = self._loaded()
        choices = [Choice(p.caption, p.image_0, p.image_1, p.preferred) for p in pairs]
        try:
            try:
                read = encoder.encode(choices, seed=seed, profile=text)
            except EncodingError:
                read = encoder.encode(choices, seed=seed + 1, profile=text)
        except EncodingError as error:
            raise JobFailure("encoder_invalid") from error
        except ValueError as error:
            detail = "The encoder cannot read these choices with this text."
            raise JobFailure("encoder_invalid", detail) from error
        return Taste(read.profile, read.user_emb_D, read.confidence, read.likes, read.dislikes)

    def unread(self, prompt: str) -> str:
        """The end of a prompt that is beyond what the text encoder reads; mostly empty."""
        return self._loaded()[0].text_encoder.unread(prompt)

    def _loaded(self) -> tuple[Pipeline, UserEncoder]:
        assert self._parts is not None, "load() comes first"
        return self._parts
