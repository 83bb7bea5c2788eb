from collections.abc import Iterator

import grpc
import pytest

from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.e2e.server_process import ServerProcess, running


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    with running() as server:
        yield server


@pytest.fixture(scope="session")
def stub(server: ServerProcess) -> Iterator[EncoderServiceStub]:
    with grpc.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield EncoderServiceStub(channel)
