"""A clock that tests put forward, so that no limit has to be short and nothing races with one."""

import asyncio
from typing import cast

import uvloop

# How long a state may take to come about. It bounds a test that fails; none is to depend on the machine's speed.
PATIENCE_SECONDS = 60.0


class ForwardLoop(uvloop.Loop):  # type: ignore[misc]
    """The event loop of the server, whose clock can be put forward.

    Code that compares times sees it. Timers do not: each waits as long as it was told to.
    """

    ahead = 0.0

    def time(self) -> float:
        """Seconds, with those that were skipped."""
        return float(super().time()) + self.ahead


def forward(seconds: float) -> None:
    """Skip some seconds."""
    cast(ForwardLoop, asyncio.get_running_loop()).ahead += seconds
