"""The whole service with a fake model, to build pages and clients against: `python -m
tests.fake_service --port 8001`. Pictures are blocks of colour; everything else is real."""

import argparse
import asyncio
import tempfile
from pathlib import Path

from service.cli.commands import run_server
from service.settings import Settings
from service.wiring import embedded, prepare, sole_user_of
from tests.fake_runtime import FakeRuntime
from tests.running_service import make_pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--step-s", type=float, default=0.05, help="time of one denoising step")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ppd-fake-") as folder:
        data_dir = options.data_dir or Path(folder) / "data"
        pool_dir = Settings().pool_dir
        if not (pool_dir / "pairs.json").is_file():
            Path(folder, "pool").mkdir()
            pool_dir = make_pool(Path(folder, "pool"))
        settings = Settings(
            host=options.host, port=options.port, data_dir=data_dir, pool_dir=pool_dir
        )
        with sole_user_of(data_dir):
            asyncio.run(prepare(settings))
            run_server(settings, embedded(settings, FakeRuntime(step_s=options.step_s)))


if __name__ == "__main__":
    main()
