"""Looks measured from pixels.

Sixteen plain statistics of a picture (``measure``) are read as the eight looks by one linear map
per content (``Standardizer``), fitted by ridge regression on painted pictures whose looks are
known. The map removes what the statistics share: ink around shapes also darkens a picture, a
night has fewer lights than a desert. Looks come out in standard deviations within the content, so
they compare pictures of one content only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.world.scene import CONTENTS, LOOKS, SIDE_PX

STATISTICS = (
    *LOOKS,
    "mean_luma",
    "fine_lines",
    "wide_lines",
    "marks_mean",
    "middle_chroma",
    "inner_chroma",
    "dark_share",
    "edge_energy",
)
RIDGE = 0.02
STATISTIC_LIMIT_SD = 4.0
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def measure(image_HW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The raw statistics of a picture in the order of ``STATISTICS``, float32.

    Raises ValueError unless the picture is 128 x 128 x 3 uint8.
    """
    if image_HW3.shape != (SIDE_PX, SIDE_PX, 3) or image_HW3.dtype != np.uint8:
        raise ValueError(
            f"picture of {image_HW3.shape} {image_HW3.dtype}: expected 128 x 128 x 3 uint8"
        )
    rgb: NDArray[np.float32] = (image_HW3 / np.float32(255)).astype(np.float32)
    luma_HW: NDArray[np.float32] = rgb @ _LUMA
    closed_HW = ndimage.grey_closing(luma_HW, size=(9, 9))
    lines_HW = ((closed_HW - luma_HW) / (closed_HW + 0.1))[16:-8, 16:-16]
    opened_HW = ndimage.grey_opening(luma_HW, size=(5, 5))
    marks_HW = (np.maximum(luma_HW - opened_HW, 0) / (1.1 - opened_HW))[_OUTSIDE]
    chroma_HW = rgb.max(axis=2) - rgb.min(axis=2)
    values = (
        np.median(luma_HW[_MIDDLE]),
        _contrast(closed_HW),
        _saturation(rgb),
        _warmth(rgb, luma_HW),
        np.quantile(marks_HW, 0.9),
        _size(rgb),
        (lines_HW > 0.4).mean(),
        _vignette(luma_HW),
        luma_HW[_MIDDLE].mean(),
        (lines_HW > 0.25).mean(),
        lines_HW.mean(),
        marks_HW.mean(),
        np.log(chroma_HW[_MIDDLE].mean() + 0.02),
        np.log(chroma_HW[56:80, 56:72].mean() + 0.02),
        np.log((luma_HW[_MIDDLE] < 0.6 * np.median(luma_HW[_MIDDLE])).mean() + 0.01),
        np.log(np.abs(np.diff(luma_HW, axis=1))[24:104, 24:104].mean() + 0.005),
    )
    return np.array(values, dtype=np.float32)


def measure_all(images_NHW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Raw statistics of many pictures, N x 16."""
    return np.stack([measure(image) for image in images_NHW3])


def _contrast(closed_HW: NDArray[np.float32]) -> float:
    """Distance between the lights and the darks of the middle, thin lines removed."""
    plain_HW = ndimage.uniform_filter(closed_HW[::2, ::2], size=5)
    low, high = np.quantile(plain_HW[_MIDDLE[::2, ::2]], (0.1, 0.9))
    return float(np.log(high - low + 0.03))


def _saturation(rgb: NDArray[np.float32]) -> float:
    """Spread of the colours around their mean: a tint is not colourfulness."""
    middle_N3 = rgb[_MIDDLE]
    red_green_N = middle_N3[:, 0] - middle_N3[:, 1]
    yellow_blue_N = (middle_N3[:, 0] + middle_N3[:, 1]) / 2 - middle_N3[:, 2]
    return float(np.log(np.sqrt(red_green_N.var() + yellow_blue_N.var()) + 0.02))


def _warmth(rgb: NDArray[np.float32], luma_HW: NDArray[np.float32]) -> float:
    """Red against blue in the lights, where the tint shows and the shapes' own colours do not."""
    lights = luma_HW >= np.quantile(luma_HW[_OUTSIDE], 0.6)
    red, _, blue = rgb[lights & _OUTSIDE].mean(axis=0)
    return float(np.log((red + 0.02) / (blue + 0.02)))


def _size(rgb: NDArray[np.float32]) -> float:
    """Share of the picture that differs from its own row's edges: settings lie in wide bands."""
    edges = np.concatenate([rgb[:, 3:15], rgb[:, -15:-3]], axis=1)
    row_colour = ndimage.uniform_filter1d(np.median(edges, axis=1, keepdims=True), 5, axis=0)
    chroma = rgb - rgb.mean(axis=2, keepdims=True)
    row_chroma = row_colour - row_colour.mean(axis=2, keepdims=True)
    difference_HW = ndimage.uniform_filter(np.abs(chroma - row_chroma).sum(axis=2), 3)
    threshold = 0.4 * np.quantile(difference_HW[48:90, 48:80], 0.8) + 0.01
    return float(np.log((difference_HW > threshold)[16:-4, 16:-16].mean() + 0.02))


def _vignette(luma_HW: NDArray[np.float32]) -> float:
    """How much darker the corners are than the middle of the edges."""
    k = 14
    corners = [luma_HW[:k, :k], luma_HW[:k, -k:], luma_HW[-k:, :k], luma_HW[-k:, -k:]]
    half = SIDE_PX // 2
    inner = [luma_HW[:k, half - 24 : half + 24], luma_HW[-k:, half - 24 : half + 24]]
    top = np.log((inner[0].mean() + 0.02) / (np.mean(corners[:2]) + 0.02))
    bottom = np.log((inner[1].mean() + 0.02) / (np.mean(corners[2:]) + 0.02))
    return float(top + bottom)


def _distance_px() -> NDArray[np.float32]:
    side = np.arange(SIDE_PX, dtype=np.float32) + 0.5 - SIDE_PX / 2
    distance: NDArray[np.float32] = np.sqrt(side[:, None] ** 2 + side[None, :] ** 2)
    return distance


_MIDDLE = _distance_px() < 42
_OUTSIDE = (_distance_px() > 46) & (_distance_px() < 68)


@dataclass(frozen=True)
class Standardizer:
    """Reads the looks of a picture of known content from its statistics.

    ``mean`` and ``std`` are the statistics' own within each content (48 x 16), ``weight`` the
    linear map (48 x 16 x 8).
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    weight: NDArray[np.float32]

    @classmethod
    def fit(
        cls,
        raw_NS: NDArray[np.float32],
        content_N: NDArray[np.int64],
        looks_NL: NDArray[np.float32],
    ) -> Standardizer:
        """From painted pictures and the looks they were painted with.

        Raises ValueError for a content with fewer pictures than twice the statistics.
        """
        needed = 2 * len(STATISTICS)
        mean = np.zeros((CONTENTS, len(STATISTICS)), dtype=np.float32)
        std = np.ones_like(mean)
        weight = np.zeros((CONTENTS, len(STATISTICS), len(LOOKS)), dtype=np.float32)
        for content in range(CONTENTS):
            of_content = content_N == content
            raw = raw_NS[of_content]
            if len(raw) < needed:
                raise ValueError(f"content {content} has {len(raw)} pictures: expected {needed}")
            mean[content], std[content] = raw.mean(axis=0), raw.std(axis=0) + 1e-6
            scaled = _scaled(raw, mean[content], std[content])
            looks = looks_NL[of_content] - looks_NL[of_content].mean(axis=0)
            gram = scaled.T @ scaled / len(raw) + RIDGE * np.eye(len(STATISTICS))
            solved = np.linalg.solve(gram, scaled.T @ looks / len(raw))
            weight[content] = solved / (scaled @ solved).std(axis=0)
        return cls(mean, std, weight)

    def apply(
        self, raw_NS: NDArray[np.float32], content_N: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Looks in standard deviations from their content's mean, N x 8."""
        scaled = _scaled(raw_NS, self.mean[content_N], self.std[content_N])
        looks: NDArray[np.float32] = np.einsum("ns,nsl->nl", scaled, self.weight[content_N])
        return looks.astype(np.float32)

    def looks(
        self, images_NHW3: NDArray[np.uint8], content_N: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Looks of pictures of these contents, N x 8, as `apply`."""
        return self.apply(measure_all(images_NHW3), content_N)

    def save(self, path: Path) -> None:
        arrays = {name: getattr(self, name).round(6).tolist() for name in ("mean", "std", "weight")}
        path.write_text(json.dumps({"looks": LOOKS, "statistics": STATISTICS, **arrays}))

    @classmethod
    def load(cls, path: Path) -> Standardizer:
        """Read what ``save`` wrote. Raises ValueError for other looks or statistics."""
        body = json.loads(path.read_text())
        if (tuple(body["looks"]), tuple(body["statistics"])) != (LOOKS, STATISTICS):
            raise ValueError(
                f"{path} reads {body['looks']} from {body['statistics']}: "
                f"expected {list(LOOKS)} from {list(STATISTICS)}"
            )
        return cls(*(np.array(body[name], np.float32) for name in ("mean", "std", "weight")))


def _scaled(
    raw: NDArray[np.float32], mean: NDArray[np.float32], std: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Statistics in standard deviations; a wild one counts as four, no more."""
    scaled: NDArray[np.float32] = np.clip(
        (raw - mean) / std, -STATISTIC_LIMIT_SD, STATISTIC_LIMIT_SD
    )
    return scaled
