"""Two servers that are restarted in turn, by SIGTERM or SIGKILL, lose no call of birnn's clients."""

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import birnn
from tests.chaos.outcomes import Outcomes, attack
from tests.e2e.server_process import MODELS, ServerProcess, free_port, running, until

# The one that loads fastest.
ENCODER = "smiles-small"
SEQUENCES = ["CCO", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O"]
THREADS = TASKS = 4
# A call that takes longer than this hangs: a restart takes seconds, even on a busy machine.
PATIENCE_SECONDS = 120


class Pair:
    """Two servers with ports of their own, which they keep when they start again."""

    def __init__(self, models: Path) -> None:
        self._models = models
        self._ports = [free_port() for _ in range(2)]
        self._lives = [ExitStack() for _ in range(2)]
        self.servers = [self._start(number) for number in range(2)]
        self.address = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in self._ports)

    def _start(self, number: int) -> ServerProcess:
        return self._lives[number].enter_context(running(self._models, "--grpc-port", str(self._ports[number])))

    def restart(self, number: int, how: signal.Signals) -> None:
        """End a server and start it again."""
        process = self.servers[number].process
        process.send_signal(how)
        code = process.wait(timeout=PATIENCE_SECONDS)
        assert code == (0 if how is signal.SIGTERM else -signal.SIGKILL), self.servers[number].log
        self._lives[number].close()
        self.servers[number] = self._start(number)

    def close(self) -> None:
        for life in self._lives:
            life.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    (tmp_path / ENCODER).symlink_to(MODELS / ENCODER)
    pair = Pair(tmp_path)
    yield pair
    pair.close()


def count(outcomes: Outcomes, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    outcomes.count("answered" if np.allclose(found, expected, atol=1e-5) else "wrong")


def note(outcomes: Outcomes, error: birnn.EncodeError, seconds: float) -> None:
    outcomes.count("hung" if seconds >= PATIENCE_SECONDS else "lost")
    outcomes.note = str(error)


@contextmanager
def callers(address: str, expected: NDArray[np.float32], outcomes: Outcomes) -> Iterator[None]:
    """Clients with both addresses, threads and tasks, that call all the time."""
    ended = threading.Event()

    def call_on() -> None:
        with birnn.Client(address) as client:
            while not ended.is_set():
                start = time.monotonic()
                try:
                    count(outcomes, client.encode(SEQUENCES, ENCODER, timeout=PATIENCE_SECONDS), expected)
                except birnn.EncodeError as error:
                    note(outcomes, error, time.monotonic() - start)

    async def call_on_as_task(client: birnn.AsyncClient) -> None:
        while not ended.is_set():
            start = time.monotonic()
            try:
                count(outcomes, await client.encode(SEQUENCES, ENCODER, timeout=PATIENCE_SECONDS), expected)
            except birnn.EncodeError as error:
                note(outcomes, error, time.monotonic() - start)

    async def call_on_as_tasks() -> None:
        async with birnn.AsyncClient(address) as client:
            await asyncio.gather(*(call_on_as_task(client) for _ in range(TASKS)))

    threads = [threading.Thread(target=call_on) for _ in range(THREADS)]
    threads.append(threading.Thread(target=asyncio.run, args=(call_on_as_tasks(),)))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    ("how", "rounds"),
    [
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.quick),
        (signal.SIGTERM, 4),
        (signal.SIGKILL, 4),
    ],
)
def test_servers_that_are_restarted_in_turn_lose_no_call(pair: Pair, how: signal.Signals, rounds: int) -> None:
    with birnn.Client(pair.address) as client:
        expected = client.encode(SEQUENCES, ENCODER)
    name = f"{THREADS + TASKS} callers of two servers, each restarted {rounds} times in turn by {how.name}"
    with attack(name) as outcomes:
        with callers(pair.address, expected, outcomes):
            for number in [0, 1] * rounds:
                pair.restart(number, how)
                # The next one ends only once clients have found this one.
                until(partial(_is_found, pair.servers[number]))
        outcomes.assert_unharmed()


def _is_found(server: ServerProcess) -> bool:
    """Whether every client has had an answer from a server."""
    return server.metric("birnn_requests_total", code="OK") >= THREADS + TASKS
