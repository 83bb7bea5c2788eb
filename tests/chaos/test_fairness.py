"""The worst neighbors beside a caller of single calls, on a real server: two processes with an address each."""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from birnn import AsyncClient
from tests.chaos.neighbor import molecules
from tests.chaos.outcomes import Outcomes, attack
from tests.e2e.server_process import ServerProcess, running

NEIGHBOR = Path(__file__).parent / "neighbor.py"
ENCODER = "smiles-small"
ALONE, BESIDE = 60, 150
# Seconds of a single call after which the promise is broken on any machine: a neighbor had cost 7 and 15 seconds.
HUNG = 60.0


@contextmanager
def neighbor(server: ServerProcess, *arguments: str) -> Iterator[dict[str, int]]:
    """A neighbor at 127.0.0.2 while the block runs, and afterwards how many of its calls had which end."""
    command = [sys.executable, str(NEIGHBOR), server.address, ENCODER, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    counts: dict[str, int] = {}
    try:
        assert process.stdout.readline() == "busy\n"
        yield counts
        process.stdin.close()
        counts |= json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def singles(server: ServerProcess, seed: int, count: int, outcomes: Outcomes) -> list[float]:
    """Make single calls one after another; the seconds that each took."""
    took = []
    async with AsyncClient(server.address) as client:
        for molecule in molecules(seed, count):
            start = time.monotonic()
            try:
                vectors = await client.encode([molecule], ENCODER, timeout=HUNG)
                outcomes.count("answered" if np.isfinite(vectors).all() else "wrong")
            except Exception:
                outcomes.count("hung" if time.monotonic() - start >= HUNG else "lost")
            took.append(time.monotonic() - start)
    return took


def batch_seconds(server: ServerProcess) -> float:
    """The bound below which 99 of 100 batches took, in seconds, as far as the histogram tells."""
    buckets: Counter[float] = Counter()
    for (name, labels), value in server.samples().items():
        if name == "birnn_compute_seconds_bucket" and dict(labels).get("encoder") == ENCODER:
            buckets[float(dict(labels)["le"])] += int(value)
    total = buckets[float("inf")]
    return min(bound for bound, value in buckets.items() if value >= 0.99 * total)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("1 x 8,192 with a deadline", ("1", "8192", "60")),
        ("32 x 512 in flight", ("32", "512", "0")),
        ("256 x 1 in flight", ("256", "1", "0")),
        ("64 x 64 in flight", ("64", "64", "0")),
    ],
)
def test_single_calls_are_answered_soon_beside_any_neighbor(name: str, arguments: tuple[str, ...]) -> None:
    with running() as server, attack(f"single calls beside {name}") as outcomes:
        alone = asyncio.run(singles(server, 1, ALONE, outcomes))
        with neighbor(server, *arguments) as counts:
            beside = asyncio.run(singles(server, 2, BESIDE, outcomes))
        batch = batch_seconds(server)
        p99, quiet = np.quantile(beside, 0.99), np.quantile(alone, 0.99)
        outcomes.note = (
            f"p99 {1000 * p99:.0f} ms, alone {1000 * quiet:.0f} ms, "
            f"batch {1000 * batch:.0f} ms, neighbor {json.dumps(counts)}"
        )
        outcomes.assert_unharmed()
        assert sum(counts.values()) > 0
        assert "Traceback" not in "".join(server.log), "".join(server.log)


def test_a_neighbor_that_fills_the_backlog_is_refused_and_nobody_else() -> None:
    with (
        running(Path(__file__).parents[2] / "models", "--max-backlog-seconds", "0.5") as server,
        attack("single calls beside a full backlog") as outcomes,
    ):
        asyncio.run(singles(server, 1, 10, outcomes))
        with neighbor(server, "64", "512", "0") as counts:
            asyncio.run(singles(server, 2, BESIDE, outcomes))
        outcomes.note = f"neighbor {json.dumps(counts)}"
        outcomes.assert_unharmed()
        assert counts.get("refused", 0) > 0
        assert "Traceback" not in "".join(server.log), "".join(server.log)
