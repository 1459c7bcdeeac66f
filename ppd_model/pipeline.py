"""START HERE: prompts, user embeddings and seeds -> pictures.

One request is one row of a batch. Every row has its own seed, its own number of steps and its own
place in the schedule, so a request gives the same picture alone and in company: in float64 the same
bytes, in float32 but for rounding, one grey level at most (docs/results/same_picture.md).

Legend: B requests, C H W latent channels and sides, D embedding width.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ppd_model.files.artifact import SHORT_DIGEST, sha256_of, verify_manifest
from ppd_model.nets.decoder import Decoder, build_decoder, load_decoder
from ppd_model.nets.diffusion import sampler_dtype
from ppd_model.nets.response_norm import use_fast_response_norm
from ppd_model.nets.stage_c import StageC, build_stage_c, load_stage_c, read_adapter
from ppd_model.nets.text_encoder import (
    TextEncoder,
    build_text_model,
    load_text_encoder,
    word_tokenizer,
)
from ppd_model.presets import Preset, get_preset
from ppd_model.published import generator_dtype, load_generator
from ppd_model.sampling.conditioning import Conditioning
from ppd_model.sampling.devices import plain_support
from ppd_model.sampling.placement import own_dtype, placed
from ppd_model.sampling.requests import (
    Cancelled,
    LoadedAdapter,
    NumericalError,
    check_requests,
)
from ppd_model.sampling.rows import Row
from ppd_model.sampling.running_batch import RunningBatch
from ppd_model.types import Generated, ImageRequest

MINI_WEIGHTS_DIR = Path(__file__).parent / "mini"
BASE_PARTS = ("stage_a", "stage_b", "stage_c", "text_encoder")
NO_ADAPTER = "none"
ADAPTER_FILE = "adapter.safetensors"


class Pipeline:
    """Text encoder, Stage C with the adapter, and decoder of one preset.

    ``model_id`` names the base, its weights and, where it is not float32, its precision;
    ``adapter_version`` the adapter's file ("none" without one), ``encoder_id`` the user encoder
    whose embeddings the adapter was trained on. ``personalize_negative`` also gives the user to
    the negative prompt's rows of guidance; off by default, since the contrast is what carries the
    taste.

    With ``offload`` the parts rest in the machine's memory and only the one at work is on
    ``device``: text encoder, then Stage C, then Stages B and A.
    """

    def __init__(
        self,
        preset: Preset,
        text_encoder: TextEncoder,
        stage_c: StageC,
        decoder: Decoder,
        *,
        model_id: str,
        adapter_version: str = NO_ADAPTER,
        encoder_id: str = "",
        device: str = "cpu",
        personalize_negative: bool = False,
        offload: bool = False,
    ) -> None:
        rest = "cpu" if offload else device
        self.preset = preset
        self.text_encoder = text_encoder
        self.stage_c = stage_c.to(rest).eval()
        self.decoder = decoder.to(rest).eval()
        for unet in (self.stage_c.unet, self.decoder.stage_b):
            use_fast_response_norm(unet)
        self.text_encoder.model.to(rest)
        self.offload = offload
        precision = str(self.stage_c.unet.dtype).removeprefix("torch.")
        self.model_id = model_id if precision == "float32" else f"{model_id}.{precision}"
        self.adapter_version = adapter_version
        self.encoder_id = encoder_id
        self.device = torch.device(device)
        self.personalize_negative = personalize_negative

    @classmethod
    def load(
        cls,
        preset: str = "mini",
        weights_dir: Path | str | None = None,
        device: str = "cpu",
        *,
        with_adapter: bool = True,
        encoder_id: str | None = None,
        dtype: str | None = None,
        offload: bool = False,
    ) -> Pipeline:
        """Every part from ``weights_dir`` (for ``mini``, the weights that are shipped).

        A published preset is read from the folder that ``ppd models pull`` fills or, without
        ``weights_dir``, from the hub and its cache; ``dtype`` ("bfloat16" on a GPU, else
        "float32") is that of its base, while the adapter stays float32. ``mini`` is "float32", or
        "float64" with its adapter: then a request gives the same bytes on any CPU, with any number
        of threads and in any company. ``with_adapter=False`` is the base model alone. Raises
        FileNotFoundError naming the path that is missing, and ArtifactError for a file that is
        damaged or belongs to another base model, or to another user encoder than ``encoder_id``
        where that is given.
        """
        chosen = get_preset(preset)
        weights_dir = None if weights_dir is None else Path(weights_dir)
        if not chosen.published:
            weights_dir = weights_dir or MINI_WEIGHTS_DIR
        if with_adapter and weights_dir is None:
            raise ValueError(
                f"no adapter is published for {preset}: load with_adapter=False and then "
                "use_adapter(path), or name a weights_dir that holds one"
            )
        if chosen.published:
            pipeline = cls._load_published(chosen, weights_dir, device, dtype, offload)
        else:
            assert weights_dir is not None
            precision = own_dtype(preset, dtype)
            pipeline = cls._load_own(chosen, weights_dir, device, precision, offload)
        if with_adapter and weights_dir is not None:
            pipeline.use_adapter(weights_dir / ADAPTER_FILE, encoder_id=encoder_id)
        return pipeline

    @classmethod
    def _load_published(
        cls,
        chosen: Preset,
        weights_dir: Path | None,
        device: str,
        dtype: str | None,
        offload: bool,
    ) -> Pipeline:
        base = load_generator(
            chosen,
            weights_dir,
            dtype=generator_dtype(dtype, device),
            device="cpu" if offload else device,
        )
        return cls(
            chosen,
            base.text_encoder,
            base.stage_c,
            base.decoder,
            model_id=f"{chosen.base_model}@{base.sha256[:SHORT_DIGEST]}",
            device=device,
            offload=offload,
        )

    @classmethod
    def _load_own(
        cls, chosen: Preset, weights_dir: Path, device: str, dtype: torch.dtype, offload: bool
    ) -> Pipeline:
        digests = verify_manifest(weights_dir)
        sha256 = {part: digests.get(f"{part}.safetensors") for part in BASE_PARTS}
        path = {part: weights_dir / f"{part}.safetensors" for part in sha256}

        text_encoder = load_text_encoder(
            chosen,
            path["text_encoder"],
            weights_dir / "text_tokenizer.json",
            sha256=sha256["text_encoder"],
        )
        stage_c = load_stage_c(chosen, path["stage_c"], sha256=sha256["stage_c"])
        decoder = load_decoder(
            chosen,
            path["stage_b"],
            path["stage_a"],
            stage_b_sha256=sha256["stage_b"],
            stage_a_sha256=sha256["stage_a"],
        )
        model_id = f"{chosen.base_model}@{_joint_digest(sha256)}"
        for part in (text_encoder.model, stage_c, decoder):
            part.to(dtype)
        return cls(
            chosen,
            text_encoder,
            stage_c,
            decoder,
            model_id=model_id,
            device=device,
            offload=offload,
        )

    @classmethod
    def random(
        cls,
        preset: Preset,
        words: Sequence[str],
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> Pipeline:
        """Every part with random weights and an adapter that matters: for tests and timings.

        The weights are the same in every ``dtype``.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tokenizer = word_tokenizer(words, preset.text_encoder["max_position_embeddings"])
            text_encoder = TextEncoder(build_text_model(preset, tokenizer), tokenizer)
            stage_c = build_stage_c(preset)
            for weight in stage_c.adapter.to_v.parameters():
                torch.nn.init.normal_(weight, std=preset.user_token_dim**-0.5)
            decoder = build_decoder(preset)
        for part in (text_encoder.model, stage_c, decoder):
            part.to(dtype)
        return cls(
            preset,
            text_encoder,
            stage_c,
            decoder,
            model_id=f"{preset.base_model}@random-{seed}",
            adapter_version=f"random-{seed}",
            encoder_id=f"random-{seed}",
        )

    def set_personalize_below(self, time: float | None) -> None:
        """Adapters act at times up to this one, 0 to 1, in the place of the preset's own; None
        changes nothing. For experiments: an engine that is running has made its rows already.

        Raises ValueError for a time outside (0, 1].
        """
        if time is None:
            return
        if not 0 < time <= 1:
            raise ValueError(f"personalize_below is {time}, expected above 0 and up to 1")
        self.preset = replace(self.preset, personalize_below=time)

    def use_adapter(self, path: Path | str, *, encoder_id: str | None = None) -> None:
        """Put another adapter in place. Raises ArtifactError if it does not belong here."""
        self.install(self.adapter_from(Path(path), encoder_id=encoder_id))

    def adapter_from(
        self, path: Path, *, sha256: str | None = None, encoder_id: str | None = None
    ) -> LoadedAdapter:
        """An adapter of this base, to ``install`` when it is wanted; what is in place stays.

        Raises FileNotFoundError, and ArtifactError for a file that is damaged (its content is not
        ``sha256``) or belongs to another base model or another user encoder, where those are given.
        """
        adapter, spec = read_adapter(
            self.stage_c, self.preset, path, sha256=sha256, encoder_id=encoder_id
        )
        version = (sha256 or sha256_of(path))[:SHORT_DIGEST]
        return LoadedAdapter(adapter, version, spec.extra.get("encoder_id", ""))

    @property
    def installed(self) -> LoadedAdapter:
        return LoadedAdapter(self.stage_c.adapter, self.adapter_version, self.encoder_id)

    def install(self, loaded: LoadedAdapter) -> None:
        """Put an adapter that is in memory in place, by reference: nothing is copied or read.

        Keys and values of text and user are made once at the beginning of ``generate`` and travel
        with it, so a picture that is being made keeps the adapter that it began with.
        """
        assert self.stage_c.adapter.enabled, "an adapter was changed within disabled()"
        self.stage_c.adapter = loaded.adapter
        self.adapter_version = loaded.version
        self.encoder_id = loaded.encoder_id

    @overload
    def generate(self, requests: ImageRequest) -> Generated: ...

    @overload
    def generate(
        self,
        requests: Sequence[ImageRequest],
        on_step: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> list[Generated]: ...

    def generate(
        self,
        requests: ImageRequest | Sequence[ImageRequest],
        on_step: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Generated | list[Generated]:
        """One picture for each request, in order; all of one size. One request gives one picture.

        ``on_step(done, total)`` follows the longest row's denoising. Raises ValueError for a
        request that cannot be made, Cancelled soon after ``cancelled()`` says so, and
        NumericalError rather than return a picture of NaN.
        """
        if isinstance(requests, ImageRequest):
            return self.generate([requests], on_step, cancelled)[0]
        self.check(requests)
        generators = [torch.Generator().manual_seed(request.seed) for request in requests]
        started_s = time.perf_counter()
        latent_BCHW = self.sample_latents(requests, generators, on_step, cancelled)
        denoised_s = time.perf_counter()
        images_BHWC = self.decode(requests, latent_BCHW, generators, cancelled)
        decoded_s = time.perf_counter()
        return [
            Generated(image_HWC, request.seed, denoised_s - started_s, decoded_s - denoised_s)
            for request, image_HWC in zip(requests, images_BHWC, strict=True)
        ]

    @torch.no_grad()
    def sample_latents(
        self,
        requests: Sequence[ImageRequest],
        generators: Sequence[torch.Generator],
        on_step: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Tensor:
        """Stage C latents, B x C x H x W: from noise, every row along its own schedule."""
        self.check(requests)
        conditioning = Conditioning(self)
        with self._placed(self.text_encoder.model):
            conditioning.encode(requests)
        with self._placed(self.stage_c):
            rows = [
                conditioning.row(request, self.installed, generator)
                for request, generator in zip(requests, generators, strict=True)
            ]
            self._denoise(rows, on_step, cancelled)
        latent_BCHW = torch.stack([row.start() for row in rows])
        _refuse_non_finite(latent_BCHW, "Stage C latents")
        return latent_BCHW

    def _denoise(
        self,
        rows: Sequence[Row],
        on_step: Callable[[int, int], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        """All rows through one batch, each until it has arrived."""
        places = sum(row.network_rows for row in rows)
        support = plain_support(self.device, places)
        batch = RunningBatch(self, support, rows[0].shape_CHW, rows[0].user_tokens)
        for row in rows:
            batch.join(row)
        total = max(row.steps for row in rows)
        for step in range(total):
            _stop_if(cancelled)
            batch.step()
            for row in [row for row in batch.rows if row.arrived]:
                batch.leave(row)
            if on_step is not None:
                on_step(step + 1, total)

    @torch.no_grad()
    def decode(
        self,
        requests: Sequence[ImageRequest],
        latent_BCHW: Tensor,
        generators: Sequence[torch.Generator],
        cancelled: Callable[[], bool] | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Pictures of Stage C latents, uint8 B x H x W x 3."""
        with self._placed(self.text_encoder.model):
            text = self.text_encoder.encode([request.prompt for request in requests])
        with self._placed(self.decoder):
            pixels_BCHW = self.decoder(
                latent_BCHW, text.pooled_B1D, generators, before_step=lambda: _stop_if(cancelled)
            )
        _refuse_non_finite(pixels_BCHW, "pixels")
        pixels_BHWC = (pixels_BCHW * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        images_BHWC: npt.NDArray[np.uint8] = pixels_BHWC.cpu().contiguous().numpy()
        return images_BHWC

    def check(self, requests: Sequence[ImageRequest]) -> tuple[int, int, int]:
        """The latents' shape, C x H x W. Raises ValueError for what cannot be made."""
        return check_requests(self.preset, requests)

    @property
    def latent_dtype(self) -> torch.dtype:
        """float32, or the network's dtype where that is wider; that of times and noise, too."""
        return sampler_dtype(self.stage_c.unet.dtype)

    def _placed(self, module: nn.Module) -> AbstractContextManager[None]:
        return placed(module, self.device, offload=self.offload)


def _stop_if(cancelled: Callable[[], bool] | None) -> None:
    if cancelled is not None and cancelled():
        raise Cancelled


def _refuse_non_finite(values: Tensor, what: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise NumericalError(f"{what} hold NaN or infinity")


def _joint_digest(sha256: dict[str, str | None]) -> str:
    joined = "".join(sha256[part] or "" for part in BASE_PARTS)
    return hashlib.sha256(joined.encode()).hexdigest()[:SHORT_DIGEST]
