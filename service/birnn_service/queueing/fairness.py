"""Fair service: how far each flow that shares a device is ahead of the others.

Start-time fair queueing (Goyal, Vin and Cheng, "Start-time fair queuing: a scheduling algorithm for integrated services
packet switching networks", SIGCOMM 1996). Each flow has a start tag, in seconds of virtual time. Service moves a flow's
tag forward by the seconds it took, divided by the flow's weight. Virtual time follows the least tag of the flows that
wait. A flow that begins to wait joins at the present virtual time, so idling earns no credit. It never joins before its
own tag, so leaving and coming back clears no debt.

Serving the least tag first gives every flow its share to within one piece of work. But it also delays a flow that sent
a little more than the others just now, by chance. So flows whose lead over virtual time is within a burst are equal,
and something else decides between them.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Flow:
    """One party to the sharing.

    Attributes:
        weight: Its share, relative to others'.
        start: Start tag of its next piece of work, in seconds of virtual time.
    """

    weight: float = 1.0
    start: float = 0.0

    def charge(self, seconds: float) -> None:
        """Charge it for `seconds` of a slot."""
        self.start += seconds / self.weight

    def served_before(self, tag: float, waiting: float) -> float:
        """Seconds that it is served before another flow's tag is `tag`, where `waiting` seconds of its work wait."""
        return min(waiting, max(0.0, tag - self.start) * self.weight)


@dataclass(slots=True, eq=False)
class VirtualTime:
    """The virtual time of flows that share something."""

    now: float = 0.0

    def begin(self, flow: Flow) -> None:
        """A flow that was idle begins to wait."""
        flow.start = max(flow.start, self.now)

    def follow(self, flows: Iterable[Flow]) -> None:
        """Advance to the least tag of all flows that wait, of which there must be some."""
        self.now = max(self.now, min(flow.start for flow in flows))
