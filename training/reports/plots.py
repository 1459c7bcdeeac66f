"""What plots share: their colours, and a figure as a file's bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure

INK, OURS, OTHER = "#2b2b33", "#3f6fb5", "#b9b9c2"


def error_bar(estimate: Mapping[str, float]) -> list[list[float]]:
    """How far an estimate's interval reaches below and above its mean, as `errorbar` wants it."""
    mean = estimate["mean"]
    return [[max(mean - estimate["low"], 0)], [max(estimate["high"] - mean, 0)]]


def as_png(figure: Figure) -> bytes:
    """A figure as PNG bytes; no display is needed."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.dpi": 110}):
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
