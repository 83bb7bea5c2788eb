"""Orders of operators that arrive at a front-end: the engine process carries them out."""

import asyncio
import itertools

from birnn_service.errors import UnavailableError
from birnn_service.frontends.link import Link
from birnn_service.frontends.messages import Carried, Order


class RemoteOrders:
    """Has the engine process load and unload; see `birnn_service.repository.orders.Orders`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[None]] = {}

    async def load(self, model: str) -> None:
        """See `Orders.load`."""
        await self._order("load", model)

    async def unload(self, model: str) -> None:
        """See `Orders.unload`."""
        await self._order("unload", model)

    def carried(self, answer: Carried) -> None:
        """Take an answer of the engine process."""
        future = self._pending.pop(answer.number, None)
        if future is None or future.done():
            return
        if answer.error is None:
            future.set_result(None)
        else:
            future.set_exception(answer.error)

    def lose(self) -> None:
        """The engine process is gone: fail all that waits."""
        for future in self._pending.values():
            if not future.done():
                future.set_exception(UnavailableError("the engine process is gone; ask another server"))
        self._pending.clear()

    async def _order(self, action: str, model: str) -> None:
        number = next(self._numbers)
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        self._link.send(Order(number, action, model))
        try:
            await future
        finally:
            self._pending.pop(number, None)
