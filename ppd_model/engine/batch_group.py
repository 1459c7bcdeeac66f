"""A running batch and who may join it: room, memory, and what a row more is worth."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from torch import Tensor

from ppd_model.engine.admission import Admission, StepCurve
from ppd_model.engine.faults import Fault, attempt
from ppd_model.engine.step_clock import StepClock
from ppd_model.sampling.devices import DeviceSupport, padded
from ppd_model.sampling.rows import Row
from ppd_model.sampling.running_batch import RunningBatch

STEPS_TO_FORGET_A_FAULT = 200
"""Steps without a fault until a batch that ran out of memory may be as large as before."""


class BatchGroup:
    """A running batch and what decides who joins it."""

    def __init__(self, batch: RunningBatch, support: DeviceSupport) -> None:
        self.batch = batch
        self.admission = Admission()
        self.clock = StepClock(asynchronous=support.asynchronous)
        self.parked: deque[Row] = deque()
        """Set aside for want of memory, where they had come to."""
        self.limit = self._most = support.max_rows
        self._sizes = support.sizes
        self._sound_steps = 0

    @property
    def empty(self) -> bool:
        return not self.batch.rows and not self.parked

    def has_room(self, more: int, curve: StepCurve) -> bool:
        """Whether so many rows of the network fit, and pay, beside those that run."""
        rows = self.batch.network_rows
        if not self.batch.rows:
            return True
        if self.batch.most_network_rows + more > self.limit:
            return False
        now_s, then_s = (curve.at(padded(n, self._sizes)) for n in (rows, rows + more))
        return self.admission.admits(now_s, then_s, rows, more)

    def join(self, row: Row) -> None:
        """The row takes part from the next step on."""
        self.batch.join(row)

    def release(self, row: Row) -> None:
        """The row is in neither the batch nor set aside any more; it keeps where it has come."""
        if row in self.parked:
            self.parked.remove(row)
        else:
            self.batch.leave(row)

    def halve(self) -> None:
        """Set the later half of the rows aside. A single row stays, to be tried once more."""
        kept = (len(self.batch.rows) + 1) // 2
        for row in self.batch.rows[kept:]:
            self.batch.leave(row)
            self.parked.append(row)
        self.limit = max(1, self.batch.most_network_rows)
        self._sound_steps = 0

    def step(
        self, curve: StepCurve, wants_guess: Callable[[Row], bool]
    ) -> dict[Row, Tensor] | Fault:
        """A step of every row, and the clean latents guessed for those that want them."""
        batch = self.batch
        guesses = {row for row in batch.rows if wants_guess(row)}
        self.clock.begin()
        guessed = attempt(lambda: batch.step(guesses), "a denoising step")
        if not isinstance(guessed, Fault):
            if batch.network_rows:  # else all was known
                size = padded(batch.network_rows, self._sizes)
                self.clock.end(lambda seconds: curve.observe(size, seconds))
            self._count_sound_step()
        return guessed

    def step_apart(
        self, curve: StepCurve, wants_guess: Callable[[Row], bool]
    ) -> tuple[dict[Row, Tensor], dict[Row, Fault]]:
        """The same step, each row by itself; rows that cannot make it even so are left out."""
        guessed: dict[Row, Tensor] = {}
        faults: dict[Row, Fault] = {}
        rows = list(self.batch.rows)
        for row in rows:
            self.batch.leave(row)
        for row in rows:
            self.join(row)
            alone = self.step(curve, wants_guess)
            self.batch.leave(row)
            if isinstance(alone, Fault):
                faults[row] = alone
            else:
                guessed |= alone
        for row in rows:
            if row not in faults:
                self.join(row)
        return guessed, faults

    def _count_sound_step(self) -> None:
        """After many, the batch may be as large as before."""
        self._sound_steps += 1
        if self.limit < self._most and self._sound_steps >= STEPS_TO_FORGET_A_FAULT:
            self.limit = self._most
