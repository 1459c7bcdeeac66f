"""Which judge is asked, from a configuration."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.user_encoder import UserEncoder
from training.configuration import Configuration
from training.judges.endpoint import EndpointJudge, EndpointSettings
from training.judges.judge import Judge
from training.judges.llava import LlavaJudge
from training.judges.taste import TasteJudge
from training.precompute.source_plan import config_of
from training.world.looks import Standardizer
from training.world.truth import GroundTruth

JudgeName = Literal["endpoint", "llava", "taste"]
JudgeOf = Callable[[str], Judge]
"""The judge of the person with this user id: one for all, or each their own taste."""


class JudgeOptions(Configuration):
    """data: a folder of training.precompute. url and model: of the endpoint, else from the
    environment (judges/endpoint.py), as its key is in any case. preset, weights_dir, device: of
    the local VLM, weights_dir also of the world's standardizer; None is what is shipped.
    workers: questions asked at a time, of an endpoint."""

    judge: JudgeName
    data: Path
    url: str | None = None
    model: str | None = None
    temperature: float = 1.0
    workers: int = 1
    preset: str = "mini"
    weights_dir: Path | None = None
    device: str = "cpu"

    @property
    def at_a_time(self) -> int:
        """How many questions are asked at a time: a judge on this machine answers one."""
        return self.workers if self.judge == "endpoint" else 1


def make_judge(options: JudgeOptions, stack: ExitStack) -> JudgeOf:
    """The judge; what it holds open is closed with `stack`.

    Raises ValueError when "taste" is asked about people who are not of the world.
    """
    if options.judge == "endpoint":
        settings = EndpointSettings.read(
            base_url=options.url, model=options.model, temperature=options.temperature
        )
        endpoint = stack.enter_context(EndpointJudge(settings))
        return lambda _: endpoint
    if options.judge == "llava":
        llava = LlavaJudge(UserEncoder.load(options.preset, options.weights_dir, options.device))
        return lambda _: llava
    path = config_of(options.data).truth
    if path is None:
        raise ValueError(f"{options.data} was made without the ground truth of people's tastes")
    truth = GroundTruth.load(path)
    weights_dir = options.weights_dir or MINI_WEIGHTS_DIR
    standardizer = Standardizer.load(weights_dir / "standardizer.json")
    return lambda user: TasteJudge(truth.taste(user), standardizer)
