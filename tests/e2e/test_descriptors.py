"""A server that may open few files tells the truth about accepting calls."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import grpc
import pytest

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_service.descriptors import NEEDED
from tests.e2e.server_process import (
    MODELS,
    PATIENCE_SECONDS,
    SMILES,
    SMILES_ALONE,
    ServerProcess,
    failure,
    running,
    until,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prlimit is of Linux")

REQUEST = pb.EncodeRequest(encoder="smiles", sequences=[b"CCO"])


def open_files(count: int) -> list[str]:
    """The start of a command line whose command may open so many files."""
    return ["prlimit", f"--nofile={count}:{count}"]


def test_too_few_files_stop_the_start() -> None:
    log = failure(MODELS, prefix=open_files(24))
    assert "may open 24 files (ulimit -n)" in log
    assert str(NEEDED) in log


@contextmanager
def connections(address: str, count: int) -> Iterator[None]:
    """Connections to the server on which nothing is ever sent."""
    host, _, port = address.rpartition(":")
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE_SECONDS))
        yield


def encodes(server: ServerProcess) -> bool:
    """Whether a new connection gets an answer."""
    with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        reply = EncoderServiceStub(channel).Encode(REQUEST, wait_for_ready=True, timeout=PATIENCE_SECONDS)
    return len(reply.embeddings) == SMILES.dimension * 4


@pytest.mark.parametrize("front_ends", [0, 1])
def test_a_server_without_descriptors_left_is_not_ready_until_some_are_free_again(front_ends: int) -> None:
    arguments = ["--frontends", str(front_ends)] if front_ends else []
    with (
        running(SMILES_ALONE, *arguments, prefix=open_files(NEEDED)) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = EncoderServiceStub(channel)
        stub.Encode(REQUEST)
        with connections(server.address, NEEDED):
            until(lambda: server.get("/readyz")[0] == 503)
            # Who is connected is served, and a restart would help nobody.
            assert len(stub.Encode(REQUEST).embeddings) == SMILES.dimension * 4
            assert server.get("/healthz")[0] == 200
            until(lambda: server.metric("birnn_descriptors_exhausted_total") == 1)
        until(lambda: server.get("/readyz")[0] == 200)
        assert encodes(server)
        assert server.metric("birnn_descriptors_exhausted_total") == 1
        assert server.logged("no file descriptor is left") == 1
