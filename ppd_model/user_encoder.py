"""Four labelled pairs in, a readable taste profile and the user embedding out (paper, 4.2 and B.2).

LLaVA-OneVision writes its chain of thought and a profile; then one clean pass reads prompt and
response again, and the last layer's hidden state at the profile's final token is the embedding.
Because the response is read as text, a profile that a person edited takes exactly the same path.

Legend: B users, S tokens, D embedding, N images of one user (8).
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    AutoTokenizer,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

from ppd_model import prompts
from ppd_model.files.artifact import (
    SHORT_DIGEST,
    ArtifactError,
    load_artifact,
    load_strict,
    sha256_of,
)
from ppd_model.files.repositories import Repository, locate
from ppd_model.files.safetensor_files import BF16, align, named_dtype
from ppd_model.nets.vlm_precision import make_wide
from ppd_model.presets import Preset, get_preset
from ppd_model.profile_texts import AllowedTokens, Grammar, KnownWords
from ppd_model.readings import Expected, joined
from ppd_model.sampling.placement import own_dtype, placed
from ppd_model.types import EncodedUser as EncodedUser
from ppd_model.types import LabelledPair
from ppd_model.words import VLM_TOKENIZER_FILE, CaptionWords, is_blank

Decoding = Literal["greedy", "sample"]
SAMPLING_TEMPERATURE = 0.7
"""Paper, B.2; without nucleus sampling."""

EMBEDDING_LAYER = -1
IMAGES_PER_USER = 2 * prompts.N_PAIRS
VLM_FILE = "vlm.safetensors"
TOKENIZER_FILE = VLM_TOKENIZER_FILE
DTYPES = ("float32", "bfloat16", "float16")
_PUBLISHED_MAX_NEW_TOKENS = 1024
PLAIN_CAPTION = "a picture of a tree in the hills"
"""Read in the place of a caption that cannot be read; captions never name a look."""


class SeededDraws(LogitsProcessor):  # type: ignore[misc]
    """Sampling, row by row from generators of their own, by taking the largest score.

    Where each score, divided by the temperature, has Gumbel noise of its own added to it, the
    largest is a draw from the softmax: so a batch that is decoded greedily is sampled, without a
    cut-off (nucleus probability 1; paper, B.2), and no row's draws depend on the others.

    Legend: B rows, V vocabulary.
    """

    def __init__(self, temperature: float, seeds: Sequence[int], device: torch.device) -> None:
        self.temperature = temperature
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        """Scores whose largest is the next token, float32, B x V."""
        waits_BV = torch.stack(
            [
                torch.empty_like(scores_V, dtype=torch.float32).exponential_(generator=generator)
                for scores_V, generator in zip(scores_BV, self.generators, strict=True)
            ]
        )
        return scores_BV.float() / self.temperature - waits_BV.clamp(min=1e-30).log()


class EncodingError(RuntimeError):
    """The model gave no usable profile or embedding; nothing of it may be stored."""


class NothingReadError(EncodingError):
    """The model wrote no profile: no words, or no end of its own format."""


class NoWordReadError(EncodingError):
    """A text has no word that the model knows or, without choices, none that names a look."""


class Continued(str):
    """A response that ended without a profile and was continued from the heading it was given."""

    __slots__ = ()


@dataclass(frozen=True)
class TrainedTexts:
    """What a VLM's file says of texts. None: any profile may be written, any word is read."""

    profiles: Grammar | None = None
    words: KnownWords | None = None


class ImageTextProcessor(LlavaOnevisionProcessor):  # type: ignore[misc]
    """LLaVA-OneVision's processor without its video part, which alone needs torchvision."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The parts that are constructed and saved."""
        return ["image_processor", "tokenizer"]


class UserEncoder:
    """Turns choices into profiles and embeddings; load one with ``UserEncoder.load``.

    With ``offload`` the model rests in the machine's memory and is on ``device`` only while it
    reads, so that it can share a device with the generator. A model of a small world
    (``knows_all_words`` false) is shown of a caption only the words that it knows: by others it is
    led astray, and writes of anything but the pictures.
    """

    def __init__(
        self,
        model: LlavaOnevisionForConditionalGeneration,
        processor: ImageTextProcessor,
        *,
        weights_id: str,
        prompt_variant: str = "paper",
        decoding: str = "greedy",
        max_new_tokens: int = _PUBLISHED_MAX_NEW_TOKENS,
        knows_all_words: bool = True,
        texts: TrainedTexts = TrainedTexts(),
        device: str = "cpu",
        offload: bool = False,
    ) -> None:
        if decoding not in get_args(Decoding):
            raise ValueError(f"unknown decoding {decoding!r}; known: {get_args(Decoding)}")
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self.prompt_variant = prompts.check_variant(prompt_variant)
        self.decoding = decoding
        self.max_new_tokens = max_new_tokens
        self.knows_all_words = knows_all_words
        self.user_emb_dim = int(model.config.text_config.hidden_size)
        self.encoder_version = _version(weights_id, prompt_variant, decoding)
        self.device = torch.device(device)
        self.offload = offload
        self._tokenizer = processor.tokenizer
        self._special_tokens = _special_tokens(self._tokenizer)
        self._texts = texts
        self._words = texts.words
        self._caption_words = CaptionWords.of(self._tokenizer.get_vocab())
        self.allowed = self._allowed_by(texts.profiles)

    @classmethod
    def load(
        cls,
        preset: str = "mini",
        weights_dir: Path | str | None = None,
        device: str = "cpu",
        prompt_variant: str = "paper",
        decoding: str = "greedy",
        *,
        dtype: str | None = None,
        offload: bool = False,
    ) -> UserEncoder:
        """The encoder of a preset. It needs nothing of the generator, nor the generator of it.

        ``weights_dir`` defaults to the shipped weights (mini) or to the hub; for a published VLM
        it is the folder that ``ppd models pull`` fills, or the VLM's own folder in the hub's
        layout. ``dtype`` defaults to "bfloat16" on a GPU and "float32" elsewhere. In "float64",
        for mini, the same greedy reading gives the same text and embedding on any CPU. Raises
        ArtifactError or OSError if the weights are missing or not what they should be.
        """
        spec = get_preset(preset)
        weights_dir = None if weights_dir is None else Path(weights_dir)
        rest = "cpu" if offload else device
        if isinstance(spec.vlm, str):
            model, processor, weights_id = _load_published(
                spec, weights_dir, rest, _dtype(dtype, device)
            )
            max_new_tokens, texts = _PUBLISHED_MAX_NEW_TOKENS, TrainedTexts()
        else:
            precision = own_dtype(preset, dtype)
            model, processor, weights_id, max_new_tokens, texts = _load_small(
                _small_folder(spec, weights_dir), spec
            )
            if precision == torch.float64:
                make_wide(model)
            model.to(rest)
        if model.config.text_config.hidden_size != spec.user_emb_dim:
            raise ValueError(
                f"the VLM's hidden size is {model.config.text_config.hidden_size}; "
                f"preset {preset} expects {spec.user_emb_dim}"
            )
        return cls(
            model,
            processor,
            weights_id=weights_id,
            prompt_variant=prompt_variant,
            decoding=decoding,
            max_new_tokens=max_new_tokens,
            knows_all_words=bool(spec.published),
            texts=texts,
            device=device,
            offload=offload,
        )

    @staticmethod
    def version_of(
        preset: str = "mini",
        weights_dir: Path | None = None,
        prompt_variant: str = "paper",
        decoding: str = "greedy",
        *,
        dtype: str | None = None,
        device: str = "cpu",
    ) -> str:
        """The ``encoder_version`` that ``load`` would give, without loading the model.

        For a process that runs the generator only and checks which embeddings belong to it.
        """
        spec = get_preset(preset)
        if isinstance(spec.vlm, str):
            chosen = _dtype(dtype, device)
            weights_id = _published_id(spec, locate(spec, "vlm", weights_dir, chosen), chosen)
        else:
            weights_id = _small_id(_small_folder(spec, weights_dir) / VLM_FILE)
        return _version(weights_id, prompts.check_variant(prompt_variant), decoding)

    @property
    def tokens_per_image(self) -> int:
        """Tokens of one picture among several: its patches and one newline (730 published)."""
        vision = self.model.config.vision_config
        return int((vision.image_size // vision.patch_size) ** 2 + 1)

    def encode(
        self, choices: Sequence[LabelledPair], *, seed: int = 0, profile: str | None = None
    ) -> EncodedUser:
        """Profile and embedding of one person from exactly four choices, or from none.

        ``profile`` is a text that is read in the place of the generated one; without choices it
        is all that is read. ``seed`` matters to decoding "sample" only. Raises ValueError for
        choices that are not four or not well formed, or for neither choices nor text;
        EncodingError for an unusable answer of the model, and NoWordReadError, which is one.
        """
        return self.encode_batch([choices], seed=seed, profiles=[profile])[0]

    def joined(
        self,
        readings: Sequence[EncodedUser],
        weights: Sequence[float],
        expected: Expected | None = None,
    ) -> EncodedUser:
        """What readings of one person's sets of answers say together (``readings.joined``)."""
        return joined(readings, weights, self._texts.profiles, expected)

    @torch.inference_mode()
    def encode_batch(
        self,
        many: Sequence[Sequence[LabelledPair]],
        *,
        seed: int = 0,
        profiles: Sequence[str | None] | None = None,
    ) -> list[EncodedUser]:
        """``encode`` for several people at once, left padded; errors as there.

        With decoding "sample" row i is sampled with seed + i, whoever else is in the batch.
        """
        edits = [None] * len(many) if profiles is None else list(profiles)
        if len(edits) != len(many):
            raise ValueError(f"{len(edits)} profiles for {len(many)} people")
        if not many:
            return []
        with placed(self.model, self.device, offload=self.offload):
            return self._encode(many, seed, edits)

    @torch.inference_mode()
    def read_response(
        self, choices: Sequence[LabelledPair], prompt: prompts.Prompt, response: str
    ) -> EncodedUser:
        """What a response that was written to this prompt comes to, in one clean pass.

        Raises EncodingError as `encode`.
        """
        return self._users([prompt], [self.pictures_of(choices, prompt)], [response], [None])[0]

    @torch.inference_mode()
    def picture_features(self, pictures: Sequence[Image.Image]) -> NDArray[np.float32]:
        """What the VLM's eye sees of each picture, its patches' mean, N x F of length 1."""
        if not pictures:
            raise ValueError("no pictures: there is nothing to see")
        eye = self.model.model.vision_tower
        rows = []
        with placed(self.model, self.device, offload=self.offload):
            for picture in pictures:
                # Nested with a second one, it is not cut into tiles (see `inputs_of`).
                nested = [[picture.convert("RGB")] * 2]
                pixels = self.processor.image_processor(nested, return_tensors="pt")["pixel_values"]
                pixels_1CHW = pixels.reshape(-1, *pixels.shape[-3:])[:1]
                seen = eye(
                    pixels_1CHW.to(self.model.device, self.model.model.image_newline.dtype),
                    output_hidden_states=True,
                ).hidden_states[self.model.config.vision_feature_layer]
                feature_F = seen[0].float().mean(dim=0)
                rows.append((feature_F / feature_F.norm()).cpu().numpy())
        return np.stack(rows).astype(np.float32)

    @property
    def suppressed(self) -> list[int]:
        """Tokens that are never written: those that stand for pictures."""
        blocked = [self.model.config.image_token_id, self.model.config.video_token_id]
        return [token for token in blocked if token < self.model.lm_head.out_features]

    def draws(self, seed: int) -> SeededDraws | None:
        """What samples one row; None where decoding is greedy."""
        if self.decoding != "sample":
            return None
        return SeededDraws(SAMPLING_TEMPERATURE, [seed], self.model.device)

    @staticmethod
    def pictures_of(choices: Sequence[LabelledPair], prompt: prompts.Prompt) -> list[Image.Image]:
        """The eight pictures in the order in which the prompt shows them, as RGB."""
        pictures = [(choice.image_0, choice.image_1) for choice in choices]
        return [pictures[pair][image].convert("RGB") for pair, image in prompt.images]

    def _encode(
        self, many: Sequence[Sequence[LabelledPair]], seed: int, edits: Sequence[str | None]
    ) -> list[EncodedUser]:
        encoded: dict[int, EncodedUser] = {}
        with_choices = [row for row, choices in enumerate(many) if choices]
        alone = [row for row, choices in enumerate(many) if not choices]
        for rows, read in ((with_choices, self._encode_choices), (alone, self._encode_alone)):
            if rows:
                seeds = [seed + row for row in rows]
                users = read([many[row] for row in rows], seeds, [edits[row] for row in rows])
                encoded.update(zip(rows, users, strict=True))
        return [encoded[row] for row in range(len(many))]

    def _encode_choices(
        self,
        many: Sequence[Sequence[LabelledPair]],
        seeds: Sequence[int],
        edits: Sequence[str | None],
    ) -> list[EncodedUser]:
        for edit in edits:
            if edit is not None and self._words is not None and not self._words.read_any(edit):
                raise NoWordReadError("the text has no word that the model knows")
        asked = [self.prompt_of(choices) for choices in many]
        images = [self.pictures_of(choices, p) for choices, p in zip(many, asked, strict=True)]
        responses = self._respond([p.text for p in asked], images, seeds)
        for row, response in enumerate(responses):
            if not prompts.has_profile(response):
                asked[row] = self.prompt_of([replace(c, caption=PLAIN_CAPTION) for c in many[row]])
                again = self._respond([asked[row].text], [images[row]], [seeds[row]])
                responses[row] = again[0]
                if edits[row] is None and not prompts.has_profile(again[0]):
                    raise NothingReadError(f"the reading came to no profile: {again[0][-200:]!r}")
        return self._users(asked, images, responses, edits)

    def _encode_alone(
        self,
        many: Sequence[Sequence[LabelledPair]],
        seeds: Sequence[int],
        edits: Sequence[str | None],
    ) -> list[EncodedUser]:
        """People's own words, in the place of a response that there is none of."""
        for edit in edits:
            if edit is None:
                raise ValueError("neither choices nor a profile text: there is nothing to read")
            if self._words is not None and not self._words.name_a_look(edit):
                raise NoWordReadError("the text names no look in a word that the model knows")
        asked = [prompts.build_words_prompt(self.prompt_variant) for _ in many]
        blank = f"{prompts.profile_heading()} -"
        return self._users(asked, [[] for _ in many], [blank for _ in many], edits)

    def _users(
        self,
        asked: Sequence[prompts.Prompt],
        images: Sequence[Sequence[Image.Image]],
        responses: Sequence[str],
        edits: Sequence[str | None],
    ) -> list[EncodedUser]:
        try:
            read = [
                response if edit is None else self._edited(response, edit)
                for response, edit in zip(responses, edits, strict=True)
            ]
            parsed = [prompts.parse_response(response) for response in read]
        except prompts.NoProfileError as error:
            raise NothingReadError(str(error)) from error
        embs_BD, confidences = self._read(asked, images, read)
        return [
            EncodedUser(
                profile=p.profile if edit is None else edit.strip(),
                transcript=response,
                user_emb_D=emb_D,
                confidence=confidence,
                likes=p.likes,
                dislikes=p.dislikes,
                unread=[] if edit is None or self._words is None else self._words.unread(edit),
                heading_given=isinstance(response, Continued),
            )
            for p, edit, response, emb_D, confidence in zip(
                parsed, edits, read, embs_BD, confidences, strict=True
            )
        ]

    def _respond(
        self,
        texts: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        seeds: Sequence[int],
    ) -> list[str]:
        """The responses, each with its profile's heading.

        A response that ended without one (about one in a thousand of mini's) is given the heading
        and continued, once; the transcript shows where. It may still have no profile.
        """
        responses = self._generate(self.inputs_of(texts, images), seeds)
        short = [row for row, text in enumerate(responses) if not prompts.has_profile(text)]
        if short:
            begun = [prompts.with_heading(responses[row]) for row in short]
            again = [texts[row] + head for row, head in zip(short, begun, strict=True)]
            inputs = self.inputs_of(again, [images[row] for row in short])
            rest = self._generate(inputs, [seeds[row] for row in short])
            for row, head, tail in zip(short, begun, rest, strict=True):
                responses[row] = Continued(f"{head} {tail}")
        return responses

    def prompt_of(self, choices: Sequence[LabelledPair]) -> prompts.Prompt:
        pairs = [prompts.LabelledCaption(self._caption(c.caption), c.preferred) for c in choices]
        prompt = prompts.build_prompt(pairs, self.prompt_variant, self._special_tokens)
        plain = [prompts.LabelledCaption("", c.preferred) for c in choices]
        frame = prompts.build_prompt(plain, self.prompt_variant, self._special_tokens)
        if self._specials_in(prompt.text) != self._specials_in(frame.text):
            raise ValueError("a caption would change the prompt's structure")
        return prompt

    def _caption(self, text: str) -> str:
        """What the model is shown of a caption."""
        if self.knows_all_words:
            return PLAIN_CAPTION if is_blank(text) else text
        return known_caption(text, self._caption_words)

    def _edited(self, response: str, profile: str) -> str:
        if self._words is not None:  # as `words_of` reads it, full-width letters too
            profile = unicodedata.normalize("NFKC", profile)
        if self._specials_in(prompts.as_data(profile, self._special_tokens)):
            raise ValueError("the profile text would change the response's structure")
        return prompts.with_profile(response, profile, self._special_tokens)

    def _specials_in(self, text: str) -> list[int]:
        special = set(self._tokenizer.get_added_vocab().values())
        return [i for i in self._tokenizer(text)["input_ids"] if i in special]

    def inputs_of(
        self,
        texts: Sequence[str],
        images: Sequence[Sequence[Image.Image]],
        padding_side: Literal["left", "right"] = "left",
    ) -> dict[str, torch.Tensor]:
        """Padded model inputs. The image tokens are counted before anything is computed.

        The images are nested, one list per person: given flat, LLaVA-OneVision would cut each
        into tiles and silently make the prompt five to ten times as long.
        """
        nested = [list(row) for row in images if row]
        batch = self.processor(
            text=list(texts),
            images=nested or None,
            padding=True,
            padding_side=padding_side,
            return_tensors="pt",
        )
        counts = (batch["input_ids"] == self.model.config.image_token_id).sum(dim=1).tolist()
        expected = IMAGES_PER_USER * self.tokens_per_image if nested else 0
        if any(count != expected for count in counts):
            raise ValueError(
                f"{counts} image tokens in the prompts; expected {expected} "
                f"= {IMAGES_PER_USER} images x {self.tokens_per_image}"
            )
        dtype = self.model.model.image_newline.dtype
        inputs = {
            name: value.to(self.model.device, dtype if value.is_floating_point() else None)
            for name, value in batch.items()
            if name not in ("token_type_ids", "num_image_tokens")
        }
        return inputs

    def _generate(self, inputs: dict[str, torch.Tensor], seeds: Sequence[int]) -> list[str]:
        """The responses, chain of thought and profile, without special tokens; a seed a row."""
        drawn = SeededDraws(SAMPLING_TEMPERATURE, seeds, self.model.device)
        ids_BS = self.model.generate(
            **inputs,
            do_sample=False,
            logits_processor=LogitsProcessorList([drawn] if self.decoding == "sample" else []),
            max_new_tokens=self.max_new_tokens,
            pad_token_id=self._tokenizer.pad_token_id,
            eos_token_id=self._tokenizer.convert_tokens_to_ids(prompts.TURN_END),
            begin_suppress_tokens=[self._tokenizer.convert_tokens_to_ids(prompts.TURN_END)],
            suppress_tokens=self.suppressed,
            prefix_allowed_tokens_fn=self.allowed,
        )
        length = inputs["input_ids"].shape[1]
        return [self.response_of(row_S[length:]) for row_S in ids_BS]

    def response_of(self, ids_S: torch.Tensor | Sequence[int]) -> str:
        """The text of these tokens, without those that stand for more than text."""
        text: str = self._tokenizer.decode(ids_S, skip_special_tokens=True)
        return text.strip()

    def _read(
        self,
        asked: Sequence[prompts.Prompt],
        images: Sequence[Sequence[Image.Image]],
        responses: Sequence[str],
    ) -> tuple[list[NDArray[np.float32]], list[float]]:
        """Embeddings and confidences from one pass over prompts and responses.

        Each text ends with its profile and the rows are padded on the left, so the profile's
        final token is the last of its row.
        """
        texts = [p.text + response for p, response in zip(asked, responses, strict=True)]
        inputs = self.inputs_of(texts, images)
        mask_BS = inputs["attention_mask"]
        positions_BS = (mask_BS.cumsum(dim=1) - 1).clamp(min=0)
        output = self.model.model(**inputs, position_ids=positions_BS, use_cache=False)
        # The last layer's state after the final norm: hidden_states[-1] of transformers.
        hidden_BSD = output.last_hidden_state
        embs_BD = hidden_BSD[:, -1].float().cpu().numpy()
        confidences = []
        for row, (prompt, response) in enumerate(zip(asked, responses, strict=True)):
            head, _ = prompts.split_profile(response)
            tokens = self.count_tokens(prompt.text + response)
            tokens -= self.count_tokens(prompt.text + head)
            logits_SV = self.model.lm_head(hidden_BSD[row, -tokens - 1 : -1])
            logits_SV = logits_SV.to(torch.promote_types(logits_SV.dtype, torch.float32))
            profile_S = inputs["input_ids"][row, -tokens:]
            logp_S = logits_SV.log_softmax(-1).gather(-1, profile_S[:, None])
            confidences.append(float(logp_S.mean().exp()))
        for emb_D, confidence in zip(embs_BD, confidences, strict=True):
            check_reading(emb_D, confidence, self.user_emb_dim)
        return list(embs_BD.astype(np.float32)), confidences

    def _allowed_by(self, profiles: Grammar | None) -> AllowedTokens | None:
        if profiles is None:
            return None
        return AllowedTokens(
            profiles,
            lambda text: self._tokenizer(text)["input_ids"],
            heading=self._tokenizer.convert_tokens_to_ids(prompts.profile_heading()),
            end=self._tokenizer.convert_tokens_to_ids(prompts.TURN_END),
            vocabulary=self.model.lm_head.out_features,
        )

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer(text)["input_ids"])


def check_reading(user_emb_D: NDArray[Any], confidence: float, dim: int) -> None:
    """`check_embedding`, and that the confidence is a number."""
    check_embedding(user_emb_D, dim)
    if not math.isfinite(confidence):
        raise EncodingError(f"the profile's confidence is {confidence}")


def check_embedding(user_emb_D: NDArray[Any], dim: int) -> None:
    """Raises EncodingError for a wrong shape, NaN or infinity, or the zero vector."""
    if user_emb_D.shape != (dim,):
        raise EncodingError(f"embedding of shape {user_emb_D.shape}; expected ({dim},)")
    if not np.isfinite(user_emb_D).all():
        raise EncodingError("the embedding has values that are not finite")
    if not np.linalg.norm(user_emb_D) > 0:
        raise EncodingError("the embedding is zero")


def known_caption(text: str, words: CaptionWords) -> str:
    """What mini is shown of a caption, which has as many words as those of its training."""
    known = words.known(text)
    return PLAIN_CAPTION if len(known) < words.least else " ".join(known[: words.most])


def make_processor(
    tokenizer: Any, image_processor: LlavaOnevisionImageProcessorPil, config: LlavaOnevisionConfig
) -> ImageTextProcessor:
    """The processor that belongs to a model's configuration."""
    vision = config.vision_config
    return ImageTextProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        num_image_tokens=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        vision_aspect_ratio=config.vision_aspect_ratio,
    )


def small_image_processor(side_px: int) -> LlavaOnevisionImageProcessorPil:
    """mini's: pictures padded to a square, resized to ``side_px``, [0, 255] mapped to [-1, 1]."""
    return LlavaOnevisionImageProcessorPil(
        size={"height": side_px, "width": side_px},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        image_grid_pinpoints=[[side_px, side_px]],
    )


def small_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """mini's byte-level tokenizer, with the special tokens of Qwen's chat format."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        pad_token="<|endoftext|>",  # noqa: S106
        eos_token=prompts.TURN_END,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _load_small(
    folder: Path, preset: Preset
) -> tuple[LlavaOnevisionForConditionalGeneration, ImageTextProcessor, str, int, TrainedTexts]:
    path = folder / VLM_FILE
    tensors, spec = load_artifact(path, kind="vlm", base_model=preset.base_model)
    tokenizer_path = folder / TOKENIZER_FILE
    tokenizer_sha = sha256_of(tokenizer_path)
    if tokenizer_sha != spec.extra["tokenizer_sha256"]:
        raise ValueError(
            f"{tokenizer_path} has sha256 {tokenizer_sha}; "
            f"{path} was trained with {spec.extra['tokenizer_sha256']}"
        )
    config = LlavaOnevisionConfig(**spec.config["model"])
    model = LlavaOnevisionForConditionalGeneration(config)
    load_strict(model, tensors)
    processor = make_processor(
        small_tokenizer(tokenizer_path),
        small_image_processor(config.vision_config.image_size),
        config,
    )
    profiles, words = spec.config.get("profiles"), spec.config.get("words")
    texts = TrainedTexts(
        None if profiles is None else Grammar.read(profiles),
        None if words is None else KnownWords.read(words),
    )
    return model, processor, _small_id(path), int(spec.config["max_new_tokens"]), texts


def _small_folder(preset: Preset, weights_dir: Path | None) -> Path:
    return weights_dir or Path(__file__).parent / preset.name


def _small_id(path: Path) -> str:
    return f"vlm-{sha256_of(path)[:SHORT_DIGEST]}"


def _load_published(
    preset: Preset, weights_dir: Path | None, device: str, dtype: torch.dtype
) -> tuple[LlavaOnevisionForConditionalGeneration, ImageTextProcessor, str]:
    """A published VLM, on ``device``, with its processor and the name of its weights.

    The library itself loads without a second copy in memory, but forgives what does not match:
    here every missing, unknown or misshapen key is an ArtifactError that names it.
    """
    part = preset.published["vlm"]
    repository = locate(preset, "vlm", weights_dir, dtype)
    weights = repository.weights(part, dtype)
    weights.shapes()
    weights_id = _published_id(preset, repository, dtype)
    folder = str(repository.folder(part))
    model, loaded = LlavaOnevisionForConditionalGeneration.from_pretrained(
        folder,
        dtype=dtype,
        variant=BF16 if f".{BF16}" in weights.all_files[0].name else None,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
    )
    wrong = {
        "missing": sorted(loaded["missing_keys"]),
        "unknown": sorted(loaded["unexpected_keys"]),
        "of another shape": sorted(str(key) for key in loaded["mismatched_keys"]),
    }
    if any(wrong.values()):
        counted = ", ".join(
            f"{len(keys)} keys {what} {keys[:3]}" for what, keys in wrong.items() if keys
        )
        raise ArtifactError(f"{weights.all_files[0]}: {counted}")
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ArtifactError(f"{weights.all_files[0]}: {name} holds NaN or infinity")
    processor = make_processor(
        AutoTokenizer.from_pretrained(folder, padding_side="left", local_files_only=True),
        LlavaOnevisionImageProcessorPil.from_pretrained(folder, local_files_only=True),
        model.config,
    )
    model.to(device)
    align(model)
    return model, processor, weights_id


def _published_id(preset: Preset, repository: Repository, dtype: torch.dtype) -> str:
    """Repository and commit, or, where the commit is not known, one hash over its files."""
    digest = repository.sha256(preset.published["vlm"], dtype)
    name = preset.published["vlm"].repository.split("/")[-1]
    return f"{name}-{(repository.commit or digest)[:SHORT_DIGEST]}"


def _dtype(name: str | None, device: str) -> torch.dtype:
    if name is None:
        return torch.bfloat16 if device.startswith("cuda") else torch.float32
    return named_dtype(name, DTYPES, "the VLM")


def _version(weights_id: str, prompt_variant: str, decoding: str) -> str:
    return f"{weights_id}.{prompt_variant}.{decoding}.layer{EMBEDDING_LAYER}"


def _special_tokens(tokenizer: Any) -> tuple[str, ...]:
    known = {*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens, *prompts.CHAT_TOKENS}
    return tuple(sorted(known))
