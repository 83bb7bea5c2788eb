"""A server under load for minutes (SOAK_MINUTES), while one fault after the other happens to it.

Every reply is compared to the bit with what the engine gave by itself before, and calls are counted on both sides.
"""

import itertools
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.outcomes import attack
from tests.chaos.processes import resident
from tests.chaos.soak.faults import FAULTS, WITH_FRONT_ENDS, WITH_TLS
from tests.chaos.soak.scene import Group, Scene, change_tokens, group_settings
from tests.chaos.soak.tally import Tally
from tests.chaos.soak.world import make_world
from tests.e2e.server_process import ServerProcess, running, transport_asked, until

# `make chaos` has each fault once; `make soak` goes on for longer.
MINUTES = float(os.environ.get("SOAK_MINUTES", "0"))
CALLERS = {"singles": 12, "batches": 4, "large": 1, "streams": 2, "rest": 4}
# Requests of one input that are under way at a time, by default.
IN_FLIGHT = 4
# What memory may differ by, with other versions loaded and other callers there; the same for descriptors and threads.
GROWTH_MIB, GROWTH = 64, 16


@dataclass(frozen=True)
class Sample:
    """What a server takes."""

    memory: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, server: ServerProcess) -> "Sample":
        """What it takes now."""
        process = Path(f"/proc/{server.process.pid}")
        return cls(resident(server), len(list((process / "fd").iterdir())), len(list((process / "task").iterdir())))


@pytest.mark.parametrize("frontends", [0, 2])
def test_a_soak_with_faults_loses_no_call_and_gives_no_wrong_vector(tmp_path: Path, frontends: int) -> None:
    world = make_world(tmp_path, tls=transport_asked() != "native")
    admin = change_tokens(world, "add", "admin", "--right", "encode", "--right", "metrics", "--right", "admin")
    token = change_tokens(world, "add", "main")
    arguments = ["--tls-cert", str(world.mount.pair.cert), "--tls-key", str(world.mount.pair.key)] if world.tls else []
    arguments += ["--tokens", str(world.tokens), "--http-port", "0", "--frontends", str(frontends)]
    arguments += ["--models-poll", "0.2", "--cache-mib", "1", "--memory-mib", "4096"]
    faults = [*FAULTS, *(WITH_TLS if world.tls else []), *(WITH_FRONT_ENDS if frontends else [])]
    happened: Counter[str] = Counter()
    samples: list[Sample] = []
    with running(world.models, *arguments) as server, attack("") as outcomes:
        server.token = admin
        main = Group(group_settings(world, server, token, 1, CALLERS, resend=bool(frontends)))
        scene = Scene(world, server, frontends, main, admin, Tally())
        try:
            scene.go_on()
            end = time.monotonic() + 60 * MINUTES
            for fault in itertools.chain(
                faults, itertools.takewhile(lambda _: time.monotonic() < end, itertools.cycle(faults))
            ):
                fault(scene)
                happened[fault.__name__] += 1
                samples.append(Sample.of(server))
        finally:
            tally = main.stop()
            kinds = f"soak of {sum(happened.values())} faults of {len(happened)} kinds"
            outcomes.attack = f"{kinds}, {frontends} front-ends, {transport_asked()}"
            for outcome, count in tally.calls.items():
                setattr(outcomes, outcome, count)
            outcomes.sent = tally.calls.total()
            outcomes.note = (
                f"{tally.vectors:,} vectors equal to the bit; others: {dict(scene.others.calls)}, "
                f"{scene.others.vectors:,} vectors; {_flatness(samples)}"
            )
        assert not scene.others.calls.keys() & {"lost", "wrong", "hung"}, scene.others
        assert not tally.notes, tally.notes
        outcomes.assert_unharmed()
        changes = happened["version_swapped"] + happened["version_replaced_in_place"]
        outcomes.note += f"; {_assert_counted(server, tally.calls['answered'], changes, frontends)}"
        _assert_flat(samples, len(faults))


def _flatness(samples: list[Sample]) -> str:
    """What was taken at first and at last."""
    if not samples:
        return "no samples"
    first, last = samples[0], samples[-1]
    return (
        f"{first.memory:.0f} to {last.memory:.0f} MiB, {first.descriptors} to {last.descriptors} descriptors, "
        f"{first.threads} to {last.threads} threads"
    )


def _assert_counted(server: ServerProcess, answered: int, changes: int, frontends: int) -> str:
    """The server has counted what its main callers have counted; returns its count.

    It may have answered more: a request of an input that was begun with another version is sent again. With front-ends
    it may have counted less: one that is killed has not yet told what it counted last.
    """

    def counted() -> float:
        return server.metric("birnn_tenant_requests_total", tenant="main", code="OK")

    if not frontends:
        until(lambda: counted() >= answered)
        assert counted() - answered <= changes * (CALLERS["large"] + CALLERS["streams"]) * IN_FLIGHT
    return f"{counted():.0f} counted by the server"


def _assert_flat(samples: list[Sample], round_size: int) -> None:
    """The last round of faults took no more than the second, which is the first with everything warm.

    Medians are compared: a sample may be taken before the connections of a flood are closed, but what leaks is in all.
    """
    if len(samples) < 3 * round_size:
        return
    second, last = samples[round_size : 2 * round_size], samples[-round_size:]

    def growth(taken: Callable[[Sample], float]) -> float:
        return statistics.median(map(taken, last)) - statistics.median(map(taken, second))

    assert growth(lambda one: one.memory) < GROWTH_MIB, samples
    assert growth(lambda one: one.descriptors) < GROWTH, samples
    assert growth(lambda one: one.threads) < GROWTH, samples
