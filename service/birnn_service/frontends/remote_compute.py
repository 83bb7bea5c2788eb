"""Computing in another process: requests go to the engine process, results come back, through the arena."""

import asyncio
import itertools
from dataclasses import dataclass

from birnn_service.catalog import width_of
from birnn_service.compute import Work
from birnn_service.engine.engine import Output
from birnn_service.errors import UnavailableError
from birnn_service.frontends.arena import Arena, Blocks
from birnn_service.frontends.link import Link
from birnn_service.frontends.messages import Cancel, Done, Encode, Failed, Withdrawn, to_wire
from birnn_service.queueing.request import Computed


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    """A request that the engine process has: who waits for it, and its block."""

    future: "asyncio.Future[Computed]"
    start: int
    rows: int
    width: int


class RemoteCompute:
    """Has the engine process compute."""

    def __init__(self, arena: Arena, link: Link) -> None:
        self._arena = arena
        self._blocks = Blocks(arena)
        self._link = link
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._lost = False

    @property
    def memory_used(self) -> int:
        """Bytes of the arena in use."""
        return self._blocks.used

    async def encode(self, work: Work) -> Computed:
        """See `birnn_service.compute.Compute`; also raises OverloadedError where the arena is full."""
        if self._lost:
            raise UnavailableError("the engine process is gone; retry with another server")
        batch, output = work.batch, work.output
        rows = len(batch) if output is Output.POOLED else batch.tokens
        width = width_of(work.encoder, output)
        start = self._blocks.take(batch, rows, width)
        number = next(self._numbers)
        future: asyncio.Future[Computed] = asyncio.get_running_loop().create_future()
        self._pending[number] = _Pending(future, start, rows, width)
        deadline, instance = to_wire(work.deadline), work.encoder.instance
        request = Encode(
            number, len(batch), batch.tokens, start, deadline, work.priority, instance, output, work.span, work.caller
        )
        self._link.send(request)
        try:
            return await future
        except asyncio.CancelledError:
            # The block stays taken until the engine process has let go of it.
            if number in self._pending:
                self._link.send(Cancel(number))
            raise

    def answered(self, answer: Done | Failed | Withdrawn) -> None:
        """Take an answer of the engine process."""
        pending = self._pending.pop(answer.number)
        if not pending.future.done():
            if isinstance(answer, Done):
                # A copy, so that the block is free at once, whatever becomes of the values.
                values = self._arena.values(pending.start, pending.rows, pending.width).copy()
                pending.future.set_result(Computed(values, answer.queue, answer.compute, answer.batches))
            elif isinstance(answer, Failed):
                pending.future.set_exception(answer.error)
            else:
                pending.future.set_exception(UnavailableError("the engine process withdrew the request; retry"))
        self._blocks.give_back(pending.start)

    def lose(self) -> None:
        """The engine process is gone: fail all that waits, and whatever comes."""
        self._lost = True
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(
                    UnavailableError("the engine process ended before it answered; retry with another server")
                )
        self._pending.clear()
