"""Placement: where a batch runs, on worker threads or on the event loop itself."""

import math
from collections.abc import Sequence

from birnn_service.queueing.lane import Lane
from birnn_service.queueing.scheduler import Selection

# Calls in a row, each alone, from which on there is a single sequential caller.
STREAK = 16
# A call that arrives within so many seconds of a batch that the loop ran must have been sent before that batch ended: a
# reply and the same caller's next call take longer on their way.
TURNAROUND = 2e-4
# Calls further apart than so many seconds do not count: probes of an idle server gain nothing.
PAUSE = 1.0
# Most predicted seconds of a batch that the event loop runs itself.
SHORT = 1e-3


class SequentialCaller:
    """Detects a single sequential caller, from when calls arrive and what they find.

    While the event loop runs a batch it takes no other call, so one that arrives meanwhile finds an empty queue when it
    gets its turn. It is recognized by getting its turn at once.
    """

    def __init__(self) -> None:
        self._streak = 0
        self._arrived = self._ran = -math.inf

    def arrived(self, others: bool, now: float) -> None:
        """A call arrived, while there were `others` or not."""
        in_turn = not others and now - self._ran >= TURNAROUND and now - self._arrived < PAUSE
        self._streak = self._streak + 1 if in_turn else 0
        self._arrived = now

    def ran(self, now: float) -> None:
        """The event loop has just run a batch."""
        self._ran = now

    @property
    def is_alone(self) -> bool:
        """Whether the last calls came one after another."""
        return self._streak >= STREAK


class Placement:
    """Decides where batches run, and keeps count of the idle slots.

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
        """A request arrived, while there were `others` or not."""
        self._caller.arrived(others, now)

    def runs_inline(self, selections: Sequence[Selection], requests: int) -> bool:
        """Whether the event loop runs what was selected, while so many requests are under way."""
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
        """A run has left its slots."""
        self.idle += slots

    def ran_inline(self, now: float) -> None:
        """The event loop has just run a batch."""
        self._caller.ran(now)
