"""The way of every call, whatever its protocol and transport.

A call is admitted before its request is read. Then it is parsed, brought to the encoder that it is for, answered, and
counted. What goes wrong on the way comes out as a ServiceError.
"""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from types import CoroutineType
from typing import Any

from birnn_service.access import Access
from birnn_service.call import Arrived, Call, Exchange, Feed, Incoming, Method, Stream
from birnn_service.call_limit import WATCHES_SHARE, CallLimit
from birnn_service.catalog import Encoder, Encoders, address_of
from birnn_service.conversation import Conversation
from birnn_service.errors import (
    Code,
    DrainingError,
    ForbiddenError,
    InvalidRequestError,
    Reason,
    ServiceError,
    UnexpectedError,
)
from birnn_service.memory_budget import REQUEST_COST, MemoryBudget
from birnn_service.observe.call_observer import CallObserver
from birnn_service.observe.logs import FIELDS, ids_of
from birnn_service.observe.metrics import UNKNOWN, Metrics
from birnn_service.observe.traceparent import sampled_trace
from birnn_service.settings import Settings
from birnn_service.state import Address, ServingState
from birnn_service.statistics import Statistics
from birnn_service.token_file import Rights

logger = logging.getLogger(__name__)

# Memory of a call, beside what its request and its reply take.
CALL_BYTES = 32 << 10


class Endpoint:
    """Answers the calls of all transports of a process."""

    def __init__(
        self,
        encoders: Encoders[Encoder],
        state: ServingState,
        settings: Settings,
        metrics: Metrics,
        statistics: Statistics,
        access: Access,
        observer: CallObserver | None = None,
    ) -> None:
        """Answer calls to `encoders` within the limits of the settings, as long as state and access allow it.

        An `observer` traces and logs a share of them.
        """
        self._access = access
        self._observer = observer
        self._encoders = encoders
        self._state = state
        self._metrics = metrics
        self._statistics = statistics
        self._calls = CallLimit(settings.max_calls)
        self._watches = CallLimit(math.ceil(WATCHES_SHARE * settings.max_calls), "watches of its health")
        self._budget = MemoryBudget(settings.call_memory_bytes)
        self._window = settings.stream_window
        self._conversations: set[Conversation] = set()
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        metrics.calls_in_flight.read_by(self._in_flight)
        metrics.calls_limit.read_one(lambda: settings.max_calls, metrics.process)
        metrics.call_memory_bytes.read_one(lambda: self._budget.held, metrics.process)
        metrics.call_memory_limit_bytes.read_one(lambda: self._budget.size, metrics.process)

    @property
    def under_way(self) -> int:
        """Number of calls to encoders that have been accepted, and whose callers do not have the whole answer yet."""
        return self._under_way

    async def drain(self) -> None:
        """Read no further requests of streams, and wait until the callers of all encoders have their answers."""
        for conversation in self._conversations:
            conversation.stop()
        await self._idle.wait()

    def count_refused(self, calls: int, reason: Reason) -> None:
        """Count calls that a transport has refused for want of room, before it was known whose and of which method."""
        self._metrics.requests.labels(*UNKNOWN, "", Code.RESOURCE_EXHAUSTED.name).inc(calls)
        self._metrics.refused.labels(*UNKNOWN, reason).inc(calls)

    def fail(self, reason: str) -> None:
        """A transport cannot take calls any more."""
        self._state.set_obstacle("transport", reason)

    async def answer(self, method: Method, incoming: Incoming) -> Any:
        """Answer a call, in what its transport sends.

        Raises:
            ServiceError: It failed; see `birnn_service.errors`.
        """
        with self._call(method.name, incoming, method.right) as call:
            if method.encoder is not None:
                return await self._encode(method, incoming, call)
            try:
                message = await incoming.read(call.memory.take)
                if call.notes is not None:
                    call.notes.received = time.perf_counter()
                return await method.answer(await _parsed(method, message), call)
            finally:
                call.memory.close()

    async def feed(self, feed: Feed, incoming: Incoming) -> AsyncIterator[bytes]:
        """Answer a call with replies until its caller goes or the server closes.

        Raises:
            ServiceError: It failed; see `birnn_service.errors`.
        """
        with self._call(feed.name, incoming, feed.right, timed=False) as call:
            self._hold(incoming, call, self._watches)
            async for reply in feed.replies(feed.parse(await incoming.read(call.memory.take))):
                yield reply

    async def converse(self, exchange: Exchange, stream: Stream) -> None:
        """Answer the requests of a stream.

        Raises:
            ServiceError: The stream as a whole failed; requests that were not answered may be sent again.
        """
        with self._call(exchange.name, stream, exchange.method.right, timed=False) as call:
            self._check_open()
            self._hold(stream, call, self._calls)
            call.memory.take(CALL_BYTES)
            conversation = Conversation(exchange, stream, self.answer, self._window, self._budget)
            self._conversations.add(conversation)
            try:
                complete = await conversation.run()
            finally:
                self._conversations.discard(conversation)
            if not complete:
                self._check_open()

    @contextmanager
    def _call(self, method: str, incoming: Arrived, right: Rights | None, *, timed: bool = True) -> Iterator[Call]:
        """A call, counted and timed whatever becomes of it; raises nothing but ServiceErrors.

        A caller that may not call is refused here, before anything is read or held.

        Calls that last as long as their callers like are not timed, and counted only where they fail: what counts of a
        stream is its requests.
        """
        call = Call(incoming.caller, incoming.deadline, self._budget.open(incoming.caller))
        code, failure = Code.OK, None
        # Calls that need no right are those of probes.
        observer = self._observer if timed and right is not None else None
        try:
            if (name := self._access.caller(incoming, right)) != call.caller:
                incoming.caller = call.caller = name
                call.memory = self._budget.open(name)
            if observer is not None:
                call.notes = observer.begin(incoming)
            yield call
        except ServiceError as error:
            code, failure = error.code, error
            if isinstance(error, ForbiddenError):
                call.caller = error.caller or call.caller
            if error.reason:
                self._metrics.refused.labels(*_address(call), error.reason).inc()
                self._metrics.tenants.count_refusal(call.caller, error)
            if logger.isEnabledFor(logging.DEBUG):
                # What is said of an invalid request may quote it.
                reason = error.code.name if isinstance(error, InvalidRequestError) else error.message
                logger.debug("%s of %s failed: %s", method, call.caller, reason, extra=_extra(incoming, call))
            raise
        except Exception as error:
            code = Code.INTERNAL
            logger.error("%s failed unexpectedly", method, exc_info=error, extra=_extra(incoming, call))
            self._metrics.unexpected_errors.labels(*_address(call), method).inc()
            failure = UnexpectedError(f"the server failed unexpectedly ({type(error).__name__}); its log says more")
            raise failure from error
        except BaseException:
            code = Code.CANCELLED
            raise
        finally:
            if observer is not None:
                observer.end(method, incoming, call, code, failure)
            if timed:
                if call.notes is not None and call.notes.ids is not None:
                    trace = call.notes.ids.trace_text
                else:
                    trace = sampled_trace(header) if (header := incoming.traceparent) else ""
                (call.metrics or self._metrics.unknown).count_call(method, code.name, call.seconds, trace)
            elif code not in (Code.OK, Code.CANCELLED):
                self._metrics.requests.labels(*_address(call), method, code.name).inc()
            if timed or code not in (Code.OK, Code.CANCELLED):
                sequences = call.spent.sequences if call.spent and code is Code.OK else 0
                self._metrics.tenants.count_call(call.caller, code.name, sequences)
            self._statistics.count_call(call, well=code is Code.OK)

    async def _encode(self, method: Method, incoming: Incoming, call: Call) -> Any:
        """Answer a call to an encoder, which takes memory and time, if there is room."""
        self._check_open()
        self._hold(incoming, call, self._calls, awaited=True)
        message = await incoming.read(call.memory.take)
        if call.notes is not None:
            call.notes.received = time.perf_counter()
        call.memory.take(CALL_BYTES + REQUEST_COST * len(message))
        request = await _parsed(method, message)
        # Nothing needs the bytes any more.
        del message
        assert method.encoder is not None
        call.encoder = self._encoders.find(*method.encoder(request))
        # Held until the reply is made: sending it needs nothing of the encoder.
        self._encoders.hold(call.encoder)
        metrics = call.metrics = self._metrics.of(address_of(call.encoder))
        metrics.calls += 1
        try:
            return await method.answer(request, call)
        finally:
            metrics.calls -= 1
            self._encoders.release(call.encoder)

    def _in_flight(self) -> dict[tuple[str, ...], float]:
        """Calls that hold a place, by process, encoder and version."""
        calls = self._metrics.calls_by_encoder()
        calls[UNKNOWN] = self._calls.held - sum(calls.values())
        return {(self._metrics.process, *address): count for address, count in calls.items()}

    def _check_open(self) -> None:
        if self._state.draining:
            raise DrainingError("the server is shutting down; retry with another one")

    def _hold(self, incoming: Arrived, call: Call, limit: CallLimit, *, awaited: bool = False) -> None:
        """Let a call in that takes memory until its end, for which a shutdown waits if it is `awaited`."""
        limit.enter(call.caller)
        if awaited:
            self._under_way += 1
            self._idle.clear()
        incoming.at_end(partial(self._release, call, limit, awaited=awaited))

    def _release(self, call: Call, limit: CallLimit, *, awaited: bool) -> None:
        limit.leave(call.caller)
        call.memory.close()
        if awaited:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()


async def _parsed(method: Method, message: Any) -> Any:
    request = method.parse(message)
    # `inspect.isawaitable` looks further, and takes as long as parsing a short request.
    return await request if isinstance(request, CoroutineType) else request


def _address(call: Call) -> Address:
    return address_of(call.encoder) if call.encoder else UNKNOWN


def _extra(incoming: Arrived, call: Call) -> dict[str, object]:
    """What a line of the log says of a call beside its message."""
    return {FIELDS: ids_of(incoming, call.notes)}
