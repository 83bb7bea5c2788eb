"""The engine process's side of one front-end: its requests, from the arena to the dispatcher and back."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from birnn_service.catalog import Encoder, Encoders, width_of
from birnn_service.compute import Compute, Work
from birnn_service.engine.engine import Output
from birnn_service.errors import EngineError, ServiceError
from birnn_service.frontends.arena import Arena, pieces
from birnn_service.frontends.messages import Cancel, Done, Encode, Failed, Message, Withdrawn, from_wire

logger = logging.getLogger(__name__)

# Results are copied in pieces of this size, about a millisecond each; other work runs in between.
PIECE_BYTES = 4 << 20


class EngineSide:
    """Has the requests of one front-end computed; each of them gets exactly one answer."""

    def __init__(
        self, arena: Arena, encoders: Encoders[Encoder], compute: Compute, send: Callable[[Message], None]
    ) -> None:
        """Serve one front-end.

        Args:
            arena: Where its requests are.
            encoders: What they can be for.
            compute: What computes them.
            send: Sends it a message.
        """
        self._arena = arena
        self._encoders = encoders
        self._compute = compute
        self._send = send
        self._tasks: dict[int, asyncio.Task[Done]] = {}

    def begin(self, request: Encode) -> None:
        """Have a request computed.

        Raises:
            ValueError: Its number is taken.
        """
        if request.number in self._tasks:
            raise ValueError(f"request {request.number} came twice")
        task = asyncio.get_running_loop().create_task(self._encode(request))
        self._tasks[request.number] = task
        task.add_done_callback(partial(self._answer, request.number))

    def cancel(self, message: Cancel) -> None:
        """Take a request out of the queue, unless it has been answered meanwhile."""
        task = self._tasks.get(message.number)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """The front-end is gone: withdraw all its requests."""
        for task in self._tasks.values():
            task.cancel()

    async def _encode(self, request: Encode) -> Done:
        encoder, output = self._encoders.instance(request.instance), request.output
        with self._encoders.using(encoder):
            return await self._compute_for(encoder, output, request)

    async def _compute_for(self, encoder: Encoder, output: Output, request: Encode) -> Done:
        batch = self._arena.read_batch(request.start, request.sequences, request.tokens, encoder.manifest.features)
        deadline = from_wire(request.deadline)
        work = Work(encoder, output, batch, request.caller, deadline, request.priority, request.span)
        computed = await self._compute.encode(work)
        rows = request.sequences if output is Output.POOLED else request.tokens
        await self._write(request.start, computed.values, (rows, width_of(encoder, output)))
        return Done(request.number, computed.queue, computed.compute, computed.batches)

    async def _write(self, start: int, values: NDArray[np.float32], shape: tuple[int, int]) -> None:
        """Put a result into its block; never after the request has been cancelled, as the block is another's then."""
        if values.shape != shape:
            raise EngineError(f"the engine gave encodings of shape {values.shape} where {shape} was expected")
        target = self._arena.values(start, *shape)
        if values.nbytes <= PIECE_BYTES:
            target[:] = values
            return
        for piece in pieces(len(values), 4 * shape[1], PIECE_BYTES):
            target[piece] = values[piece]
            await asyncio.sleep(0)

    def _answer(self, number: int, task: "asyncio.Task[Done]") -> None:
        del self._tasks[number]
        if task.cancelled():
            self._send(Withdrawn(number))
        elif (error := task.exception()) is None:
            self._send(task.result())
        elif isinstance(error, ServiceError):
            self._send(Failed(number, error))
        else:
            logger.error("a request of a front-end failed unexpectedly", exc_info=error)
            kind = type(error).__name__
            failure = EngineError(f"the engine process failed unexpectedly ({kind}); its log says more")
            self._send(Failed(number, failure))
