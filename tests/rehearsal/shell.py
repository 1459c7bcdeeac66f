"""One shell in which commands run after each other, as they would in a terminal."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

END = "@@ended"


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    command: str
    status: int
    seconds: float
    output: str


class Shell:
    """A bash process. Output is kept, and written to `log` as it comes."""

    def __init__(self, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        self._log = log.open("w", encoding="utf-8")
        self._bash = subprocess.Popen(
            ["/bin/bash"],
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    def run(self, command: str) -> Ran:
        """Run it to its end; what it starts in the background goes on."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        started_s = time.monotonic()
        self._bash.stdin.write(f"{command}\nprintf '\\n{END} %s\\n' $?\n")
        self._bash.stdin.flush()
        self._log.write(f"$ {command}\n")
        lines = []
        for line in self._bash.stdout:
            if line.startswith(END):
                break
            lines.append(line)
            self._log.write(line)
            self._log.flush()
        else:
            raise RuntimeError(f"the shell ended in {command!r}")
        seconds = time.monotonic() - started_s
        return Ran(command, int(line.split()[1]), seconds, "".join(lines))

    def close(self) -> None:
        """End the shell."""
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        self._bash.wait(timeout=60)
        self._log.close()
