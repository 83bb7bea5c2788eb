import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import numpy as np
import pytest

from birnn.channel import channel_options
from birnn_loadtest.generator import Generator, Workload
from birnn_loadtest.recording import NOT_SENT
from birnn_loadtest.schedule import poisson_arrivals
from tests.client.fake_service import Failure, FakeService

SEQUENCES = [f"C{number}".encode() for number in range(50)]


@asynccontextmanager
async def generator(
    service: FakeService,
    sequences: list[bytes] = SEQUENCES,
    most_in_flight: int = 1000,
    deadline: float = 60,
    seed: int = 0,
) -> AsyncIterator[Generator]:
    workload = Workload(sequences, batch=3, encoder="smiles", version="10", timeout=deadline, seed=seed)
    options = channel_options(service.address, shared=False)
    async with (
        grpc.aio.insecure_channel(service.address, options) as first,
        grpc.aio.insecure_channel(service.address, options) as second,
    ):
        yield Generator([first, second], workload, most_in_flight)


def sent(service: FakeService) -> list[list[bytes]]:
    return sorted(list(request.sequences) for request in service.requests)


async def test_every_due_call_is_sent_once_and_not_before_it_is_due(service: FakeService) -> None:
    arrivals = poisson_arrivals(300, 0.5, 1)
    async with generator(service) as running:
        recording = await running.open_loop(arrivals)
    assert sorted(call.intended for call in recording.calls) == arrivals.tolist()
    assert {call.code for call in recording.calls} == {"OK"}
    assert all(call.intended <= call.sent <= call.finished for call in recording.calls)
    assert len(service.requests) == len(arrivals)
    assert {(len(request.sequences), request.version) for request in service.requests} == {(3, "10")}


async def test_a_stalling_server_does_not_slow_the_arrivals_and_the_latency_counts_from_when_calls_were_due(
    service: FakeService,
) -> None:
    arrivals = np.linspace(0, 0.22, 12)
    service.hold = threading.Event()

    async with generator(service) as running:
        sending = asyncio.create_task(running.open_loop(arrivals))
        async with asyncio.timeout(60):
            while service.attempts < len(arrivals):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        service.hold.set()
        recording = await sending
    # All arrived though none was answered before the last was due, so the first waited for all the others.
    assert {call.code for call in recording.calls} == {"OK"}
    assert all(call.finished >= arrivals[-1] for call in recording.calls)
    figures = recording.figures(0, 1)
    assert figures.latency is not None
    assert figures.latency.maximum >= arrivals[-1]


async def test_the_same_seed_sends_the_same_sequences(service: FakeService) -> None:
    arrivals = poisson_arrivals(200, 0.2, 0)
    batches = []
    for seed in (4, 4, 5):
        service.requests.clear()
        async with generator(service, seed=seed) as running:
            await running.open_loop(arrivals)
        batches.append(sent(service))
    assert batches[0] == batches[1]
    assert batches[0] != batches[2]


async def test_failures_are_recorded_and_not_repeated(service: FakeService) -> None:
    service.failures.extend([Failure(grpc.StatusCode.UNAVAILABLE)] * 2 + [Failure(grpc.StatusCode.INTERNAL)])
    async with generator(service) as running:
        recording = await running.open_loop(np.arange(0, 0.1, 0.01))
    figures = recording.figures(0, 0.1)
    assert figures.codes == {"OK": 7, "UNAVAILABLE": 2, "INTERNAL": 1}
    assert service.attempts == 10


async def test_sequences_that_cannot_be_encoded_are_counted(service: FakeService) -> None:
    async with generator(service, sequences=[b"!"]) as running:
        recording = await running.open_loop(np.arange(0, 0.05, 0.01))
    assert recording.figures(0, 1).item_errors == 15


async def test_the_deadline_ends_calls_that_are_not_answered(service: FakeService) -> None:
    service.hold = threading.Event()
    async with generator(service, deadline=0.5) as running:
        recording = await running.open_loop(np.arange(0, 0.05, 0.01))
    # A slow machine may be too late to send some.
    ended = [call for call in recording.calls if call.code != NOT_SENT]
    assert {call.code for call in ended} == {"DEADLINE_EXCEEDED"}
    assert all(call.finished - call.sent >= 0.45 for call in ended)


async def test_calls_beyond_the_bound_are_recorded_as_not_sent(service: FakeService) -> None:
    service.hold = threading.Event()
    async with generator(service, most_in_flight=4) as running:
        sending = asyncio.create_task(running.open_loop(np.arange(0, 0.1, 0.01)))
        async with asyncio.timeout(60):
            while len(running._recording.calls) < 6:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        service.hold.set()
        recording = await sending
    codes = [call.code for call in recording.calls]
    assert codes.count(NOT_SENT) == 6
    assert service.attempts == 4


async def test_calls_that_are_due_too_long_ago_are_not_sent(service: FakeService) -> None:
    async with generator(service) as running:
        recording = await running.open_loop(np.array([-500.0, -400.0, 0.0]))
    assert [call.code for call in sorted(recording.calls, key=lambda call: call.intended)] == [NOT_SENT, NOT_SENT, "OK"]


async def test_callers_of_a_closed_loop_wait_for_their_replies(service: FakeService) -> None:
    async with generator(service) as running:
        recording = await running.closed_loop(3, 0.3)
    times = sorted((call.sent, call.finished) for call in recording.calls)
    assert len(times) >= 3
    for start, _ in times:
        assert sum(other_start <= start < other_end for other_start, other_end in times) <= 3


@pytest.mark.parametrize("callers", [1, 4])
async def test_a_closed_loop_sends_no_call_after_its_end(service: FakeService, callers: int) -> None:
    async with generator(service) as running:
        recording = await running.closed_loop(callers, 0.1)
    assert all(call.intended < 0.1 for call in recording.calls)
