"""Pictures while training goes on: the same prompts, seeds and people each time.

One row for each prompt, with the validation people in turn; one column for the base and one for
each strength. They are drawn by the pipeline that serves, by a network of its own that shares the
live weights: whatever the pipeline does to its modules, those that train stay as they are.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from ppd_model.nets.stage_c import StageC
from ppd_model.pipeline import Pipeline
from ppd_model.types import ImageRequest
from training.dpo.dpo_config import DpoConfig

HEADER_PX = 14
GAP_PX = 2
BASE_STRENGTH = 0.0


class SampleGrid:
    """Draws grids for one run. `user_emb_ED` are the people shown, at least one."""

    def __init__(self, pipeline: Pipeline, user_emb_ED: Tensor, config: DpoConfig) -> None:
        self._pipeline = pipeline
        self._config = config
        self._columns = (BASE_STRENGTH, *config.sample_strengths)
        self._users = [emb_D.cpu().numpy() for emb_D in user_emb_ED.float()]

    @classmethod
    def load(cls, config: DpoConfig, stage_c: StageC, user_emb_ED: Tensor) -> SampleGrid | None:
        """With the decoder and text encoder of `config.decoder`; None where it names no folder.

        Raises FileNotFoundError or ArtifactError for a folder that lacks a part.
        """
        if config.decoder is None:
            return None
        parts = Pipeline.load(config.preset, config.decoder, with_adapter=False)
        device = next(stage_c.parameters()).device
        pipeline = Pipeline(
            parts.preset,
            parts.text_encoder,
            with_the_weights_of(stage_c),
            parts.decoder,
            model_id=parts.model_id,
            device=str(device),
        )
        return cls(pipeline, user_emb_ED, config)

    def draw(self) -> NDArray[np.uint8]:
        """The grid, H x W x 3, with the strengths written above the columns."""
        prompts = self._config.sample_prompts
        columns = [self._column(strength) for strength in self._columns]
        side_y_px, side_x_px = columns[0][0].shape[:2]
        sheet = Image.new(
            "RGB",
            (
                len(columns) * (side_x_px + GAP_PX) - GAP_PX,
                HEADER_PX + len(prompts) * (side_y_px + GAP_PX) - GAP_PX,
            ),
            "white",
        )
        pen = ImageDraw.Draw(sheet)
        for x, (strength, images) in enumerate(zip(self._columns, columns, strict=True)):
            left_px = x * (side_x_px + GAP_PX)
            title = "base" if strength == BASE_STRENGTH else f"strength {strength:g}"
            pen.text((left_px + 2, 1), title, fill="black")
            for y, image_HWC in enumerate(images):
                top_px = HEADER_PX + y * (side_y_px + GAP_PX)
                sheet.paste(Image.fromarray(image_HWC), (left_px, top_px))
        return np.asarray(sheet)

    def save(self, folder: Path, step: int) -> NDArray[np.uint8]:
        """Draw the grid of a step and write it as a PNG."""
        grid_HWC = self.draw()
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grid_HWC).save(folder / f"step-{step:06d}.png")
        return grid_HWC

    def _column(self, strength: float) -> list[NDArray[np.uint8]]:
        config = self._config
        requests = [
            ImageRequest(
                prompt,
                seed=config.sample_seed + row,
                user_emb_D=None
                if strength == BASE_STRENGTH
                else self._users[row % len(self._users)],
                strength=strength,
                steps=config.sample_steps,
            )
            for row, prompt in enumerate(config.sample_prompts)
        ]
        generators = [torch.Generator().manual_seed(request.seed) for request in requests]
        latent_BCHW = self._pipeline.sample_latents(requests, generators)
        return list(self._pipeline.decode(requests, latent_BCHW, generators))


def with_the_weights_of(stage_c: StageC) -> StageC:
    """Modules of their own, compiled in no case, over the very same parameters and buffers."""
    weights = (*stage_c.parameters(), *stage_c.buffers())
    return copy.deepcopy(stage_c, {id(weight): weight for weight in weights})
