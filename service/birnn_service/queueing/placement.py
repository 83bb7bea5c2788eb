"""Placement: where a batch runs, on worker threads or on the event loop itself."""

import math
from collections.abc import Sequence

from birnn_service.queueing.lane import Lane
from birnn_service.queueing.scheduler import Selection

# Calls in a row, each with no other call under way, after which the server assumes a single sequential caller.
STREAK = 16
# Least time in seconds between a reply and the next call of the same caller. A call that arrives sooner after the loop
# has run a batch was sent while the batch ran, so it came from another caller.
TURNAROUND = 2e-4
# Calls further apart than this, in seconds, do not count: probes of an idle server would gain nothing.
PAUSE = 1.0
# Longest batch that the event loop runs itself, in predicted seconds.
SHORT = 1e-3


class SequentialCaller:
    """Detects a single sequential caller.

    A call is sequential if no other call is under way when it arrives. The event loop accepts no calls while it runs a
    batch, so a call that a second caller sends during the batch is seen only afterwards, when nothing is under way. But
    then it is seen immediately, faster than the first caller could have called again, and that gives it away.
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
        """Start with all slots idle.

        Args:
            lanes: Where batches come from.
            slots: Number of slots of the device.
        """
        self._slots = self.idle = slots
        self._on_cores = _on_cores(lanes)
        self._caller = SequentialCaller()

    def follow(self, lanes: Sequence[Lane], slots: int) -> None:
        """Other lanes are served from now on, on no fewer slots."""
        self.idle += slots - self._slots
        self._slots = slots
        self._on_cores = _on_cores(lanes)

    def arrived(self, others: bool, now: float) -> None:
        """Note that a request arrived, and whether `others` were under way."""
        self._caller.arrived(others, now)

    def runs_inline(self, selections: Sequence[Selection], requests: int) -> bool:
        """Whether the event loop should run a batch itself.

        Args:
            selections: The batches that are due.
            requests: Number of requests under way.
        """
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


def _on_cores(lanes: Sequence[Lane]) -> bool:
    return all(lane.engine.info.parallel_slots for lane in lanes)
