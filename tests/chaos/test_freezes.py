"""Requests that are small to send and large to read: each is refused at once, and nobody else has to wait."""

import struct
from typing import Any

import grpc
import pytest

from birnn.openinference import inference_pb2 as oip
from birnn.v1 import encoder_pb2 as pb
from tests.chaos.outcomes import attack
from tests.chaos.probes import probing
from tests.e2e.server_process import ServerProcess

ENCODE, INFER = "/birnn.v1.EncoderService/Encode", "/inference.GRPCInferenceService/ModelInfer"
HEALTH, REFLECTION = "/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
STREAM, INFER_STREAM = "/birnn.v1.EncoderService/EncodeStream", "/inference.GRPCInferenceService/ModelStreamInfer"
# On a stream requests fail one by one, and say so in a reply.
STREAMS = (REFLECTION, STREAM, INFER_STREAM)
MOST = 16_384
MILLION = 1_000_000


def field(number: int, content: bytes) -> bytes:
    """A message of one field."""
    size, varint = len(content), b""
    while size > 0x7F:
        size, varint = size >> 7, varint + bytes([size & 0x7F | 0x80])
    return bytes([number << 3 | 2]) + varint + bytes([size]) + content


def infer(**fields: Any) -> bytes:
    return oip.ModelInferRequest(model_name="smiles", **fields).SerializeToString()


def tensor(**fields: Any) -> list[oip.ModelInferRequest.InferInputTensor]:
    return [oip.ModelInferRequest.InferInputTensor(**{"name": "text", "datatype": "BYTES", **fields})]


def contents(**fields: Any) -> list[oip.ModelInferRequest.InferInputTensor]:
    return tensor(shape=[1], contents=oip.InferTensorContents(**fields))


def attacks() -> dict[str, tuple[str, bytes, str]]:
    """Method, message and part of the error, by name; every message is below --max-message-mib."""
    parameter = oip.InferParameter(bool_param=True)
    output = oip.ModelInferRequest.InferRequestedOutputTensor()
    raw: dict[str, Any] = {"raw_input_contents": [struct.pack("<I", 0) * (3 * MILLION)]}
    return {
        "a tensor of 200,000 dimensions": (INFER, infer(inputs=tensor(shape=[1] + [2**62] * 200_000)), "dimensions"),
        "7 M empty sequences": (ENCODE, b"\x1a\x00" * (7 * MILLION), f"more than {MOST} sequences"),
        "7 M sequences, their field's number spelled longer": (ENCODE, b"\x9a\x00\x00" * (5 * MILLION), "sequences"),
        "15 M lengths": (ENCODE, b"\x42\xc0\xc3\x93\x07" + b"\x01" * (15 * MILLION), f"more than {MOST} lengths"),
        "5 M lengths, each in a field": (ENCODE, b"\x42\x01\x01" * (5 * MILLION), "that a message holds once"),
        "3 M raw strings": (INFER, infer(inputs=tensor(shape=[3 * MILLION]), **raw), f"more than {MOST} strings"),
        "5 M strings": (INFER, infer(inputs=contents(bytes_contents=[b""] * (5 * MILLION))), "sequences"),
        "3 M floats": (INFER, infer(inputs=contents(fp32_contents=[0.5] * (3 * MILLION))), "fp32_contents"),
        "15 M flags": (INFER, infer(inputs=contents(bool_contents=[True] * (15 * MILLION))), "bool_contents"),
        "1 M inputs": (INFER, infer(inputs=tensor() * MILLION), "inputs"),
        "1 M outputs": (INFER, infer(outputs=[output] * MILLION), "outputs"),
        "100,000 parameters": (INFER, infer(parameters={str(i): parameter for i in range(100_000)}), "parameters"),
        "7 M raw contents": (INFER, b"\x3a\x00" * (7 * MILLION), "raw contents"),
        "7 M sequences, on a stream": (STREAM, field(3, b"\x1a\x00" * (7 * MILLION)), f"more than {MOST} sequences"),
        "7 M raw contents, on a stream": (INFER_STREAM, b"\x3a\x00" * (7 * MILLION), "raw contents"),
        "8 M unknown fields": (HEALTH, b"\x78\x00" * (7 * MILLION), "unknown"),
        "8 M unknown fields, to reflection": (REFLECTION, b"\x78\x00" * (7 * MILLION), "unknown"),
    }  # fmt: skip


ATTACKS = attacks()


@pytest.mark.quick
@pytest.mark.parametrize("name", ATTACKS)
def test_a_message_that_holds_too_much_is_refused_while_probes_are_answered(server: ServerProcess, name: str) -> None:
    method, message, words = ATTACKS[name]
    with (
        attack(name) as outcomes,
        probing(server) as probes,
        grpc.insecure_channel(server.address, options=[("grpc.max_send_message_length", -1)]) as channel,
    ):
        call = channel.stream_unary(method, request_serializer=None, response_deserializer=None)
        for _ in range(3):
            if method in STREAMS:
                replies = channel.stream_stream(method, request_serializer=None, response_deserializer=None)
                (reply,) = replies(iter([message]), timeout=60)
                assert words.encode() in reply
                outcomes.count("refused")
                continue
            with pytest.raises(grpc.RpcError) as caught:
                call(iter([message]), timeout=60)
            assert isinstance(caught.value, grpc.Call)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value
            assert words in (caught.value.details() or "")
            outcomes.count("refused")
    outcomes.note = f"slowest probe {probes.slowest:.2f} s"
    outcomes.assert_unharmed()
    probes.assert_lively()


@pytest.mark.quick
def test_as_many_sequences_as_are_allowed_are_read(server: ServerProcess) -> None:
    message = pb.EncodeRequest(encoder="smiles", sequences=[b""] * MOST).SerializeToString()
    with grpc.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        reply = pb.EncodeResponse.FromString(channel.unary_unary(ENCODE)(message, timeout=60))
    assert len(reply.errors) == MOST
    assert reply.shape[0] == MOST
