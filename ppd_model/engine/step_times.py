"""How long a step takes, by the latents' shape and the rows of the network: t(n) for admission."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ppd_model.engine.admission import StepCurve
from ppd_model.engine.jobs import Shape
from ppd_model.engine.step_clock import StepClock
from ppd_model.pipeline import Pipeline
from ppd_model.sampling.conditioning import Conditioning
from ppd_model.sampling.devices import DeviceSupport
from ppd_model.sampling.running_batch import RunningBatch
from ppd_model.types import ImageRequest

MEASURED_STEPS = 4


class StepTimes:
    """Curves by shape. The default shape's is measured at the start, unless it is known."""

    def __init__(self, pipeline: Pipeline, known: Mapping[Shape, StepCurve] | None) -> None:
        self.default_shape: Shape = pipeline.check([ImageRequest("", seed=0)])
        self._pipeline = pipeline
        self._curves = dict(known or {})

    @property
    def known(self) -> bool:
        """Whether the default shape's curve is."""
        return self.default_shape in self._curves

    def learn(self, curve: StepCurve) -> None:
        """Take this for the default shape's."""
        self._curves[self.default_shape] = curve

    def of(self, shape_CHW: Shape) -> StepCurve:
        """A shape that was not measured begins with the default one's times, by its area."""
        if shape_CHW not in self._curves:
            factor = math.prod(shape_CHW) / math.prod(self.default_shape)
            self._curves[shape_CHW] = self._curves[self.default_shape].scaled(factor)
        return self._curves[shape_CHW]

    def seconds(self) -> dict[str, dict[int, float]]:
        """Shape, as text, to rows of the network to seconds of a step."""
        return {"x".join(map(str, s)): dict(c.points_s) for s, c in self._curves.items()}

    def measure(self, support: DeviceSupport, conditioning: Conditioning) -> StepCurve:
        """t(n) of personalised rows of the default shape, the least of a few steps each."""
        adapter = self._pipeline.installed
        user_emb_D = np.ones(self._pipeline.preset.user_emb_dim, np.float32)
        sizes = [n for n in support.measured if n <= support.max_rows]
        request = ImageRequest(
            "", seed=0, user_emb_D=user_emb_D, guidance_scale=1.0, steps=10 * MEASURED_STEPS
        )
        tokens = adapter.adapter.projector.tokens
        batch = RunningBatch(self._pipeline, support, self.default_shape, tokens)
        clock = StepClock(asynchronous=support.asynchronous)
        seconds: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(1 + MEASURED_STEPS):  # all sizes in turn: a slow moment is not one size's
            for size in sizes:
                while batch.network_rows < size:
                    row = conditioning.row(request, adapter)
                    row.done = row.plan.common_steps
                    batch.join(row)
                clock.begin()
                batch.step()
                clock.end(seconds[size].append)
            clock.settle()
            batch.clear()
        return StepCurve({size: min(measured[1:]) for size, measured in seconds.items()})
