"""Calls with large replies that nobody reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.e2e.server_process import ServerProcess

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
ENCODER: dict[str, Any] = {"encoder": "smiles", "version": "1"}


def chain(length: int, seed: int) -> bytes:
    return bytes(np.random.default_rng(seed).choice(np.frombuffer(b"CNO", np.uint8), length))


def per_token(sequences: int, length: int) -> pb.EncodeRequest:
    """A request whose reply holds sequences x length x 512 floats: 2 KiB a token."""
    chains = [chain(length, seed) for seed in range(sequences)]
    return pb.EncodeRequest(**ENCODER, sequences=chains, output=pb.OUTPUT_TOKENS)


@contextmanager
def connected(server: ServerProcess) -> Iterator[tuple[grpc.Channel, EncoderServiceStub]]:
    # A connection of its own: channels of one process share theirs otherwise.
    options = [*OPTIONS, ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server.address, options=options) as channel:
        yield channel, EncoderServiceStub(channel)


def leave_unread(channel: grpc.Channel, request: pb.EncodeRequest, count: int) -> list[grpc.Call]:
    """Calls whose replies nobody reads: gRPC asks for a message when it is asked for one."""
    call = channel.unary_stream(
        "/birnn.v1.EncoderService/Encode",
        request_serializer=pb.EncodeRequest.SerializeToString,
        response_deserializer=None,
    )
    return [call(request) for _ in range(count)]
