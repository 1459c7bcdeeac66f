"""Where a part's weights are while it works, where they rest, and in what precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ppd_model.files.safetensor_files import named_dtype

OWN_DTYPES = ("float32", "float64")
"""What a preset that is not published may run in, by name."""


def own_dtype(preset: str, name: str | None) -> torch.dtype:
    """The dtype of that name for a preset that is not published. Raises ValueError for others."""
    if name is None:
        return torch.float32
    return named_dtype(name, OWN_DTYPES, preset)


@contextmanager
def placed(module: nn.Module, device: torch.device, *, offload: bool) -> Iterator[None]:
    """Within it the module is on ``device``; afterwards, with ``offload``, in main memory again.

    Without ``offload`` nothing moves: the module is on its device for good.
    """
    if not offload:
        yield
        return
    module.to(device)
    try:
        yield
    finally:
        module.to("cpu")
