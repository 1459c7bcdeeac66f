"""How crisp pictures are: three numbers of their luma, in numpy alone.

Legend: B pictures, H W sides in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LUMA = np.array([0.299, 0.587, 0.114])
FINE_CYCLES = 0.25
"""Cycles a pixel above which a frequency is fine: half of what pixels can hold."""
GRID_PX = 4
"""Period of the grid that is looked for: the side of a Stage A latent."""
BESIDE = (-4, -3, -2, 2, 3, 4)
"""Frequencies that the grid's is held against, in steps of one cycle a picture."""

Pictures = NDArray[np.uint8]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Crispness:
    """Means over pictures; only ratios between sets of pictures of like content say something."""

    fine_energy: float
    """Power above ``FINE_CYCLES``, of luma in [0, 1]."""
    edge: float
    """99th percentile of the gradient's length."""
    grid: float
    """Power at a period of ``GRID_PX`` over that of the frequencies beside it."""

    def over(self, other: Crispness) -> Crispness:
        """Ratios to another set's."""
        return Crispness(
            self.fine_energy / other.fine_energy, self.edge / other.edge, self.grid / other.grid
        )


def crispness(pictures_BHW3: Pictures) -> Crispness:
    """Of pictures with equal sides that ``GRID_PX`` divides."""
    luma_BHW = pictures_BHW3 / 255 @ LUMA
    power_BHW = np.abs(np.fft.fft2(luma_BHW - luma_BHW.mean((1, 2), keepdims=True))) ** 2
    return Crispness(fine_energy(power_BHW), edge(luma_BHW), grid(power_BHW))


def fine_energy(power_BHW: Floats) -> float:
    """Power of the fine frequencies, the mean over pictures."""
    height, width = power_BHW.shape[1:]
    cycles_HW = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    return float(power_BHW[:, cycles_HW > FINE_CYCLES].sum(1).mean() / (height * width) ** 2)


def edge(luma_BHW: Floats) -> float:
    """How steep the steepest hundredth of each picture begins, the mean over pictures."""
    down_BHW, across_BHW = np.gradient(luma_BHW, axis=(1, 2))
    length_BP = np.hypot(down_BHW, across_BHW).reshape(len(luma_BHW), -1)
    return float(np.percentile(length_BP, 99, axis=1).mean())


def grid(power_BHW: Floats) -> float:
    """1 where the period stands out in nothing; the mean of both directions."""
    power_HW = power_BHW.mean(0)
    return float(np.mean([_peak(power_HW.sum(axis)) for axis in (0, 1)]))


def _peak(power_F: Floats) -> float:
    at = len(power_F) // GRID_PX
    return float(power_F[at] / np.mean([power_F[at + step] for step in BESIDE]))
