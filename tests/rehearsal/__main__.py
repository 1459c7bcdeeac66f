"""START HERE: every command of docs/reproduce.md, as it stands, from the check of downloads on.

    python -m tests.rehearsal [--preset stable-cascade] [--folder FOLDER] [--keep]

In a folder of its own: downloads of the published layout, made up and small (downloads.py); sizes
out of overrides.yaml; an endpoint that judges. `python -m` and `accelerate launch -m` are forked
from a process that has imported torch (forked_python.py); `--plain` starts them anew. Prints one
table, and ends with status 1 unless every command did and every table and figure is there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.rehearsal.downloads import COUNTED, write_downloads
from tests.rehearsal.forked_python import write_shims
from tests.rehearsal.judge import running_judge
from tests.rehearsal.page import commands
from tests.rehearsal.shell import Ran, Shell
from training.reports.tables import markdown_table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reproduce.md"
RESULTS = (
    "pickapic/classify_users/top_k.png",
    "{preset}/table_one/table.md",
    "{preset}/table_one/wins.png",
    "{preset}/interpolation/simplex.png",
    "{preset}/interpolation/pictures.png",
    "{preset}/augmented_captions/pictures.png",
    "{preset}/win_rates/win-rates-endpoint.png",
    "{preset}/win_rates/win-rates-llava.png",
    "{preset}/sweep_beta/sweep.png",
    "{preset}/sweep_lr/sweep.png",
    "{preset}/sweep_user_tokens/sweep.png",
    "{preset}/ppd_real/choose_beta.json",
    "{preset}/picture.png",
)
"""What the page promises, below PPD_RUNS_DIR."""
SHOWN_LINES = 15
WAIT_S = 180


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="stable-cascade-1b")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--keep", action="store_true", help="Leave the folder there.")
    parser.add_argument("--plain", action="store_true", help="Start every process anew.")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder: Path = given.folder or Path(
            tempfile.mkdtemp(prefix="ppd-rehearsal-")
            if given.keep
            else stack.enter_context(tempfile.TemporaryDirectory(prefix="ppd-rehearsal-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        print(f"rehearsing in {folder}; what the commands say: {folder / 'log.txt'}", flush=True)
        preset = f"{given.preset}+tiny"
        started_s = time.monotonic()
        write_downloads(folder / "weights", folder / "datasets", preset)
        print(f"downloads made up in {time.monotonic() - started_s:.0f} s", flush=True)
        environment = environment_of(folder, preset, stack.enter_context(running_judge()))
        if not given.plain:
            stack.callback(end, fork_from_here(folder, environment))
        shell = Shell(ROOT, environment, folder / "log.txt")
        stack.callback(shell.close)
        rows, failed = rehearse(shell, folder / "runs")
        print(markdown_table(["command", "seconds", "wrote", "ok"], rows))
        wanted = [folder / "runs" / name.format(preset=preset) for name in RESULTS]
        missing = [str(path) for path in wanted if not path.exists() or not path.stat().st_size]
        for path in missing:
            print(f"not there: {path}")
        miscounted = wrong_counts(folder / "runs" / "pickapic" / "precompute" / "summary.json")
        print(f"rows of Pick-a-Pic counted otherwise than they were made: {miscounted or 'none'}")
        minutes = (time.monotonic() - started_s) / 60
        print(f"{len(rows)} commands, {failed} failed, {minutes:.1f} minutes")
        print(f"{len(missing)} of {len(wanted)} results missing")
    print(f"{cpu_seconds():.0f} s of one processor")
    raise SystemExit(bool(failed or missing or miscounted))


def environment_of(folder: Path, preset: str, judge: str) -> dict[str, str]:
    """What the page's first lines find set already, and what keeps it small and apart."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PPD_")}
    return kept | {
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "PPD_PRESET": preset,
        "PPD_DEVICE": "cpu",
        "PPD_WEIGHTS_DIR": str(folder / "weights"),
        "PPD_DATASETS_DIR": str(folder / "datasets"),
        "PPD_RUNS_DIR": str(folder / "runs"),
        "PPD_DATA_DIR": str(folder / "service"),
        "PPD_PORT": port,
        "PPD_OVERRIDES": str(Path(__file__).with_name("overrides.yaml")),
        "PPD_JUDGE_URL": judge,
        "PPD_JUDGE_MODEL": "rehearsal",
        "PPD_JUDGE_KEY": "none",
        "BETAS": "0.5 2",
    }


def fork_from_here(folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """The process that jobs are forked from, once it is ready."""
    address = folder / "python.socket"
    write_shims(folder / "bin", address)
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.rehearsal.forked_python", str(address)],
        cwd=ROOT,
        env=environment,
    )
    for _ in range(WAIT_S):
        if address.exists():
            return server
        if server.poll() is not None:
            break
        time.sleep(1)
    raise RuntimeError("no process to fork from came up")


def end(server: subprocess.Popen[bytes]) -> None:
    server.kill()
    server.wait()


def cpu_seconds() -> float:
    """What all commands and this process took so far, of those that have ended."""
    took = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in took)


def rehearse(shell: Shell, runs: Path) -> tuple[list[list[str]], int]:
    """Run all commands; a line of the table for each, and how many failed."""
    rows, failed = [], 0
    known: set[Path] = set()
    for command in commands(PAGE):
        ran = shell.run(command)
        found = {path for path in runs.rglob("*") if path.is_file()}
        wrote = summary(found - known, runs)
        known = found
        failed += ran.status != 0
        rows.append(
            [shortened(command), f"{ran.seconds:.1f}", wrote, "yes" if not ran.status else "NO"]
        )
        print(
            f"{'ok    ' if not ran.status else 'FAILED'} {ran.seconds:6.1f} s  {shortened(command)}"
        )
        if ran.status:
            print(last_lines(ran))
        sys.stdout.flush()
    return rows, failed


def wrong_counts(path: Path) -> dict[str, tuple[int, int | None]]:
    """What became of the rows, where it is not what should: expected and found."""
    read = json.loads(path.read_text())["read"] if path.exists() else {}
    return {
        name: (expected, read.get(name))
        for name, expected in COUNTED.items()
        if read.get(name) != expected
    }


def summary(paths: set[Path], runs: Path) -> str:
    """Folders below `runs` with the number of new files in each."""
    counts: dict[str, int] = {}
    for path in sorted(paths):
        folder = "/".join(path.relative_to(runs).parts[:-1][:2])
        counts[folder] = counts.get(folder, 0) + 1
    return ", ".join(f"{folder} ({count})" for folder, count in counts.items())


def shortened(command: str) -> str:
    """A command on one line of a table."""
    words = " ".join(command.replace("\\\n", " ").split()).replace("|", "\\|")
    return words if len(words) <= 100 else f"{words[:97]}..."


def last_lines(ran: Ran) -> str:
    return "\n".join(f"    {line}" for line in ran.output.splitlines()[-SHOWN_LINES:])


if __name__ == "__main__":
    main()
