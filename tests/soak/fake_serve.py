"""`ppd serve` with a fake model, whose pictures show whose they are: all else comes from the
environment, and production serves without a model anyway."""

import asyncio
import os

from service.cli.server import run_server
from service.settings import read
from service.wiring import api, embedded, prepare, sole_user_of, start_logs
from tests.fake_runtime import FakeRuntime

STEP_S = "SOAK_STEP_S"


def main() -> None:
    settings = read()
    start_logs(settings)
    if settings.production:
        asyncio.run(prepare(settings))
        run_server(settings, api(settings))
        return
    with sole_user_of(settings.data_dir):
        asyncio.run(prepare(settings))
        runtime = FakeRuntime(float(os.environ[STEP_S]))
        runtime.preview_every = settings.preview_every
        run_server(settings, embedded(settings, runtime))


if __name__ == "__main__":
    main()
