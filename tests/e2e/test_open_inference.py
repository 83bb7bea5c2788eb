import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from birnn.openinference import inference_pb2 as pb
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn.v1 import encoder_pb2
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.e2e.server_process import PATIENCE_SECONDS, SMILES, ServerProcess

CLIENT = Path(__file__).with_name("foreign_client.py")


def ask(server: ServerProcess, encoder: str, *strings: str) -> dict[str, Any]:
    command = [sys.executable, str(CLIENT), server.address, encoder, *strings]
    done = subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_SECONDS)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture
def inference(server: ServerProcess) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield GRPCInferenceServiceStub(channel)


def request(*strings: bytes, **changes: Any) -> pb.ModelInferRequest:
    raw = b"".join(struct.pack("<I", len(string)) + string for string in strings)
    tensor = {"name": "text", "datatype": "BYTES", "shape": [len(strings), 1], **changes.pop("tensor", {})}
    fields = {"model_name": "smiles", "raw_input_contents": [raw], **changes}
    return pb.ModelInferRequest(inputs=[pb.ModelInferRequest.InferInputTensor(**tensor)], **fields)


def test_tritonclient_works_unmodified(server: ServerProcess, stub: EncoderServiceStub) -> None:
    answer = ask(server, "smiles", "CCO", "c1ccccc1")
    assert answer["live"]
    assert answer["ready"]
    assert answer["model_ready"]
    assert not answer["stranger_ready"]
    assert answer["server"]["name"] == "birnn-serving"
    assert answer["metadata"]["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": ["-1", "1"]}]
    width = str(SMILES.dimension)
    assert answer["metadata"]["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": ["-1", width]}]
    assert answer["metadata"]["versions"] == ["1", "2"]
    assert answer["config"]["config"]["max_batch_size"] == 16384
    assert answer["config"]["config"]["input"] == [{"name": "text", "data_type": "TYPE_STRING", "dims": ["1"]}]
    assert answer["config"]["config"]["output"] == [{"name": "embedding", "data_type": "TYPE_FP32", "dims": [width]}]
    assert answer["id"] == "request-7"
    listed = stub.ListEncoders(encoder_pb2.ListEncodersRequest()).encoders[0]
    named = f"{listed.engine}, {listed.device}, {listed.precision}"
    assert answer["parameters"] == {"engine": {"string_param": named}}
    ours = stub.Encode(encoder_pb2.EncodeRequest(encoder="smiles", sequences=[b"CCO", b"c1ccccc1"]))
    expected = np.frombuffer(ours.embeddings, dtype="<f4").reshape(ours.shape)
    assert np.abs(np.array(answer["embedding"]) - expected).max() < 1e-5


def test_tritonclient_gets_readable_errors(server: ServerProcess) -> None:
    status, message = ask(server, "smiles", "CCO", "what is this?")["error"]
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "1 sequences cannot be encoded: 1: cannot read character" in message


LONG = "C" * (SMILES.max_length + 50)
HONORED: list[dict[str, Any]] = [
    {"infer": {"parameters": {"truncate": True}}},
    {"infer": {"parameters": {"truncate": True}, "timeout": 60_000_000}},
    {"infer": {"parameters": {"truncate": True}, "timeout": 0}},
    {"infer": {"parameters": {"truncate": True}, "priority": 0}},
    {"infer": {"parameters": {"truncate": True}, "sequence_id": 7, "sequence_start": True, "sequence_end": True}},
]
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "INVALID_ARGUMENT", f"tokens and this encoder accepts {SMILES.max_length}"),
    ({"infer": {"parameters": {"truncate": False}}}, "INVALID_ARGUMENT", "ask for truncation"),
    ({"infer": {"parameters": {"truncat": True}}}, "INVALID_ARGUMENT", "unknown parameter 'truncat' of the request"),
    ({"infer": {"parameters": {"truncat": True}}}, "INVALID_ARGUMENT", "did you mean 'truncate'?"),
    ({"infer": {"parameters": {"truncate": "yes"}}}, "INVALID_ARGUMENT", "must be bool_param, got string_param"),
    ({"infer": {"timeout": -1}}, "INVALID_ARGUMENT", "must not be negative, got -1"),
    ({"infer": {"parameters": {"truncate": True}, "timeout": 1}}, "DEADLINE_EXCEEDED", ""),
    ({"infer": {"priority": 3}}, "INVALID_ARGUMENT", "'priority' must be 0"),
    ({"output": {"class_count": 3}}, "INVALID_ARGUMENT", "'classification' of 'embedding' is not supported"),
    ({"shared": True}, "INVALID_ARGUMENT", "of 'text' is not supported: this server has no shared memory"),
]


def test_tritonclient_s_parameters_are_honored_or_refused(server: ServerProcess) -> None:
    client = str(CLIENT.with_name("foreign_parameters.py"))
    cases = json.dumps([*HONORED, *(case for case, _, _ in REFUSED)])
    command = [sys.executable, client, server.address, "smiles", LONG, cases]
    answers = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    (expected,) = ask(server, "smiles", LONG[: SMILES.max_length])["embedding"]
    assert answers[: len(HONORED)] == [pytest.approx(expected[0], abs=1e-5)] * len(HONORED)
    for (_, status, words), answer in zip(REFUSED, answers[len(HONORED) :], strict=True):
        assert answer[0] == f"StatusCode.{status}", answer
        assert words in answer[1], answer


def test_strings_may_come_as_typed_contents(inference: GRPCInferenceServiceStub) -> None:
    contents = pb.InferTensorContents(bytes_contents=[b"CCO", b"CC"])
    typed = inference.ModelInfer(request(b"", b"", raw_input_contents=[], tensor={"contents": contents}))
    raw = inference.ModelInfer(request(b"CCO", b"CC"))
    assert list(typed.outputs[0].shape) == [2, SMILES.dimension]
    assert typed.raw_output_contents == raw.raw_output_contents


@pytest.mark.parametrize(
    ("bad", "code", "words"),
    [
        (request(b"C", model_name="stranger"), grpc.StatusCode.NOT_FOUND, "no encoder 'stranger'"),
        (request(b"C", model_version="9"), grpc.StatusCode.NOT_FOUND, "no version '9'"),
        (request(b"C", tensor={"name": "ids"}), grpc.StatusCode.INVALID_ARGUMENT, "one input named 'text'"),
        (request(b"C", tensor={"datatype": "FP32"}), grpc.StatusCode.INVALID_ARGUMENT, "must be BYTES of shape [n, 1]"),
        (request(b"C", tensor={"shape": [1, 2]}), grpc.StatusCode.INVALID_ARGUMENT, "must be BYTES of shape [n, 1]"),
        (request(b"C", tensor={"shape": [3, 1]}), grpc.StatusCode.INVALID_ARGUMENT, "declares 3 strings and holds 1"),
        (request(b"C", raw_input_contents=[b"\5\0\0\0C"]), grpc.StatusCode.INVALID_ARGUMENT, "within a string of 5"),
        (request(b"C", raw_input_contents=[b"\5\0"]), grpc.StatusCode.INVALID_ARGUMENT, "within a length"),
        (request(), grpc.StatusCode.INVALID_ARGUMENT, "no sequences"),
        (
            request(b"C", outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="logits")]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "unknown output 'logits'",
        ),
    ],
)
def test_malformed_requests_say_what_is_wrong(
    inference: GRPCInferenceServiceStub, bad: pb.ModelInferRequest, code: grpc.StatusCode, words: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        inference.ModelInfer(bad)
    call = caught.value
    assert isinstance(call, grpc.Call)
    assert call.code() is code
    assert words in (call.details() or "")
