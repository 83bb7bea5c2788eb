"""File descriptors: each connection takes one, and a process that has none left can accept no call."""

import asyncio
import errno
import logging
import os
import sys
from contextlib import ExitStack, suppress

from birnn_service.errors import StartupError
from birnn_service.observe.metrics import Metrics
from birnn_service.state import ServingState

if sys.platform != "win32":
    import resource

logger = logging.getLogger(__name__)

# What a server needs at least: its own files and threads' pipes (about 40), connections of probes and scrapes (32), and
# as many callers.
NEEDED = 128
# Seconds between looks, and how many descriptors must be free for calls to be accepted.
LOOK_SECONDS = 1.0
SPARE = 4
EXHAUSTED = (errno.EMFILE, errno.ENFILE)


def raise_limit() -> None:
    """Let this process open as many files as the system allows it; front-ends inherit that.

    Raises:
        StartupError: That is too few to serve with.
    """
    if sys.platform == "win32":  # sockets are no files there, and have no limit of their own
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS reports no hard limit and has one all the same
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft != resource.RLIM_INFINITY and soft < NEEDED:
        raise StartupError(
            f"this process may open {soft} files (ulimit -n), and a server needs at least {NEEDED}, one for each "
            "connection among them; raise the limit"
        )


def are_free(count: int = SPARE) -> bool:
    """Whether this process can open `count` more files now."""
    with ExitStack() as opened:
        try:
            for _ in range(count):
                opened.enter_context(open(os.devnull, "rb"))
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            return False
    return True


class DescriptorWatch:
    """Looks every second whether another connection could be accepted."""

    def __init__(self, metrics: Metrics, state: ServingState) -> None:
        """Count in `metrics` how often descriptors run out, and note in `state` while there is none left."""
        self._metrics = metrics
        self._state = state

    async def run(self) -> None:
        """Watch until cancelled."""
        accepting = True
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if are_free() == accepting:
                continue
            accepting = not accepting
            if accepting:
                logger.info("connections are accepted again")
                self._state.set_obstacle("descriptors", "")
                continue
            self._metrics.descriptors_exhausted.inc()
            self._state.set_obstacle("descriptors", "no file descriptor is left for another connection")
            logger.error(
                "no file descriptor is left, so no connection can be accepted: close connections or raise the "
                "limit (ulimit -n); not ready until then"
            )
