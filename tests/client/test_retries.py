"""Clients whose servers restart, die or never were."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import grpc
import numpy as np
import pytest

import birnn
from birnn import AsyncClient, Client
from tests.client.fake_service import Failure, FakeService, serving, vector


class Restartable:
    """A fake server that can be stopped, its calls broken off, and started again on its port."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.service = self._stack.enter_context(serving())
        self.port = int(self.service.address.rpartition(":")[2])

    def stop(self) -> None:
        self._stack.close()

    def start(self) -> None:
        self.service = self._stack.enter_context(serving(port=self.port))

    def restart_after_a_call(self) -> None:
        """Restart in the middle of a call, and wait until the next one is answered."""
        self.service.hold = threading.Event()
        assert self.service.held.wait(60)
        self.stop()
        self.start()
        for _ in range(6000):
            if self.service.requests:
                return
            threading.Event().wait(0.01)
        raise AssertionError("nobody has called since")


def test_two_servers_that_restart_in_turn_lose_no_call() -> None:
    servers = [Restartable(), Restartable()]
    stop = threading.Event()

    def call_on(client: Client, name: int) -> int:
        calls = 0
        while not stop.is_set():
            text = f"C{name}N{calls}"
            np.testing.assert_array_equal(client.encode([text], timeout=120), [vector(text)])
            calls += 1
        return calls

    target = "ipv4:" + ",".join(f"127.0.0.1:{server.port}" for server in servers)
    with Client(target) as client, ThreadPoolExecutor(4) as callers:
        calling = [callers.submit(call_on, client, name) for name in range(4)]
        try:
            for server in [*servers, *servers]:
                server.restart_after_a_call()
        finally:
            stop.set()
        assert all(caller.result() > 0 for caller in calling)
    for server in servers:
        server.stop()


@contextmanager
def starting_once_told(server: Restartable) -> Iterator[None]:
    """Start the server again as soon as the client says that it waits."""

    class Starter(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logger.removeHandler(self)
            server.start()

    logger, starter = logging.getLogger("birnn"), Starter()
    logger.addHandler(starter)
    try:
        yield
    finally:
        logger.removeHandler(starter)


def test_a_stream_waits_for_its_only_server(caplog: pytest.LogCaptureFixture) -> None:
    server = Restartable()
    sequences = [f"C{index}" for index in range(100)]
    with Client(server.service.address, batch_size=10, in_flight=2) as client:
        parts = client.stream(sequences)
        found = [next(parts).vectors]
        server.stop()
        with caplog.at_level(logging.WARNING, "birnn"), starting_once_told(server):
            found += [part.vectors for part in parts]
    np.testing.assert_array_equal(np.concatenate(found), [vector(sequence) for sequence in sequences])
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "no server reachable at" in told[0]
    assert "calls are repeated for up to 30 s" in told[0]
    assert "answers again after" in told[1]
    server.stop()


async def test_an_async_client_waits_too() -> None:
    server = Restartable()
    async with AsyncClient(server.service.address) as client:
        await client.encode(["CCO"])
        await asyncio.to_thread(server.stop)
        waiting = asyncio.create_task(client.encode(["CCO"]))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        await asyncio.to_thread(server.start)
        np.testing.assert_array_equal(await waiting, [vector("CCO")])
        await asyncio.to_thread(server.stop)
        waiting = asyncio.create_task(client.encode(["CCO"]))
        await asyncio.sleep(0.3)
        await client.close()
        with pytest.raises(birnn.EncodeError, match="client was closed"):
            await waiting


def test_closing_ends_the_wait_for_a_server() -> None:
    server = Restartable()
    client = Client(server.service.address)
    client.encode(["CCO"])
    server.stop()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.encode, ["CCO"])
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        client.close()
        with pytest.raises(birnn.EncodeError, match="client was closed"):
            waiting.result(timeout=60)


@pytest.mark.parametrize(
    ("retry_for", "timeout", "attempts"), [(1e9, 600.0, 4), (600.0, None, 4), (600.0, 1e9, 4), (0.0, None, 1)]
)
def test_a_call_is_not_repeated_beyond_its_timeout_or_retry_for(
    service: FakeService, retry_for: float, timeout: float | None, attempts: int
) -> None:
    soon = Failure(grpc.StatusCode.UNAVAILABLE, "draining", pushback=0.01)
    late = Failure(grpc.StatusCode.UNAVAILABLE, "draining", pushback=3600)
    service.failures.extend([soon] * 3 + [late])
    with (
        Client(service.address, retry_for=retry_for) as client,
        pytest.raises(birnn.ServerUnavailableError, match="draining"),
    ):
        client.encode(["CCO"], timeout=timeout)
    assert service.attempts == attempts


def test_the_wait_for_a_server_ends(service: FakeService) -> None:
    service.failures.extend([Failure(grpc.StatusCode.UNAVAILABLE, "draining")] * 1000)
    with (
        Client(service.address, retry_for=0.5) as client,
        pytest.raises(birnn.ServerUnavailableError, match="draining"),
    ):
        client.encode(["CCO"])
    # Pauses grow.
    assert 1 < service.attempts < 20


def test_an_overloaded_server_is_not_called_again_where_nothing_is_to_be_repeated(service: FakeService) -> None:
    service.failures.append(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, pushback=0.01))
    with Client(service.address, retry_for=0) as client, pytest.raises(birnn.OverloadedError):
        client.encode(["CCO"])


def test_a_server_may_ask_not_to_be_called_again(service: FakeService, client: Client) -> None:
    service.failures.append(Failure(grpc.StatusCode.UNAVAILABLE, "broken for good", pushback=-0.001))
    with pytest.raises(birnn.ServerUnavailableError, match="broken for good"):
        client.encode(["CCO"])
    assert service.attempts == 1


def test_a_server_that_cancels_a_call_is_asked_again(service: FakeService, client: Client) -> None:
    service.failures.append(Failure(grpc.StatusCode.CANCELLED))
    np.testing.assert_array_equal(client.encode(["CCO"]), [vector("CCO")])
    assert service.attempts == 2


@pytest.mark.parametrize("retry_for", [-1.0, float("nan")])
def test_retry_for_is_a_number_of_seconds(retry_for: float) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match="at least 0 seconds"):
            kind(retry_for=retry_for)
