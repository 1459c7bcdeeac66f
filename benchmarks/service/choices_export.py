"""What an export of very many contributed answers costs: seconds, peak memory, bytes.

    python -m benchmarks.service.choices_export --answers 1000 10000 100000

For each number a service's data folder is filled by SQL: people who contribute and have answered up
to 90 pairs of the pool each, one of twenty answers being to an own pair. `ppd choices export`
then runs in a process of its own, three times: killed half-way, to its end, and with nothing to do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from service.core.pool import Pool, load_pool
from service.infra.sql import migrate
from service.settings import Settings

AT = "2026-01-01 00:00:00.000000"
OF_A_PERSON = 90
OWN_EVERY = 20
POLL_S = 0.05


def fill(data_dir: Path, answers: int, pool: Pool) -> None:
    """So many answers of people who contribute."""
    data_dir.mkdir(parents=True)
    url = f"sqlite:///{data_dir / 'ppd.db'}"
    migrate.upgrade(url)
    with sqlite3.connect(data_dir / "ppd.db") as db:
        db.executemany(
            "INSERT INTO users (pk, tenant, user_id, created_at, contributes_since)"
            " VALUES (?, 'default', ?, ?, ?)",
            ((f"u{n}", f"person-{n}", AT, AT) for n in range(-(-answers // OF_A_PERSON))),
        )
        db.executemany(
            "INSERT INTO images (id, tenant, user_pk, kind, position, key, sha256, size_bytes,"
            " width_px, height_px, created_at) VALUES (?, 'default', ?, 'upload', 0, ?, ?, ?, 128,"
            " 128, ?)",
            _images(data_dir, answers),
        )
        db.executemany(
            "INSERT INTO choices (user_pk, pair_id, caption, image_0_id, image_1_id, preferred,"
            " swapped, created_at) VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
            _choices(answers, pool),
        )


def _images(data_dir: Path, answers: int) -> Iterator[tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    for number in range(0, answers, OWN_EVERY):
        for side in (0, 1):
            key = f"uploads/{number}/{side}.png"
            path = data_dir / "images" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            shades = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(shades).resize((128, 128), Image.Resampling.BICUBIC).save(path)
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            yield f"i{number}-{side}", f"u{number // OF_A_PERSON}", key, digest, len(data), AT


def _choices(answers: int, pool: Pool) -> Iterator[tuple[Any, ...]]:
    for number in range(answers):
        user_pk, preferred = f"u{number // OF_A_PERSON}", (0, 1, None)[number % 3]
        if number % OWN_EVERY == 0:
            own = (f"i{number}-0", f"i{number}-1")
            yield user_pk, None, "my own", *own, preferred, AT
        else:
            pair = pool.pairs[number % OF_A_PERSON]
            yield user_pk, pair.pair_id, pair.caption, None, None, preferred, AT


def export(data_dir: Path, folder: Path, killed_after: int | None = None) -> dict[str, Any]:
    """Run the command; with `killed_after` it is killed once so many files are there."""
    command = [sys.executable, "-m", "service.cli", "choices", "export", str(folder)]
    environment = {**os.environ, "PPD_DATA_DIR": str(data_dir)}
    started_s = time.monotonic()
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    while killed_after is not None and process.poll() is None:
        if len(list(folder.glob("*.parquet"))) >= killed_after:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(POLL_S)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    return {
        "seconds": round(time.monotonic() - started_s, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
        "status": status,
        "said": said.splitlines(),
    }


def measured(answers: int, pool: Pool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ppd-choices-") as place:
        data_dir, folder = Path(place, "data"), Path(place, "export")
        fill(data_dir, answers, pool)
        files = -(-answers // 1000)
        report: dict[str, Any] = {"answers": answers}
        if files > 1:
            report["killed"] = export(data_dir, folder, killed_after=files // 2)
            report["left_by_the_kill"] = len(list(folder.glob("*.parquet")))
        report["to_its_end"] = export(data_dir, folder)
        report["nothing_to_do"] = export(data_dir, folder)
        report["bytes"] = sum(path.stat().st_size for path in folder.iterdir())
        report["about"] = json.loads((folder / "export.json").read_text())
        return report


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--answers", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    pool = load_pool(Settings().pool_dir)
    reports = []
    for answers in given.answers:
        reports.append(measured(answers, pool))
        print(json.dumps(reports[-1], indent=1), flush=True)
    if given.out is not None:
        given.out.write_text(json.dumps(reports, indent=1) + "\n")


if __name__ == "__main__":
    main()
