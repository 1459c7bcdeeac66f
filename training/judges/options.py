"""Which judge is asked, from a configuration."""

from __future__ import annotations

from collections.abc import Callable, Set
from contextlib import ExitStack
from pathlib import Path
from typing import Literal, Self

from pydantic import PositiveInt

from ppd_model.pipeline import MINI_WEIGHTS_DIR
from ppd_model.user_encoder import UserEncoder
from training.jobs.configuration import Configuration
from training.jobs.shared_options import Device, ModelName
from training.judges.endpoint import EndpointJudge, EndpointSettings, PictureFormat
from training.judges.judge import Judge
from training.judges.llava import LlavaJudge
from training.judges.taste import TasteJudge
from training.precompute.processes import Worker
from training.precompute.source_plan import truth_of
from training.world.looks import Standardizer

JudgeName = Literal["endpoint", "llava", "taste"]
JudgeOf = Callable[[str], Judge]
"""The judge of the person with this user id: one for all, or each their own taste."""


class JudgeOptions(Configuration):
    """Which judge, and what it is asked about."""

    judge: JudgeName
    """Who answers."""
    data: Path
    """Folder of training.precompute."""
    url: str | None = None
    """Of the endpoint; null: from the environment (judges/endpoint.py), as its key is."""
    model: str | None = None
    """Name of the endpoint's model; null: from the environment."""
    temperature: float = 1.0
    """Of the model's answers."""
    pictures: PictureFormat = "png"
    """How pictures are sent to an endpoint; the paper's authors send JPEG."""
    workers: int = 1
    """Questions asked of an endpoint at a time, by each process."""
    judge_batch: PositiveInt = 8
    """Questions that a local VLM reads together."""
    preset: ModelName = "mini"
    weights_dir: Path | None = None
    """Of the local VLM and the world's standardizer; null: as shipped."""
    device: Device = "cpu"

    def unread(self) -> Set[str]:
        """An endpoint's keys, for a judge on this machine."""
        of_endpoint = {"url", "model", "temperature", "pictures", "workers"}
        of_vlm = set() if self.judge == "llava" else {"judge_batch"}
        return of_vlm | (set() if self.judge == "endpoint" else of_endpoint)

    @property
    def at_a_time(self) -> int:
        """How many questions are asked at a time: a judge on this machine answers one."""
        return self.workers if self.judge == "endpoint" else 1

    @property
    def together(self) -> int:
        """How many questions are asked at once."""
        return self.judge_batch if self.judge == "llava" else 1

    def of_process(self, worker: Worker) -> Self:
        """The same with the process's own device, where there are several processes."""
        own = {"device": str(worker.device)} if worker.count > 1 else {}
        return self.model_copy(update=own)


def make_judge(options: JudgeOptions, stack: ExitStack) -> JudgeOf:
    """The judge; what it holds open is closed with `stack`.

    Raises ValueError when "taste" is asked about people who are not of the world.
    """
    if options.judge == "endpoint":
        settings = EndpointSettings.read(
            base_url=options.url,
            model=options.model,
            temperature=options.temperature,
            pictures=options.pictures,
        )
        endpoint = stack.enter_context(EndpointJudge(settings))
        return lambda _: endpoint
    if options.judge == "llava":
        llava = LlavaJudge(UserEncoder.load(options.preset, options.weights_dir, options.device))
        return lambda _: llava
    truth = truth_of(options.data)
    weights_dir = options.weights_dir or MINI_WEIGHTS_DIR
    standardizer = Standardizer.load(weights_dir / "standardizer.json")
    return lambda user: TasteJudge(truth.taste(user), standardizer)
