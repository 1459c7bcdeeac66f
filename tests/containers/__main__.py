"""START HERE: `make containers`: every image built, `embedded` and `cpu` of Compose tried.

On a machine without a registry, in an engine of its own, over stand-ins made of Debian's packages
(stand_ins.py). Takes root, docker, debootstrap; what is built stays in `--folder` for the next
run, all else is gone at the end. Prints one table, and ends with status 1 unless all of it held.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.compose_file import ROOT
from tests.containers import stand_ins, trials
from tests.containers.composed import project
from tests.containers.engine import Engine, engine
from tests.containers.host import UnfitError, look
from training.reports.tables import markdown_table

FREE_BYTES = 12 * 2**30
NOW, BEFORE = "now", "before"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp/ppd-containers"))
    parser.add_argument("--torch-wheels", type=Path, help="a folder with torch-*.whl for CPUs")
    parser.add_argument(
        "--from",
        dest="older",
        help="the commit to upgrade from and go back to; "
        "the default is the last one before the newest migration",
    )
    parser.add_argument("--profiles", nargs="+", choices=trials.STEPS, default=list(trials.STEPS))
    parser.add_argument(
        "--only", nargs="+", default=[""], help="of the trials those with one of these words"
    )
    parser.add_argument(
        "--code-only", action="store_true", help="put the code on the packages of the last build"
    )
    parser.add_argument("--forget", action="store_true", help="remove --folder at the end")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all is tidied then too
    folder: Path = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    report = Report()
    try:
        host = look(given.torch_wheels)
        if shutil.disk_usage(folder).free < FREE_BYTES:
            raise UnfitError(f"less than {FREE_BYTES // 2**30} GiB are free in {folder}")
        older = given.older or before_newest_migration()
    except UnfitError as error:
        sys.exit(f"make containers cannot run here: {error}")
    (folder / "log.txt").write_text("")
    print(f"what the commands say: {folder / 'log.txt'}", flush=True)
    with ExitStack() as stack:
        docker = stack.enter_context(engine(host, folder))
        index = stack.enter_context(stand_ins.torch_index(host, folder))
        report.run("stand-ins", lambda: stand_ins.make_stand_ins(docker, host, folder))
        if given.code_only:
            report.run("code", lambda: stand_ins.put_code(docker, ROOT, NOW, NOW))
        else:
            report.run("build", lambda: stand_ins.build(docker, host, NOW, index))
        before = folder / "older"
        check_out(older, before)
        report.run("older code", lambda: put_older(docker, older, before))
        stand_ins.use(docker, NOW)
        if not report.failed:
            for profile in given.profiles:
                tried = trials.STEPS[profile]
                with project(docker, profile, folder) as opened:
                    trial = trials.Trial(opened, functools.partial(stand_ins.use, docker))
                    for name, step in tried:
                        begins = step in (trials.comes_up, trials.takes_a_quiz)
                        if not begins and not any(word in name for word in given.only):
                            continue
                        held = report.run(f"{profile}: {name}", functools.partial(step, trial))
                        if not held and step is trials.comes_up:
                            break
    if given.forget:
        shutil.rmtree(folder)
    print(markdown_table(["what", "seconds", "found", "ok"], report.rows))
    raise SystemExit(report.failed > 0)


class Report:
    """A row of the table for each step, also of those that failed."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.failed = 0

    def run(self, name: str, step: Callable[[], str | None]) -> bool:
        """Whether it held; whatever went wrong is in the row."""
        began_s = time.monotonic()
        try:
            found, ok = step() or "", True
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            found, ok = " ".join(said.split())[-600:].replace("|", "\\|"), False
            self.failed += 1
        seconds = f"{time.monotonic() - began_s:.1f}"
        self.rows.append([name, seconds, found, "yes" if ok else "NO"])
        print(f"{'ok    ' if ok else 'FAILED'} {seconds:>6} s  {name}: {found}", flush=True)
        return ok


def put_older(docker: Engine, commit: str, source: Path) -> str:
    stand_ins.put_code(docker, source, BEFORE, NOW)
    words = ["log", "-1", "--format=%h of %cs", commit]
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def before_newest_migration() -> str:
    """Raises UnfitError where there is no history to look into."""
    newest = max((ROOT / "migrations" / "versions").glob("[0-9]*.py"))
    words = ["log", "--diff-filter=A", "--format=%H", "--", str(newest)]
    added = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if not added.stdout.split():
        raise UnfitError(f"git does not know when {newest.name} came; name a commit with --from")
    return f"{added.stdout.split()[-1]}~1"


def check_out(commit: str, folder: Path) -> None:
    """The tree of a commit, without its history."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", commit], cwd=ROOT, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)


if __name__ == "__main__":
    main()
