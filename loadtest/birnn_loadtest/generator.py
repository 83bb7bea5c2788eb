"""Sends the calls of a load test and records what becomes of each."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray

from birnn.metadata import Metadata
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_loadtest.recording import NOT_SENT, OK, CallRecord, Recording
from birnn_loadtest.schedule import choices


@dataclass(frozen=True, slots=True)
class Workload:
    """What every call carries.

    Attributes:
        sequences: Where the sequences of a call are drawn from.
        batch: Sequences a call.
        encoder: Name of the encoder.
        version: Its version.
        timeout: Deadline of a call, in seconds from when it is sent.
        seed: Decides which sequences each call carries.
        metadata: Sent beside each request.
    """

    sequences: Sequence[bytes]
    batch: int
    encoder: str
    version: str
    timeout: float
    seed: int
    metadata: Metadata = ()


class Generator:
    """Sends calls over several connections in turn.

    Args:
        channels: The connections.
        workload: What the calls carry.
        most_in_flight: Most calls under way at a time; those due beyond it are recorded as NOT_SENT.
    """

    def __init__(self, channels: Sequence[grpc.aio.Channel], workload: Workload, most_in_flight: int) -> None:
        self._stubs = [EncoderServiceStub(channel) for channel in channels]
        self._workload = workload
        self._most_in_flight = most_in_flight
        self._choices: Iterator[NDArray[np.int64]] = choices(len(workload.sequences), workload.batch, workload.seed)
        self._number = 0
        self._start = 0.0
        self._recording = Recording()

    async def open_loop(self, arrivals: NDArray[np.float64]) -> Recording:
        """Send a call at each arrival, whatever became of the ones before; return when all have ended.

        A call that is due while too many are under way, or that comes to be sent later than `timeout` after it was
        due, is recorded as NOT_SENT: so a test ends at the latest two timeouts after its last arrival.

        Args:
            arrivals: When calls are due, in seconds from now, ascending.
        """
        self._start = time.monotonic()
        under_way: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            for intended in arrivals.tolist():
                await self._sleep_until(intended)
                request, stub = self._next()
                now = self._now()
                if len(under_way) >= self._most_in_flight or now - intended > self._workload.timeout:
                    self._recording.calls.append(CallRecord(intended, now, now, NOT_SENT, self._workload.batch))
                    continue
                task = group.create_task(self._call(request, stub, intended))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        return self._recording

    async def closed_loop(self, callers: int, seconds: float) -> Recording:
        """Let callers send one call after the other, each when its last has ended: how much the server can do at most.

        The latency of a closed loop is no measure of what independent callers see.

        Args:
            callers: Number of callers.
            seconds: No call is sent later than this from now.
        """
        self._start = time.monotonic()

        async def caller() -> None:
            while (now := self._now()) < seconds:
                request, stub = self._next()
                await self._call(request, stub, now)

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
        return self._recording

    async def _sleep_until(self, moment: float) -> None:
        # Once even where the call is late: replies must be read meanwhile.
        await asyncio.sleep(max(0.0, moment - self._now()))
        # uvloop rounds to milliseconds, and a call must not be sent before it is due.
        while self._now() < moment:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    def _now(self) -> float:
        # Not the event loop's time: uvloop's stands still within an iteration and has whole milliseconds.
        return time.monotonic() - self._start

    def _next(self) -> tuple[pb.EncodeRequest, EncoderServiceStub]:
        workload = self._workload
        request = pb.EncodeRequest(
            encoder=workload.encoder,
            version=workload.version,
            sequences=[workload.sequences[row] for row in next(self._choices).tolist()],
        )
        stub = self._stubs[self._number % len(self._stubs)]
        self._number += 1
        return request, stub

    async def _call(self, request: pb.EncodeRequest, stub: EncoderServiceStub, intended: float) -> None:
        sent = self._now()
        item_errors = 0
        try:
            reply = await stub.Encode(request, timeout=self._workload.timeout, metadata=self._workload.metadata)
            code, item_errors = OK, len(reply.errors)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        record = CallRecord(intended, sent, self._now(), code, len(request.sequences), item_errors)
        self._recording.calls.append(record)
