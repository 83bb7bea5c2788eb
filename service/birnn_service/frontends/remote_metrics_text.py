"""/metrics at a front-end: the engine process has what all processes have counted."""

import asyncio
import itertools

from birnn_service.errors import EngineError, UnavailableError
from birnn_service.frontends.link import Link
from birnn_service.frontends.messages import Scrape, Scraped


class RemoteMetricsText:
    """Has the engine process collect the metrics; see `birnn_service.observe.metrics_text.MetricsText`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[bytes]] = {}

    async def packed(self) -> bytes:
        """See `MetricsText.packed`."""
        number = next(self._numbers)
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        self._link.send(Scrape(number))
        try:
            packed: bytes = await future
        finally:
            self._pending.pop(number, None)
        if not packed:
            raise EngineError("the engine process could not collect the metrics; its log says more")
        return packed

    def scraped(self, answer: Scraped) -> None:
        """Take an answer of the engine process."""
        future = self._pending.pop(answer.number, None)
        if future is not None and not future.done():
            future.set_result(answer.packed)

    def lose(self) -> None:
        """The engine process is gone: fail all that waits."""
        for future in self._pending.values():
            if not future.done():
                future.set_exception(UnavailableError("the engine process is gone; ask another server"))
        self._pending.clear()
