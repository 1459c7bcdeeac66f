"""What plots share: their colours, and a figure as a file's bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

INK, OURS, OTHER = "#2b2b33", "#3f6fb5", "#b9b9c2"


def error_bars(estimates: Sequence[Mapping[str, float]]) -> list[list[float]]:
    """How far intervals reach below and above their means, as `errorbar` wants it."""
    below = [max(each["mean"] - each["low"], 0) for each in estimates]
    return [below, [max(each["high"] - each["mean"], 0) for each in estimates]]


def grouped_bars(
    series: Mapping[str, tuple[str | Sequence[str], Sequence[Mapping[str, float] | None]]],
    places: Sequence[str],
    ylabel: str,
) -> bytes:
    """Shares with their intervals at each place, side by side: NAME to (colour, estimates).

    None leaves its place empty.
    """
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(series)
    for row, (name, (colour, values)) in enumerate(series.items()):
        offset = (row - (len(series) - 1) / 2) * width
        x = [place + offset for place, value in enumerate(values) if value is not None]
        drawn = [value for value in values if value is not None]
        means = [value["mean"] for value in drawn]
        axes.bar(x, means, 0.92 * width, color=colour, label=name)
        axes.errorbar(x, means, error_bars(drawn), fmt="none", ecolor="black", capsize=3)
    axes.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(places)), places)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel(ylabel)
    if len(series) > 1:
        figure.legend(frameon=False, ncols=len(series), fontsize=8, loc="outside lower center")
    return as_png(figure)


def as_png(figure: Figure) -> bytes:
    """A figure as PNG bytes; no display is needed."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"savefig.dpi": 110}):
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
