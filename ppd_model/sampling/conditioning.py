"""What does not change over a picture's steps, computed once and kept: keys and values.

Those of a text depend on the prompt alone, those of a user on the embedding and the adapter. A
negative prompt that everybody uses, mostly the empty one, is computed once per process.

Legend: D embedding width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from ppd_model.nets.adapter import Adapter, KeyValue, UserPart
from ppd_model.nets.text_encoder import TextFeatures
from ppd_model.sampling.plan import Plan, plan_of
from ppd_model.sampling.recently_used import Recent
from ppd_model.sampling.requests import LoadedAdapter, Models, check_requests
from ppd_model.sampling.rows import Row, TextPart
from ppd_model.types import ImageRequest

TEXTS_KEPT = 32
USERS_KEPT = 256


class Conditioning:
    """Makes rows of requests. For one thread, the one that runs Stage C."""

    def __init__(
        self,
        models: Models,
        *,
        texts_kept: int = TEXTS_KEPT,
        users_kept: int = USERS_KEPT,
    ) -> None:
        self._models = models
        self._features: dict[str, TextFeatures] = {}
        self.texts: Recent[str, TextPart] = Recent(texts_kept)
        self.users: Recent[tuple[str, bytes], tuple[KeyValue, ...]] = Recent(users_kept)

    def encode(self, requests: Sequence[ImageRequest]) -> None:
        """Let the text encoder read all texts of these requests in one pass, for `row`."""
        texts = {request.prompt for request in requests}
        texts |= {one.negative_prompt for one in requests if one.guidance_scale > 1}
        ordered = sorted(texts)
        features = self._models.text_encoder.encode(ordered)
        for i, text in enumerate(ordered):
            self._features[text] = TextFeatures(
                features.tokens_BSD[i : i + 1], features.pooled_B1D[i : i + 1]
            )

    def row(
        self,
        request: ImageRequest,
        loaded: LoadedAdapter,
        generator: torch.Generator | None = None,
    ) -> Row:
        """A row at its beginning, with a generator of its seed unless another one is given.

        Raises ValueError for a request that cannot be made.
        """
        models, adapter = self._models, loaded.adapter
        shape_CHW = check_requests(models.preset, [request])
        emb_D = request.user_emb_D
        plan = plan_of(models.preset, request, models.latent_dtype)
        generator = generator or torch.Generator().manual_seed(request.seed)
        personal = emb_D is not None and request.strength > 0 and adapter.enabled
        return Row(
            shape_CHW=shape_CHW,
            prompt=self._text(request.prompt),
            negative=self._text(request.negative_prompt) if any(plan.guided) else None,
            user_blocks=self._user(request, loaded) if personal else None,
            user_tokens=adapter.projector.tokens,
            strength=request.strength if personal else 0.0,
            guidance=max(request.guidance_scale, 1.0),
            guidance_rescale=request.guidance_rescale,
            plan=plan,
            generator=generator,
            origin=_origin(request, plan, generator),
            dtype=models.latent_dtype,
        )

    def clear(self) -> None:
        """Drop everything: memory is short."""
        self.texts.clear()
        self.users.clear()

    def _text(self, prompt: str) -> TextPart:
        return self.texts.get_or_make(prompt, lambda: self._make_text(prompt))

    def _make_text(self, prompt: str) -> TextPart:
        text = self._features.get(prompt) or self._models.text_encoder.encode([prompt])
        attended = self._models.stage_c.attend(text.tokens_BSD, text.pooled_B1D, precompute=True)
        assert attended.text_blocks is not None
        return TextPart(attended.text_blocks, text.pooled_B1D)

    def _user(self, request: ImageRequest, loaded: LoadedAdapter) -> tuple[KeyValue, ...]:
        assert request.user_emb_D is not None
        emb_D = np.ascontiguousarray(request.user_emb_D, dtype=np.float32)
        return self.users.get_or_make(
            (loaded.version, emb_D.tobytes()), lambda: self._make_user(emb_D, loaded.adapter)
        )

    def _make_user(self, emb_D: np.ndarray, adapter: Adapter) -> tuple[KeyValue, ...]:
        own = adapter.projector.center_D
        emb_1D = torch.tensor(emb_D[None], dtype=own.dtype, device=own.device)
        dtype = self._models.stage_c.unet.dtype
        user: UserPart = adapter(emb_1D, emb_1D.new_ones(1))
        return user.to(dtype).blocks


def _origin(request: ImageRequest, plan: Plan, generator: torch.Generator) -> bytes:
    """Of all that decides a row's steps before the adapter acts; empty if there are none."""
    if plan.common_steps == 0:
        return b""
    guidance = (request.guidance_scale, request.guidance_rescale)
    asked = (request.prompt, request.negative_prompt, guidance, plan)
    state = generator.get_state().numpy().tobytes()
    return hashlib.sha256(repr(asked).encode() + state).digest()
