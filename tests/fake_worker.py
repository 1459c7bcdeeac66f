"""A worker process with a fake model: `python -m tests.fake_worker --queues generate`. All else is
as in `ppd worker`, and comes from the environment."""

import argparse
import os
import signal
import time
from collections.abc import Callable, Sequence

from service.cli import start_logs, work
from service.core.ports import Picture, PictureSpec, Versions
from service.settings import Settings
from tests.fake_runtime import FakeRuntime


class DeadlyRuntime(FakeRuntime):
    """Its prompt `poison` kills the process; it may take long to load."""

    def __init__(self, step_s: float, load_s: float) -> None:
        super().__init__(step_s)
        self._load_s = load_s

    def load(self) -> Versions:
        time.sleep(self._load_s)
        return super().load()

    def generate(
        self,
        specs: Sequence[PictureSpec],
        on_step: Callable[[int, int], None],
        cancelled: Callable[[], bool],
    ) -> list[Picture]:
        if specs[0].prompt == "poison":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().generate(specs, on_step, cancelled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queues", default="encode,generate")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--step-s", type=float, default=0.0, help="time of one denoising step")
    parser.add_argument("--load-s", type=float, default=0.0, help="time of loading the model")
    options = parser.parse_args()
    start_logs()
    runtime = DeadlyRuntime(options.step_s, options.load_s)
    work(Settings(), lambda: runtime, set(options.queues.split(",")), options.concurrency)


if __name__ == "__main__":
    main()
