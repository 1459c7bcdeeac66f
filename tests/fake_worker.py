"""A worker process with a fake model: `python -m tests.fake_worker --queues generate`. All else is
as in `ppd worker`, and comes from the environment."""

import argparse
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ppd_model.types import Generated, ImageRequest
from service.cli.commands import work
from service.core.errors import JobCanceled
from service.core.ports import Preview, Versions
from service.settings import Settings
from service.wiring import start_logs
from tests.fake_runtime import FakeRuntime


class DeadlyRuntime(FakeRuntime):
    """Its prompt `a poison` kills the process, `a short circuit` breaks the model for good.

    It may take long to load, and wait for a file.
    """

    def __init__(self, step_s: float, load_s: float, wait_for: Path | None) -> None:
        super().__init__(step_s)
        self._load_s = load_s
        self._wait_for = wait_for

    def load(self) -> Versions:
        time.sleep(self._load_s)
        return super().load()

    def generate(
        self,
        specs: Sequence[ImageRequest],
        on_step: Callable[[int, int], None],
        cancelled: Callable[[], bool],
        on_preview: Callable[[Preview], None],
        **whose: Any,
    ) -> list[Generated]:
        if specs[0].prompt == "a poison":
            time.sleep(1)  # others come beside it meanwhile
            os.kill(os.getpid(), signal.SIGKILL)
        if specs[0].prompt == "a short circuit":
            self.broken_by = "CUDA error"
        while self._wait_for is not None and not self._wait_for.exists():
            if cancelled():
                raise JobCanceled
            time.sleep(0.02)
        return super().generate(specs, on_step, cancelled, on_preview, **whose)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queues", default="encode,generate")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--step-s", type=float, default=0.0, help="time of one denoising step")
    parser.add_argument("--load-s", type=float, default=0.0, help="time of loading the model")
    parser.add_argument("--preview-every", type=int, default=0, help="steps between previews")
    parser.add_argument("--wait-for", type=Path, help="a file; no step is made before it exists")
    options = parser.parse_args()
    settings = Settings()
    start_logs(settings)
    runtime = DeadlyRuntime(options.step_s, options.load_s, options.wait_for)
    runtime.preview_every = options.preview_every
    work(settings, lambda: runtime, set(options.queues.split(",")), options.concurrency)


if __name__ == "__main__":
    main()
