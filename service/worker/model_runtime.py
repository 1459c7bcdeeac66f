"""The model behind `ModelRuntime`: the only module of the service that touches torch."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image as Picture

from ppd_model.engine.engine import Engine
from ppd_model.engine.faults import CLOSED, DEADLINE, NUMERICAL, OUT_OF_MEMORY, is_out_of_memory
from ppd_model.engine.jobs import EngineClosed, Handle, JobError, Progress
from ppd_model.files.artifact import load_artifact, refuse_other_keys, shapes_of
from ppd_model.nets.previewer import Previewer, find_previewer
from ppd_model.nets.stage_c import adapter_for, build_stage_c
from ppd_model.pipeline import ADAPTER_FILE, MINI_WEIGHTS_DIR, NO_ADAPTER, Pipeline
from ppd_model.presets import Preset, get_preset
from ppd_model.published import DTYPES as PUBLISHED_DTYPES
from ppd_model.readings import Expected
from ppd_model.sampling.placement import OWN_DTYPES
from ppd_model.sampling.requests import Cancelled, LoadedAdapter, NumericalError
from ppd_model.types import EncodedUser, EngineState, Generated, ImageRequest, LabelledPair
from ppd_model.user_encoder import EncodingError, NothingReadError, NoWordReadError, UserEncoder
from ppd_model.words import caption_words_of, vocabulary_of
from service.core.errors import JobCanceled, JobFailure, ModelLost
from service.core.placement import CPU, Place
from service.core.ports import AdapterFile, Capabilities, Preview, Usage, Versions
from service.worker.kept_adapters import KeptAdapters

log = logging.getLogger("ppd.worker")

_CODES = {
    NUMERICAL: "numerical_error",
    OUT_OF_MEMORY: "out_of_memory",
    DEADLINE: "deadline_exceeded",
}
"""The engine's codes that clients are told; all others are `model_error`."""
_GIVEN_UP_AFTER_S = 30.0
"""How long after its deadline a job is waited for: one step, and the decoding of others."""
_PICTURES_OF_A_JOB = 64
"""More than any has: the service's own queue refuses, the engine takes what comes from there."""


def weights_folder(preset: str, weights_dir: Path | None) -> Path:
    """Where the weights are looked for. Raises ValueError for a preset that ships none."""
    if weights_dir is not None:
        return weights_dir
    if get_preset(preset).name != "mini":
        raise ValueError(f"the weights of {preset} are not shipped: set PPD_WEIGHTS_DIR")
    return MINI_WEIGHTS_DIR


def check_adapter(path: Path, preset: str, base_model: str, encoder_id: str) -> None:
    """Raises ArtifactError for an adapter of another base model, encoder or size, or a damaged one.

    FileNotFoundError where there is none. Loads no model.
    """
    chosen = get_preset(preset)
    tensors, _ = load_artifact(path, kind="adapter", base_model=base_model, encoder_id=encoder_id)
    with torch.device("meta"):
        adapter = adapter_for(tensors, chosen, build_stage_c(chosen))
    refuse_other_keys("Adapter", shapes_of(adapter.state_dict()), shapes_of(tensors))


def served_ids(
    preset: str,
    weights_dir: Path | None,
    *,
    encoder_place: Place,
    prompt_variant: str,
    decoding: str,
) -> tuple[str, str]:
    """The base model and the encoder that are served with these settings; loads neither."""
    encoder_id = UserEncoder.version_of(
        preset,
        weights_dir,
        prompt_variant,
        decoding,
        dtype=encoder_place.dtype,
        device=encoder_place.device,
    )
    return get_preset(preset).base_model, encoder_id


def refuse_misplaced(preset: Preset, setting: str, place: Place) -> None:
    """Raises ValueError for a place that the preset or this machine does not have.

    `setting` is the environment variable that named the device.
    """
    known = PUBLISHED_DTYPES if preset.published else OWN_DTYPES
    if place.dtype is not None and place.dtype not in known:
        raise ValueError(f"PPD_DTYPE={place.dtype}: {preset.name} runs in {' or '.join(known)}")
    if not place.on_gpu:
        return
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(place.device.partition(":")[2] or 0) >= gpus:
        raise ValueError(f"{setting}={place.device}: torch sees {gpus} CUDA devices here")


class PpdRuntime:
    """Pipeline and user encoder of one preset; every method blocks.

    Jobs share the engine's running batch. With weights that rest in main memory there is none:
    one job is made after the other.

    The places are where each works. None is a runtime that does not load it; whoever asks such a
    runtime for it gets a ValueError. `adapter` is served whatever jobs are pinned to; without it a
    job's own adapter is used for it, and `kept_adapters` of them stay in memory. `threads` are
    torch's where choices are read; the engine's two threads share as many. `timeout_s` bounds the
    time from `generate` to its pictures. Previews come every `preview_every` steps; 0 is never.
    """

    def __init__(
        self,
        preset: str,
        weights_dir: Path | None,
        *,
        generator_place: Place | None = CPU,
        encoder_place: Place | None = CPU,
        prompt_variant: str,
        decoding: str,
        threads: int,
        adapter: Path | None = None,
        kept_adapters: int = 2,
        jobs_at_once: int = 4,
        timeout_s: float | None = None,
        preview_every: int = 0,
    ) -> None:
        self._preset = get_preset(preset)
        if generator_place is None and encoder_place is None:
            raise ValueError("neither a generator nor an encoder: the runtime would do nothing")
        if generator_place is not None:
            refuse_misplaced(self._preset, "PPD_DEVICE", generator_place)
        if encoder_place is not None:
            refuse_misplaced(self._preset, "PPD_VLM_DEVICE", encoder_place)
        self._weights_dir = weights_dir
        self._generator_place = generator_place
        self._encoder_place = encoder_place
        self._prompt_variant = prompt_variant
        self._decoding = decoding
        self._threads = threads
        self._adapter = adapter
        self._kept_adapters = kept_adapters
        self._timeout_s = timeout_s
        self._preview_every = preview_every
        self._adapters: KeptAdapters | None = None
        self._pipeline: Pipeline | None = None
        self._engine: Engine | None = None
        self._hangs = False
        self._encoder: UserEncoder | None = None
        shares = generator_place is not None and not generator_place.offload
        self._jobs_at_once = jobs_at_once if shares else 1

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            self._preset.name,
            self._preset.default_side_px,
            self._preset.allowed_sides_px,
            self._preset.sampling,
            vocabulary_of(self._preset, self._weights_dir),
            caption_words_of(self._preset, self._weights_dir),
        )

    @property
    def jobs_at_once(self) -> int:
        return self._jobs_at_once

    def load(self) -> Versions:
        """Read the weights; an adapter of another encoder is refused with both ids named.

        Without an encoder here the adapter says whose embeddings it takes.
        """
        torch.set_num_threads(self._threads)
        pipeline = encoder = encoder_id = None
        if self._encoder_place is not None:
            encoder = self._load_encoder(self._encoder_place)
            encoder_id = encoder.encoder_version
        if self._generator_place is not None:
            pipeline = self._load_pipeline(self._generator_place, encoder_id)
        return self.use(pipeline, encoder, self._load_previewer())

    def use(
        self,
        pipeline: Pipeline | None,
        encoder: UserEncoder | None,
        previewer: Previewer | None = None,
    ) -> Versions:
        """Work with parts that are in memory already."""
        self.close()
        self._pipeline, self._encoder = pipeline, encoder
        if pipeline is None:
            assert encoder is not None
            return Versions(None, None, encoder.encoder_version)
        encoder_id = pipeline.encoder_id if encoder is None else encoder.encoder_version
        if not encoder_id:
            raise ValueError("the adapter does not say whose embeddings it takes")
        self._adapters = KeptAdapters(pipeline, encoder_id, self._kept_adapters)
        if not pipeline.offload:
            self._engine = Engine(
                pipeline,
                previewer,
                threads=max(1, self._threads // 2),
                queued_rows=self._jobs_at_once * _PICTURES_OF_A_JOB,
            )
        return Versions(
            pipeline.model_id,
            pipeline.adapter_version,
            encoder_id,
            adapter_overrides=self._adapter is not None,
        )

    def generate(
        self,
        requests: Sequence[ImageRequest],
        on_step: Callable[[int, int], None],
        cancelled: Callable[[], bool],
        on_preview: Callable[[Preview], None],
        *,
        adapter: AdapterFile | None = None,
        owner: str = "",
    ) -> list[Generated]:
        """Make all pictures, in a batch with those of other jobs."""

        def tell(progress: Progress) -> None:
            if not progress.previews:
                on_step(progress.done, progress.total)
            for index, image_HWC in progress.previews.items():
                on_preview(Preview(index, progress.done, progress.total, image_HWC))

        with _as_service_errors():
            loaded = self._loaded(adapter, requests)
            if self._engine is None:
                return _shared_out(self._make_alone(requests, loaded, on_step, cancelled))
            handle = self._engine.submit(
                requests,
                owner=owner,
                adapter=loaded,
                timeout_s=self._timeout_s,
                on_progress=tell,
                cancelled=cancelled,
                preview_every=self._preview_every,
            )
            return _shared_out(self._result(handle))

    def encode(self, pairs: Sequence[LabelledPair], seed: int, text: str | None) -> EncodedUser:
        """Read four pairs, a text, or both; an unusable answer is asked for once more."""
        if self._encoder is None:
            raise ValueError("the encoder is not loaded in this process: it reads no choices")
        encoder = self._encoder
        with _as_service_errors():
            try:
                try:
                    return encoder.encode(pairs, seed=seed, profile=text)
                except NoWordReadError as error:
                    raise JobFailure("no_word_read") from error
                except EncodingError:
                    return encoder.encode(pairs, seed=seed + 1, profile=text)
            except NothingReadError as error:
                raise JobFailure("nothing_read") from error
            except EncodingError as error:
                raise JobFailure("encoder_invalid") from error
            except ValueError as error:
                detail = "The encoder cannot read these choices with this text."
                raise JobFailure("encoder_invalid", detail) from error

    def features(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """What the encoder's eye sees of each picture."""
        if self._encoder is None:
            raise ValueError("the encoder is not loaded in this process: it sees no pictures")
        with _as_service_errors():
            return self._encoder.picture_features(pictures)

    def joined(
        self,
        readings: Sequence[EncodedUser],
        weights: Sequence[float],
        expected: Expected | None = None,
    ) -> EncodedUser:
        """What readings of one person's sets of answers, oldest first, say together."""
        if self._encoder is None:
            raise ValueError("the encoder is not loaded in this process: it joins no readings")
        return self._encoder.joined(readings, weights, expected)

    def unread(self, prompt: str) -> str:
        """The end of a prompt that is beyond what the text encoder reads; mostly empty."""
        return self._loaded_pipeline().text_encoder.unread(prompt)

    def usage(self, request: ImageRequest) -> Usage:
        """Tokens of the prompt that are read, and places of the picture's latents."""
        side_px = self._preset.default_side_px
        height, width = self._preset.latent_hw(
            request.height_px or side_px, request.width_px or side_px
        )
        read = self._loaded_pipeline().text_encoder.tokens_read(request.prompt)
        return Usage(text_tokens=read, latent_tokens=height * width)

    def unknown_words(self, prompt: str) -> list[str]:
        """Words and emoji of a prompt that the text encoder does not know."""
        return self._loaded_pipeline().text_encoder.unknown_words(prompt)

    def state(self) -> EngineState | None:
        """What the engine says of itself; None without one."""
        return None if self._engine is None else self._engine.snapshot()

    def broken(self) -> str | None:
        """Why the engine has ended by itself, or that it hangs."""
        engine = self._engine
        if engine is None or not self._hangs:
            return None if engine is None else engine.broken
        return "the engine does not answer"

    def close(self) -> None:
        """End the engine's threads; those of one that hangs end with the process."""
        if self._engine is not None and not self._hangs:
            self._engine.close()
        self._engine, self._hangs = None, False

    def _result(self, handle: Handle) -> list[Generated]:
        """The pictures. An engine that hangs in a step sees no deadline: it is given up here.

        That is no fault of the job, which may have been waiting: it runs again elsewhere.
        """
        if self._timeout_s is None:
            return handle.result()
        try:
            return handle.result(self._timeout_s + _GIVEN_UP_AFTER_S)
        except TimeoutError as error:
            self._hangs = True
            raise JobError(CLOSED, "the engine does not answer") from error

    def _make_alone(
        self,
        requests: Sequence[ImageRequest],
        loaded: LoadedAdapter,
        on_step: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> list[Generated]:
        pipeline = self._loaded_pipeline()
        began_s = time.monotonic()

        def stop() -> bool:
            if self._timeout_s is not None and time.monotonic() - began_s > self._timeout_s:
                raise JobError(DEADLINE, f"not done {self._timeout_s} s after it began")
            return cancelled()

        first = pipeline.installed
        pipeline.install(loaded)
        try:
            return pipeline.generate(requests, on_step, stop)
        finally:  # one that is kept no more shall not take room because it is in place
            pipeline.install(first)

    def _loaded(
        self, adapter: AdapterFile | None, requests: Sequence[ImageRequest]
    ) -> LoadedAdapter:
        self._loaded_pipeline()
        assert self._adapters is not None
        loaded = self._adapters.get(adapter)
        if loaded.version == NO_ADAPTER and any(
            one.user_emb_D is not None and one.strength > 0 for one in requests
        ):
            detail = "No adapter is in service: `ppd adapters activate FILE`."
            raise JobFailure("adapter_unavailable", detail)
        return loaded

    def _loaded_pipeline(self) -> Pipeline:
        if self._pipeline is None:
            raise ValueError("the generator is not loaded in this process: it makes no pictures")
        return self._pipeline

    def _load_encoder(self, place: Place) -> UserEncoder:
        return UserEncoder.load(
            self._preset.name,
            self._weights_dir,
            place.device,
            self._prompt_variant,
            self._decoding,
            dtype=place.dtype,
            offload=place.offload,
        )

    def _load_pipeline(self, place: Place, encoder_id: str | None) -> Pipeline:
        pipeline = Pipeline.load(
            self._preset.name,
            self._weights_dir,
            place.device,
            with_adapter=self._adapter is None and self._adapter_beside_weights(encoder_id),
            encoder_id=encoder_id,
            dtype=place.dtype,
            offload=place.offload,
        )
        if self._adapter is not None:
            pipeline.use_adapter(self._adapter, encoder_id=encoder_id)
        return pipeline

    def _load_previewer(self) -> Previewer | None:
        place = self._generator_place
        if not self._preview_every or place is None or place.offload:
            return None
        previewer = None
        if self._weights_dir is not None or not self._preset.published:
            folder = weights_folder(self._preset.name, self._weights_dir)
            previewer = find_previewer(self._preset, folder)
        if previewer is None:
            log.info("no previewer lies among the weights: there are no previews")
        return previewer

    def _adapter_beside_weights(self, encoder_id: str | None) -> bool:
        """Whether to load one from there: for published weights one may come by activation only.

        A process without the encoder needs it, to know whose embeddings are taken.
        """
        if not self._preset.published or encoder_id is None:
            return True
        if self._weights_dir is not None and (self._weights_dir / ADAPTER_FILE).is_file():
            return True
        log.warning("no adapter lies beside the weights: personalised jobs need an activated one")
        return False


def _shared_out(made: Sequence[Generated]) -> list[Generated]:
    """The job is timed as a whole; each picture is given its share."""
    share = 1 / len(made)
    return [replace(g, denoise_s=g.denoise_s * share, decode_s=g.decode_s * share) for g in made]


@contextmanager
def _as_service_errors() -> Iterator[None]:
    """What the model raises, as what the service knows; what it does not know passes."""
    try:
        yield
    except Cancelled:
        raise JobCanceled from None
    except NumericalError as error:
        raise JobFailure("numerical_error") from error
    except EngineClosed as error:
        raise ModelLost from error
    except JobError as error:
        if error.code == CLOSED:
            raise ModelLost from error
        raise _failure_of(error) from error
    except Exception as error:
        if is_out_of_memory(error):
            raise JobFailure("out_of_memory") from error
        raise


def _failure_of(error: JobError) -> JobFailure:
    """What the client is told: the engine has finer codes, for the log.

    The message stays out of both: it may quote what a person sent.
    """
    code = _CODES.get(error.code, "model_error")
    if code != "numerical_error":
        log.error("the engine ended the job: %s", error.code)
    return JobFailure(code)
