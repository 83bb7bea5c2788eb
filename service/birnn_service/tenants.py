"""Tenants: callers that have proven a name. What belongs to one of them is kept from the others."""

import threading
from collections.abc import Callable, Iterable

NAMED = "name:"
"""How callers with a name begin; others are addresses, and parts of this server."""
SHADOW = "shadow"
"""The caller that asks candidates what tenants have asked; see `birnn_service.shadow`."""
MOST_LABELS = 100
"""Tenants that metrics tell apart; all others are counted together."""
OTHER = "other"


def tenant_of(caller: str) -> str:
    """The name of a caller; empty for callers without one, who are told apart by their addresses only."""
    return caller[len(NAMED) :] if caller.startswith(NAMED) else ""


def partition_of(caller: str) -> str:
    """What a caller can find of earlier answers and of sequences in flight: what was asked for in the same partition.

    Each tenant has one, and so has the shadow traffic, which holds what all of them ask for. Callers without a name
    have one together.
    """
    return caller if caller.startswith(NAMED) or caller == SHADOW else ""


class TenantLabels:
    """The values of a label of metrics: the first tenants that call, and those with a line in the token file.

    Used by the event loop and by scrapes. A tenant that has a label keeps it.
    """

    def __init__(self, listed: Callable[[], Iterable[str]] = tuple) -> None:
        """Tell apart `listed` tenants first, as far as there is room."""
        self._listed = listed
        self._labels: set[str] = set()
        self._lock = threading.Lock()

    def of(self, tenant: str) -> str:
        """The label of a tenant."""
        if tenant in self._labels or len(self._labels) >= MOST_LABELS:
            return tenant if tenant in self._labels else OTHER
        with self._lock:
            for name in (*self._listed(), tenant):
                if len(self._labels) < MOST_LABELS:
                    self._labels.add(name)
        return tenant if tenant in self._labels else OTHER
