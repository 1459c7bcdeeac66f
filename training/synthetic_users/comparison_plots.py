"""The plots of the experiments with synthetic users, as PNG bytes.

Legend: A rewards, W points of the simplex.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.reports.plots import as_png, grouped_bars

COLOURS = ("#3f6fb5", "#b9b9c2", "#d08a3e", "#6a9a58")
TITLES = {
    "base": "base",
    "diffusion_dpo": "Diffusion-DPO",
    "sft": "SFT",
    "bound": "Diffusion-DPO (one reward)",
}
CORNERS = np.array([[0.5, 3**0.5 / 2], [0.0, 0.0], [1.0, 0.0]])
"""Where the three rewards' corners are drawn: as the triangle of pictures has them."""


def plot_wins(rewards: Sequence[str], won: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Figure 3: PPD's win rates over each method, one group of bars for each reward."""
    methods = [method for method in TITLES if method in won]
    series = {
        TITLES[method]: (colour, [won[method][reward] for reward in rewards])
        for method, colour in zip(methods, COLOURS, strict=False)
    }
    return grouped_bars(series, rewards, "wins of PPD over")


def plot_simplex(
    rewards: Sequence[str], points: Sequence[tuple[float, ...]], mean_WA: NDArray[Any]
) -> bytes:
    """Figure 4: each reward's mean score over the triangle of weights. For three rewards."""
    figure = Figure(figsize=(9, 3.1), layout="constrained")
    for a, axes in enumerate(figure.subplots(1, 3)):
        place_W2 = np.array(points) @ CORNERS
        drawn = axes.scatter(*place_W2.T, c=mean_WA[:, a], s=180, cmap="viridis")
        for corner, name in zip(CORNERS, rewards, strict=True):
            above = 0.08 if corner[1] > 0 else -0.16
            axes.text(corner[0], corner[1] + above, name, ha="center", fontsize=8)
        axes.set_title(f"{rewards[a]} score", fontsize=9)
        axes.set_xlim(-0.2, 1.2)
        axes.set_ylim(-0.25, 1.05)
        axes.set_axis_off()
        figure.colorbar(drawn, ax=axes, shrink=0.7)
    return as_png(figure)


def plot_edges(rewards: Sequence[str], lines: Mapping[str, Sequence[tuple[float, float]]]) -> bytes:
    """Scores against their weight along the edges: "a (towards b)" to (weight, score) points."""
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, reward in zip(figure.subplots(1, len(rewards)), rewards, strict=True):
        for name, line in lines.items():
            if name.startswith(f"{reward} "):
                axes.plot(*zip(*line, strict=True), marker="o", label=name[len(reward) + 1 :])
        axes.set_title(reward, fontsize=9)
        axes.set_xlabel("weight")
        axes.legend(frameon=False, fontsize=8)
    return as_png(figure)
