"""Inputs encoded over EncodeStream, by both clients."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

import birnn
from birnn import AsyncClient, Client
from tests.client.asking import CLIENTS, Kind, ask
from tests.client.fake_service import Failure, FakeService, StreamEnd, vector

UNAVAILABLE = Failure(grpc.StatusCode.UNAVAILABLE, "draining")


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, service: FakeService) -> Client | AsyncClient:
    kind: Kind = request.param
    return kind(service.address, batch_size=2, in_flight=4)


def many(count: int) -> list[str]:
    return [f"C{number}" for number in range(count)]


def encoded(client: Client | AsyncClient, sequences: list[str], timeout: float | None = None) -> None:
    """Encode them, and see that they are aligned."""
    parts = ask(client, "stream", sequences, timeout=timeout)
    np.testing.assert_array_equal(np.concatenate([part.vectors for part in parts]), [vector(s) for s in sequences])


def wait_until(reached: Callable[[], bool]) -> None:
    for _ in range(6000):
        if reached():
            return
        threading.Event().wait(0.01)
    raise AssertionError("not within 60 s")


def test_one_stream_carries_all_requests_and_its_answers_may_come_in_any_order(
    service: FakeService, client: Client | AsyncClient
) -> None:
    service.reversed_by = 4
    encoded(client, many(32))
    assert service.streams == 1
    assert len(service.streamed) == 16
    assert len({request.id for request in service.streamed}) == 16


def test_a_stream_that_is_done_leaves_no_thread(service: FakeService) -> None:
    before = set(threading.enumerate())
    with Client(service.address) as client:
        encoded(client, many(4))
        wait_until(lambda: not any(thread.name == "birnn stream" for thread in threading.enumerate()))
    # Those of gRPC go as well; the fake server has a pool.
    wait_until(lambda: all(thread in before or "Pool" in thread.name for thread in threading.enumerate()))


def test_a_server_without_streams_gets_calls_and_is_not_asked_again(
    service: FakeService, client: Client | AsyncClient
) -> None:
    service.knows -= {"EncodeStream"}
    encoded(client, many(20))
    # grpc.aio tells only now and then why a stream has ended.
    for _ in range(100):
        if not client._connection.streams:
            break
        encoded(client, many(20))
    asked = service.streams
    encoded(client, many(20))
    assert service.streams == asked >= 1
    assert not service.streamed


def test_requests_of_a_stream_that_broke_are_sent_again_on_a_new_one(
    service: FakeService, client: Client | AsyncClient
) -> None:
    service.ends = deque([StreamEnd(3, UNAVAILABLE), StreamEnd(2), StreamEnd(1, UNAVAILABLE)])
    encoded(client, many(32))
    assert service.streams == 4


def test_streams_that_go_on_breaking_are_given_up(service: FakeService) -> None:
    for kind in CLIENTS:
        service.ends = deque([StreamEnd(1, UNAVAILABLE)] * 1000)
        with pytest.raises(birnn.ServerUnavailableError, match="draining"):
            encoded(kind(service.address, retry_for=0.3), many(3))


@pytest.mark.parametrize(
    "failure",
    [
        Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, pushback=0.01),
        Failure(grpc.StatusCode.RESOURCE_EXHAUSTED),
        UNAVAILABLE,
        Failure(grpc.StatusCode.CANCELLED),
    ],
)
def test_a_request_that_failed_for_now_is_sent_again_on_the_same_stream(
    service: FakeService, client: Client | AsyncClient, failure: Failure
) -> None:
    service.failures.extend([failure] * 3)
    encoded(client, many(20))
    assert service.streams == 1
    assert len(service.streamed) == 13


@pytest.mark.parametrize(
    ("failure", "kind", "attempts"),
    [
        (Failure(grpc.StatusCode.INVALID_ARGUMENT, "because"), birnn.InvalidRequestError, 1),
        (Failure(grpc.StatusCode.NOT_FOUND, "because"), birnn.UnknownEncoderError, 1),
        (Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "because"), birnn.DeadlineError, 1),
        (Failure(grpc.StatusCode.INTERNAL, "because"), birnn.EncodeError, 1),
        (Failure(grpc.StatusCode.UNAVAILABLE, "because", pushback=-1), birnn.ServerUnavailableError, 1),
        (Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "because", pushback=0.01), birnn.OverloadedError, 5),
        (
            Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (5 vs. 4)"),
            birnn.InvalidRequestError,
            1,
        ),
    ],
)
@pytest.mark.parametrize("method", ["stream", "encode"])
def test_a_request_fails_as_a_call_does(
    service: FakeService,
    client: Client | AsyncClient,
    method: str,
    failure: Failure,
    kind: type[birnn.EncodeError],
    attempts: int,
) -> None:
    service.failures.extend([failure] * 5)
    with pytest.raises(
        birnn.EncodeError, match=r"because|is larger than .* \(CLIENT: Received.*smaller batch_size"
    ) as caught:
        ask(client, method, ["CCO"])
    assert type(caught.value) is kind
    assert caught.value.code is failure.code
    assert getattr(caught.value, "retry_after", None) == (failure.pushback if attempts > 1 else None)
    assert service.attempts == attempts


def test_a_stream_that_fails_ends_with_its_error(service: FakeService) -> None:
    for kind in CLIENTS:
        service.ends.append(StreamEnd(2, Failure(grpc.StatusCode.INTERNAL, "broken")))
        # Of a stream that is being written to, grpc.aio may lose the error.
        client = kind(service.address, batch_size=2, in_flight=1)
        with pytest.raises(birnn.EncodeError, match="failed with INTERNAL: broken"):
            encoded(client, many(20))
        encoded(client, many(20))


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND])
def test_where_the_error_of_a_stream_is_lost_a_call_tells(
    service: FakeService, client: Client | AsyncClient, code: grpc.StatusCode
) -> None:
    lost = Failure(grpc.StatusCode.INTERNAL, "Internal error from Core")
    service.ends.append(StreamEnd(2, lost))
    encoded(client, many(20))
    service.ends.append(StreamEnd(1, lost))
    service.failures.extend([Failure(code, "because")] * 1000)
    with pytest.raises(birnn.EncodeError, match="because"):
        encoded(type(client)(client.address, retry_for=0), many(2))


def test_an_answer_to_nothing_is_an_error(service: FakeService, client: Client | AsyncClient) -> None:
    service.wrong_ids = True
    with pytest.raises(birnn.InconsistentReplyError, match="the server answered request 1001"):
        encoded(client, many(4))


def test_a_failure_of_no_request_in_particular_is_told(service: FakeService, client: Client | AsyncClient) -> None:
    service.wrong_ids = True
    service.failures.append(Failure(grpc.StatusCode.INVALID_ARGUMENT, "this is no message"))
    with pytest.raises(birnn.InvalidRequestError, match="this is no message"):
        encoded(client, many(4))


def test_each_request_carries_its_timeout(service: FakeService, client: Client | AsyncClient) -> None:
    encoded(client, many(8), timeout=60)
    assert all(0 < request.timeout <= 60 for request in service.streamed)
    service.streamed.clear()
    encoded(client, many(8))
    assert {request.timeout for request in service.streamed} == {0}


def test_a_server_that_does_not_answer_in_time_is_not_waited_for(
    service: FakeService, client: Client | AsyncClient
) -> None:
    service.hold = threading.Event()
    with pytest.raises(birnn.DeadlineError, match=r"no reply from .* within the timeout of 0.2 s"):
        encoded(client, many(20), timeout=0.2)


async def test_leaving_an_asynchronous_stream_cancels_what_is_under_way(service: FakeService) -> None:
    service.hold, service.never_held = threading.Event(), b"C0"
    async with AsyncClient(service.address, batch_size=1) as client:
        parts = client.stream(many(1000))
        await anext(parts)
        assert await asyncio.to_thread(service.held.wait, 60)
        await parts.aclose()
        assert await asyncio.to_thread(service.cancelled.wait, 60)


async def test_cancelling_the_task_of_a_stream_cancels_what_is_under_way(service: FakeService) -> None:
    service.hold = threading.Event()
    async with AsyncClient(service.address) as client:
        parts = client.stream(many(10))
        task = asyncio.create_task(anext(parts))
        assert await asyncio.to_thread(service.held.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(service.cancelled.wait, 60)


def test_closing_a_client_ends_its_streams(service: FakeService) -> None:
    service.hold = threading.Event()
    client = Client(service.address)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(encoded, client, many(10))
        assert service.held.wait(60)
        client.close()
        with pytest.raises(birnn.EncodeError, match="client was closed"):
            waiting.result(60)
    with pytest.raises(birnn.EncodeError, match="client was closed"):
        encoded(client, many(10))


async def test_closing_an_async_client_ends_its_streams(service: FakeService) -> None:
    service.hold = threading.Event()
    client = AsyncClient(service.address)
    parts = client.stream(many(10))
    waiting = asyncio.create_task(anext(parts))
    assert await asyncio.to_thread(service.held.wait, 60)
    await client.close()
    with pytest.raises(birnn.EncodeError, match="client was closed"):
        await waiting
    with pytest.raises(birnn.EncodeError, match="client was closed"):
        await anext(client.stream(many(10)))


def test_threads_have_streams_of_their_own(service: FakeService) -> None:
    with Client(service.address, batch_size=2) as client, ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(encoded, client, [f"{name}-{n}" for n in range(40)]) for name in range(4)]:
            done.result()
    assert service.streams == 4
