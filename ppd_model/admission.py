"""How many rows pay: admission to the running batch by the measured step-time curve t(n).

n rows give n / t(n) row-steps a second. Where a device is not filled by few rows, a step of more
rows takes little longer and a row more is nearly free; where it is full, t(n) grows as n does and
a row more delays everyone and speeds up no one. Between the two, the worth of m rows more is

    worth(n, m) = ln(throughput(n + m) / throughput(n)) / ln((n + m) / n)

1 for rows that cost nothing, 0 for a full device, negative where throughput falls. It does not
depend on the unit of time. For t(n) = a + b n it is about a / (a + b n), the part of a step that
its rows share.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

SMOOTHING = 0.1
"""Weight of one new step in the exponential average of t(n)."""
WORTH_TO_CONTINUE = 0.05
WORTH_TO_BEGIN = 0.1


class StepCurve:
    """t(n) in seconds: measured points, straight lines between them, their last slope beyond.

    With one point only, time is taken to grow as the rows do.
    """

    def __init__(self, points_s: Mapping[int, float], smoothing: float = SMOOTHING) -> None:
        if not points_s or any(n < 1 or s <= 0 for n, s in points_s.items()):
            raise ValueError(f"expected positive rows and seconds, got {dict(points_s)}")
        self.points_s = dict(sorted(points_s.items()))
        self.smoothing = smoothing

    def at(self, rows: int) -> float:
        """Seconds of one step of so many rows, at least 1."""
        sizes = list(self.points_s)
        if rows in self.points_s:
            return self.points_s[rows]
        if len(sizes) == 1:
            return self.points_s[sizes[0]] * rows / sizes[0]
        if rows < sizes[0]:
            return self.points_s[sizes[0]]
        right = min(bisect_left(sizes, rows), len(sizes) - 1)
        low, high = sizes[right - 1], sizes[right]
        low_s, high_s = self.points_s[low], self.points_s[high]
        slope_s = (high_s - low_s) / (high - low)
        if rows > high:
            return high_s + max(slope_s, 0.0) * (rows - high)
        return low_s + slope_s * (rows - low)

    def observe(self, rows: int, seconds: float) -> None:
        """A step of so many rows took so long: it enters that point's average.

        A size that was never seen becomes a point of its own.
        """
        if seconds <= 0 or not math.isfinite(seconds):
            return
        before_s = self.points_s.get(rows)
        if before_s is not None:
            self.points_s[rows] = before_s + self.smoothing * (seconds - before_s)
        else:  # another dict, since other threads may be reading this one
            self.points_s = dict(sorted({**self.points_s, rows: seconds}.items()))

    def scaled(self, factor: float) -> StepCurve:
        """The curve of a batch whose rows cost `factor` times as much."""
        return StepCurve({n: s * factor for n, s in self.points_s.items()}, self.smoothing)


def worth(now_s: float, then_s: float, rows: int, more: int) -> float:
    """What `more` rows are worth beside `rows`, whose steps take `now_s`, and together `then_s`."""
    grown = (rows + more) / rows
    return math.log(grown * now_s / then_s) / math.log(grown)


@dataclass
class Admission:
    """Whether rows may join, with hysteresis: beginning again asks for more than going on."""

    open: bool = True

    def admits(self, now_s: float, then_s: float, rows: int, more: int) -> bool:
        """Whether `more` rows pay beside `rows`; into an empty batch anyone may come."""
        if rows == 0:
            return True
        threshold = WORTH_TO_CONTINUE if self.open else WORTH_TO_BEGIN
        self.open = worth(now_s, then_s, rows, more) >= threshold
        return self.open
