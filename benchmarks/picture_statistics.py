"""Plain statistics of pictures, to judge what words do; the world's own eyes have no part in them.

Legend: H W sides; every function takes uint8 H x W x 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def _luma(image_HW3: Picture) -> NDArray[np.float64]:
    luma_HW: NDArray[np.float64] = image_HW3 @ np.array([0.299, 0.587, 0.114]) / 255
    return luma_HW


def _middle(values_HW: NDArray[np.float64]) -> NDArray[np.float64]:
    height, width = values_HW.shape
    return values_HW[height // 5 : -height // 5, width // 5 : -width // 5]


def _blurred(values_HW: NDArray[np.float64], radius: int) -> NDArray[np.float64]:
    """Mean over squares of 2 radius + 1 pixels, edges repeated."""
    side = 2 * radius + 1
    padded = np.pad(values_HW, radius, mode="edge")
    sums = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    total = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    mean_HW: NDArray[np.float64] = total / side**2
    return mean_HW


def luma(image_HW3: Picture) -> float:
    """Mean luma of the middle."""
    return float(_middle(_luma(image_HW3)).mean())


def contrast(image_HW3: Picture) -> float:
    """Distance from the darkest tenth of the middle to its lightest, fine lines blurred away."""
    low, high = np.quantile(_middle(_blurred(_luma(image_HW3), 2)), (0.1, 0.9))
    return float(high - low)


def chroma(image_HW3: Picture) -> float:
    """Spread of the middle's colours about their mean, so that a tint counts for nothing."""
    middle = np.stack([_middle(image_HW3[..., c] / 255.0) for c in range(3)], axis=-1)
    grey_free = middle - middle.mean(axis=-1, keepdims=True)
    return float(np.sqrt(grey_free.reshape(-1, 3).var(axis=0).sum()))


def red_over_blue(image_HW3: Picture) -> float:
    """Mean red less mean blue of the lighter half."""
    light = _luma(image_HW3) >= np.median(_luma(image_HW3))
    return float((image_HW3[..., 0][light] / 255).mean() - (image_HW3[..., 2][light] / 255).mean())


def grain(image_HW3: Picture) -> float:
    """Local contrast of the ground, beside the middle: the seventh decile of what a blur takes."""
    luma_HW = _luma(image_HW3)
    blurred_HW = _blurred(luma_HW, 1)
    fine_HW = np.abs(luma_HW - blurred_HW) / (blurred_HW + 0.1)
    sides = np.concatenate([fine_HW[8:-8, 8:40], fine_HW[8:-8, -40:-8]], axis=1)
    return float(np.quantile(sides, 0.7))


def filled(image_HW3: Picture) -> float:
    """Share of the picture whose colour, less its grey, is not that of its row's two ends."""
    colour = image_HW3 / 255.0
    colour = colour - colour.mean(axis=-1, keepdims=True)
    ends = np.median(np.concatenate([colour[:, 4:18], colour[:, -18:-4]], axis=1), axis=1)
    away_HW = _blurred(np.abs(colour - ends[:, None]).sum(axis=-1), 1)
    most = np.quantile(away_HW[44:96, 44:84], 0.95)
    return float((away_HW[16:-8, 16:-16] > 0.4 * most).mean())


def dark_lines(image_HW3: Picture) -> float:
    """Share of the middle that is much darker than its surroundings."""
    luma_HW = _luma(image_HW3)
    return float(_middle(((_blurred(luma_HW, 4) - luma_HW) > 0.1).astype(float)).mean())


def corner_shade(image_HW3: Picture) -> float:
    """How much darker the corners are than the middles of the upper and lower edges."""
    luma_HW = _luma(image_HW3)
    side = luma_HW.shape[0] // 9
    half = luma_HW.shape[1] // 2
    shade = []
    for rows in (slice(None, side), slice(-side, None)):
        edge = luma_HW[rows, half - 2 * side : half + 2 * side].mean()
        corners = (luma_HW[rows, :side].mean() + luma_HW[rows, -side:].mean()) / 2
        shade.append(np.log((edge + 0.02) / (corners + 0.02)))
    return float(np.mean(shade))


STATISTICS: Mapping[str, Callable[[Picture], float]] = {
    "brightness": luma,
    "contrast": contrast,
    "saturation": chroma,
    "warmth": red_over_blue,
    "detail": grain,
    "size": filled,
    "outline": dark_lines,
    "vignette": corner_shade,
}
