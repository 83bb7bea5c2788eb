"""What an orchestrator does meanwhile: it asks whether the server lives, over gRPC and over HTTP."""

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from birnn_service.protocols.health import LIVENESS
from tests.e2e.server_process import ServerProcess

# Liveness is to answer within half a second. Tests allow for a machine on which much else runs: the freezes that they
# look for took seconds to minutes.
ALLOWED = 5.0
PAUSE = 0.02


@dataclass
class Probes:
    """How many probes were answered, and how long the slowest took, in seconds."""

    answered: int = 0
    slowest: float = 0.0
    failure: str = ""

    def assert_lively(self) -> None:
        """All were answered, in time."""
        assert not self.failure, self.failure
        assert self.answered > 0
        assert self.slowest < ALLOWED, self


@contextmanager
def probing(server: ServerProcess) -> Iterator[Probes]:
    """Probe a server from a thread until the end of the block."""
    probes, stop = Probes(), threading.Event()
    thread = threading.Thread(target=_probe, args=(server, probes, stop))
    thread.start()
    try:
        yield probes
    finally:
        stop.set()
        thread.join()


def _probe(server: ServerProcess, probes: Probes, stop: threading.Event) -> None:
    request = health_pb2.HealthCheckRequest(service=LIVENESS)
    with grpc.insecure_channel(server.address) as channel:
        stub = HealthStub(channel)
        while True:
            # Once more at the end, so that a server that is still busy by then is found out.
            last = stop.is_set()
            try:
                began = time.monotonic()
                assert stub.Check(request, timeout=60).status == health_pb2.HealthCheckResponse.SERVING
                middle = time.monotonic()
                with urllib.request.urlopen(server.http + "/healthz", timeout=60) as reply:
                    assert reply.status == 200
                probes.slowest = max(probes.slowest, middle - began, time.monotonic() - middle)
                probes.answered += 1
            except Exception as error:  # whatever it is, the thread must not end in silence
                probes.failure = repr(error)
                return
            if last:
                return
            time.sleep(PAUSE)
