"""Placement: where a batch runs, on worker threads or on the event loop itself."""

import math
from collections.abc import Sequence

from birnn_service.queueing.lane import Lane
from birnn_service.queueing.scheduler import Selection

# After so many calls in a row that found no other call, there is a single sequential caller.
STREAK = 16
# A reply and the next call of its receiver take longer than so many seconds. A call that arrives sooner after the loop
# has run a batch was sent while the batch ran, so by another caller.
TURNAROUND = 2e-4
# Calls that are further apart than so many seconds, such as probes of an idle server, do not count: they gain nothing.
PAUSE = 1.0
# The event loop runs batches of at most so many predicted seconds.
SHORT = 1e-3


class SequentialCaller:
    """Detects a single sequential caller.

    A call counts as sequential if no other call is under way when it arrives. While the event loop runs a batch, it
    accepts no calls. A call that a second caller sends meanwhile is seen after the batch, when nothing is under way;
    but it is seen at once, and that shows that there is a second caller.
    """

    def __init__(self) -> None:
        self._streak = 0
        self._arrived = self._ran = -math.inf

    def arrived(self, others: bool, now: float) -> None:
        """Note that a call arrived, and whether `others` were under way."""
        in_turn = not others and now - self._ran >= TURNAROUND and now - self._arrived < PAUSE
        self._streak = self._streak + 1 if in_turn else 0
        self._arrived = now

    def ran(self, now: float) -> None:
        """Note that the event loop has just run a batch."""
        self._ran = now

    @property
    def is_alone(self) -> bool:
        """Whether the last calls arrived one after another."""
        return self._streak >= STREAK


class Placement:
    """Decides where batches run, and counts the idle slots.

    For a single sequential caller the event loop runs short batches itself, which saves two thread switches and delays
    no one. All other batches run on the worker threads of their slots.

    Attributes:
        idle: Slots that are idle.
    """

    def __init__(self, lanes: Sequence[Lane], slots: int) -> None:
        """Place batches of `lanes` on so many slots."""
        self._slots = self.idle = slots
        self._on_cores = all(lane.engine.info.parallel_slots for lane in lanes)
        self._caller = SequentialCaller()

    def arrived(self, others: bool, now: float) -> None:
        """Note that a request arrived, and whether `others` were under way."""
        self._caller.arrived(others, now)

    def runs_inline(self, selections: Sequence[Selection], requests: int) -> bool:
        """Whether the event loop should run the selected batch itself, with so many requests under way."""
        if len(selections) != 1 or requests != 1 or self.idle != self._slots:
            return False
        (selection,) = selections
        return (
            self._on_cores
            and self._caller.is_alone
            and selection.lane.cost_on(selection.slots).batch_seconds(selection.rows.length) <= SHORT
        )

    def started(self, slots: int) -> None:
        """A run occupies slots."""
        self.idle -= slots

    def ended(self, slots: int) -> None:
        """A run has freed its slots."""
        self.idle += slots

    def ran_inline(self, now: float) -> None:
        """The event loop has just run a batch."""
        self._caller.ran(now)
