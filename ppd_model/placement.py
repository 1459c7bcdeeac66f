"""Where a part's weights are while it works, and where they rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


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
