"""What waits of one caller in one lane, and which share of the lane each kind of its requests has."""

import math
from dataclasses import dataclass

from birnn_service.queueing.cost import CostModel
from birnn_service.queueing.fairness import Flow
from birnn_service.queueing.waiting import Waiting

# The caller that health probes are, and the weight of its share beside other callers' 1.
HEALTH = "health"
HEALTH_WEIGHT = 0.1
# The weight of a caller's large requests beside 1 of its small ones: small requests pass large ones, whichever caller
# sent either. In simulations of mixed sizes of 4 and 64 callers at 80 percent load, the mean was 1 to 8 percent lower
# than that of a single caller, and up to 23 percent higher where large and small ones shared a flow.
LARGE_WEIGHT = 1 / 8
# The weight of a caller's LOW requests of any size: they are to large ones what large ones are to small ones. So what a
# caller gains by sending some as LOW is at most 1/64 of a share.
LOW_WEIGHT = 1 / 64
SMALL_WEIGHT = 1.0
WEIGHTS = (SMALL_WEIGHT, LARGE_WEIGHT, LOW_WEIGHT)
# The caller that all are together who are too many to be told apart (see `queue.MAX_FLOWS`).
OTHERS = "others"

NOTHING = Waiting()

# A caller, and the weight of its requests of one kind: of at most one batch, larger ones, or LOW ones of any size.
Key = tuple[str, float]


@dataclass(slots=True, eq=False)
class CallerFlow(Flow):
    """What waits of one caller in one lane, in order: its requests of at most one batch, its larger ones, or LOW ones.

    These are three flows, so that a caller's small requests pass its large ones: one address may have many users.

    Attributes:
        key: Whose rows they are, and of which requests.
        tenant_weight: The weight of its caller, which all of its flows have a part of.
        known: Whether the caller is known (see `KnownCallers`).
        rows: The rows.
        tokens: Their tokens in all.
    """

    key: Key = (OTHERS, SMALL_WEIGHT)
    tenant_weight: float = 1.0
    known: bool = False
    rows: Waiting = NOTHING
    tokens: int = 0

    @property
    def rank(self) -> float:
        """The least rank of its rows."""
        return float(self.rows.rank[0])

    def turn(self, until: float) -> tuple[float, bool, float]:
        """Sorts flows by turn; those that start before `until` are equal in that."""
        return max(until, self.start), not self.known, self.rank

    def due(self, latest: float) -> int:
        """How many rows have a rank of at most `latest`."""
        return len(self.rows) if latest == math.inf else int(self.rows.rank.searchsorted(latest, side="right"))

    def ahead_of(self, rows: Waiting) -> int:
        """How many of its rows come before the last of new `rows`."""
        return int(self.rows.keys.searchsorted(rows.keys[-1], side="right"))

    def next_rows(self, count: int) -> Waiting:
        """The `count` most urgent rows."""
        return self.rows if count == len(self.rows) else self.rows.select(slice(count))

    def seconds(self, cost: CostModel, max_rows: int) -> float:
        """Predicted seconds of compute that wait."""
        return cost.total(len(self.rows), self.tokens, max_rows)
