"""How many rows pay: admission to the running batch by the measured step-time curve t(n).

n rows give n / t(n) row-steps a second. Where a device is not filled by few rows, a step of more
rows takes little longer and a row more is nearly free; where it is full, t(n) grows as n does and
a row more delays everyone and speeds up no one. Between the two, the worth of m rows more is

    worth(n, m) = ln(throughput(n + m) / throughput(n)) / ln((n + m) / n)

1 for rows that cost nothing, 0 for a full device, negative where throughput falls. It does not
depend on the unit of time. For t(n) = a + b n it is about a / (a + b n), the part of a step that
its rows share.

What is compared are ratios of t(n), and only sizes that run are measured. So a machine that becomes
slower or faster moves the whole curve, and a single step moves the place of its size in it by
little; otherwise sizes that were last seen in a slow moment would look dear for ever. A refusal is
tried again after a while: what is never run is never measured.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

SMOOTHING = 0.1
"""Weight of one new step in how fast the machine is taken to be now."""
OWN_SMOOTHING = 0.02
"""Weight of one new step in the place of its size in the curve, once that has been seen often."""
MEASURED_TIMES = 20
"""How many steps a point of the beginning counts for."""
LARGEST_FACTOR = 2.0
"""A step that took longer or shorter than expected by more counts as if by so much."""
FIRST_PATIENCE = 100
MOST_PATIENCE = 10_000
"""Refusals until one is tried all the same; twice as many after each that was refused again."""
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
        self._seen = Counter(dict.fromkeys(points_s, MEASURED_TIMES))

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
        """A step of so many rows took so long: the machine's speed, and a little that size's place.

        A size that was never seen becomes a point of its own, with all that its first step says.
        """
        if seconds <= 0 or not math.isfinite(seconds):
            return
        most = math.log(LARGEST_FACTOR)
        off = min(max(math.log(seconds / self.at(rows)), -most), most)
        seen = self._seen[rows]
        common = self.smoothing * off if seen else 0.0
        own = max(OWN_SMOOTHING, 1 / (seen + 1)) * (off - common)
        points_s = {n: s * math.exp(common) for n, s in self.points_s.items()}
        points_s[rows] = self.at(rows) * math.exp(common + own)
        self._seen[rows] += 1
        self.points_s = dict(sorted(points_s.items()))  # others may be reading the one before

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
    _refusals: int = 0
    _patience: int = FIRST_PATIENCE

    def admits(self, now_s: float, then_s: float, rows: int, more: int) -> bool:
        """Whether `more` rows pay beside `rows`; into an empty batch anyone may come.

        Now and then they may though they do not, so that it is seen whether that is still so.
        """
        if rows == 0:
            return True
        threshold = WORTH_TO_CONTINUE if self.open else WORTH_TO_BEGIN
        self.open = worth(now_s, then_s, rows, more) >= threshold
        if self.open:
            self._refusals, self._patience = 0, FIRST_PATIENCE
            return True
        self._refusals += 1
        if self._refusals < self._patience:
            return False
        self._refusals, self._patience = 0, min(2 * self._patience, MOST_PATIENCE)
        return True
