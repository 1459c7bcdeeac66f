"""The commands of a page: its shell blocks, line by line, as a reader would paste them."""

from __future__ import annotations

import re
from pathlib import Path

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""Blocks marked otherwise, such as ```sh download, are not run."""


def commands(page: Path) -> list[str]:
    """Each command with its continuation lines; comments and empty lines are left out."""
    found = []
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        whole = ""
        for line in block.splitlines():
            whole += line + "\n"
            if line.endswith("\\"):
                continue
            if whole.strip() and not whole.lstrip().startswith("#"):
                found.append(whole.rstrip("\n"))
            whole = ""
    return found
