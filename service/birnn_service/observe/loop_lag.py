"""How late the event loop is: what keeps it busy keeps every call of the process waiting."""

import asyncio

from birnn_service.observe.histogram import Series

# Seconds between looks: 10 a second take less than a thousandth of a core.
LOOK_SECONDS = 0.1


class LoopLag:
    """Asks the loop again and again to wake it, and notes how late it does."""

    def __init__(self, seconds: Series) -> None:
        """Note into `seconds`."""
        self._seconds = seconds

    async def run(self) -> None:
        """Watch until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + LOOK_SECONDS
            await asyncio.sleep(LOOK_SECONDS)
            self._seconds.observe(max(0.0, clock() - due))
