"""What each kind of device supports: the one table in which serving differs between them.

The row for CUDA was written without such a device at hand. Padding, static buffers and the order
of work are tested on the CPU. Capture and compilation have not been run, so they are not served
until they have: `CUDA_GRAPHS` is for measuring them, by `Engine(..., support=CUDA_GRAPHS)`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

Forward = Literal["eager", "compiled", "graphs", "compiled-graphs"]


@dataclass(frozen=True)
class DeviceSupport:
    """How the engine works on a device. Rows are the network's: a guided picture has two."""

    forward: Forward
    """How a pass of Stage C is run: as it is, with compiled blocks, or replayed from a graph."""
    sizes: tuple[int, ...]
    """Numbers of rows that a pass may have; fewer rows are padded. Empty: any number."""
    max_rows: int
    """Rows that one running batch may hold at most, whatever the curve says."""
    decode_rows: int
    """Pictures that are decoded together at most."""
    measured: tuple[int, ...]
    """Numbers of rows at which t(n) is measured at the start."""
    asynchronous: bool
    """Whether work is queued on a stream: then timing uses events, and copies pinned memory."""


SUPPORT = {
    "cpu": DeviceSupport(
        forward="eager",
        sizes=(),
        max_rows=16,
        decode_rows=4,
        measured=(1, 2, 4, 8, 16),
        asynchronous=False,
    ),
    "cuda": DeviceSupport(
        forward="eager",
        sizes=(),
        max_rows=16,
        decode_rows=8,
        measured=(1, 2, 4, 8, 16),
        asynchronous=True,
    ),
}

CUDA_GRAPHS = replace(SUPPORT["cuda"], forward="compiled-graphs", sizes=(1, 2, 4, 8, 16))
CPU_COMPILED = replace(SUPPORT["cpu"], forward="compiled", sizes=(1, 2, 4, 8, 16))
"""Needs a C++ compiler where it runs, and rows then differ by rounding: not served."""


def support_of(device: torch.device) -> DeviceSupport:
    """The table's row. Raises ValueError for a device that is not in it."""
    if device.type not in SUPPORT:
        raise ValueError(f"the engine runs on {', '.join(SUPPORT)}, not on {device}")
    return SUPPORT[device.type]


def plain_support(device: torch.device, rows: int) -> DeviceSupport:
    """For one batch of so many rows of the network on any device, passes as they are."""
    return replace(
        SUPPORT["cpu"], max_rows=rows, decode_rows=rows, asynchronous=device.type == "cuda"
    )


def enter_thread(device: torch.device, threads: int) -> None:
    """What each thread of the engine does first: torch keeps both by thread."""
    torch.get_num_threads()  # a thread's first use would take over what another has set since
    torch.set_num_threads(threads)
    if device.type == "cuda":
        torch.cuda.set_device(device)


def padded(rows: int, sizes: tuple[int, ...]) -> int:
    """The least permitted size that holds so many rows; without sizes, the rows themselves."""
    if not sizes:
        return rows
    for size in sorted(sizes):
        if size >= rows:
            return size
    raise ValueError(f"{rows} rows, the largest size is {max(sizes)}")
