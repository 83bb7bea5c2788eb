import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birnn.openinference import inference_pb2 as pb
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn.v1 import encoder_pb2
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_bundle.bundle import Bundle
from tests.e2e.molecules import molecules
from tests.e2e.server_process import MODELS, PATIENCE_SECONDS, SMILES, ServerProcess, running

CLIENT = Path(__file__).with_name("foreign_client.py")
Output = pb.ModelInferRequest.InferRequestedOutputTensor


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
    {"infer": {"parameters": {"truncate": True, "pooling": SMILES.pooling, "element_type": "FP32"}}},
    {"infer": {"parameters": {"truncate": True}, "priority": 3}},
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
    ({"infer": {"parameters": {"pooling": "first"}}}, "INVALID_ARGUMENT", f"must be {SMILES.pooling}, got 'first'"),
    ({"infer": {"parameters": {"element_type": "FP64"}}}, "INVALID_ARGUMENT", "must be FP32 or FP16"),
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


EXTENSIONS = str(CLIENT.with_name("foreign_extensions.py"))


def extensions(server: ServerProcess, ids: list[list[int]]) -> dict[str, Any]:
    command = [sys.executable, EXTENSIONS, server.address, "smiles", json.dumps(ids)]
    answer: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_SECONDS).stdout
    )
    return answer


@pytest.mark.parametrize("frontends", ["0", "2"])
def test_tritonclient_s_other_methods_work(frontends: str) -> None:
    strings = molecules(3)
    tokenized = Bundle.load(MODELS / "smiles" / "2").tokenizer.tokenize(strings, SMILES.max_length).batch
    with running(MODELS, "--frontends", frontends) as server:
        answer = extensions(server, [tokenized.row(number).tolist() for number in range(3)])
        with grpc.insecure_channel(server.address) as channel:
            encode = EncoderServiceStub(channel).Encode
            texts = [text.encode() for text in strings]
            pooled = encode(encoder_pb2.EncodeRequest(encoder="smiles", sequences=texts))
            tokens = encode(
                encoder_pb2.EncodeRequest(encoder="smiles", sequences=texts, output=encoder_pb2.OUTPUT_TOKENS)
            )
    longest, width = int(tokenized.lengths.max()), SMILES.token_dimension
    assert answer["ids"]["outputs"] == {"embedding": ["FP32", [3, SMILES.dimension]]}
    expected = np.frombuffer(pooled.embeddings, "<f4").reshape(pooled.shape)
    assert np.abs(np.array(answer["ids"]["embedding"]) - expected).max() < 1e-5
    assert answer["tokens"]["outputs"] == {"token_embeddings": ["FP32", [3, longest, width]], "lengths": ["INT32", [3]]}
    assert answer["tokens"]["lengths"] == tokenized.lengths.tolist() == list(tokens.lengths)
    rows = np.array(answer["tokens"]["token_embeddings"])
    real = np.arange(longest) < tokenized.lengths[:, None]
    assert np.abs(rows[real] - np.frombuffer(tokens.embeddings, "<f4").reshape(tokens.shape)).max() < 1e-5
    assert not rows[~real].any()
    assert answer["half"]["outputs"]["token_embeddings"] == ["FP16", [3, longest, width]]
    assert np.abs(np.array(answer["half"]["token_embeddings"]) - rows).max() < 1e-2

    first, bad, third, empty, last = answer["stream"]
    assert [first, third, last] == ["a", "c", "e"]
    assert "1 sequences cannot be encoded: 0: cannot read character" in bad
    assert "the sequence is empty" in empty
    assert answer["aio"] == [1, 2, 3]
    assert answer["aio_stream"] == ["x", "y", "z"]
    assert {"statistics", "model_repository", "model_configuration"} <= set(answer["extensions"])
    assert {"name": "smiles", "version": "2", "state": "READY"} in answer["index"]

    statistics = {(one["name"], one["version"]): one for one in answer["statistics"]}
    assert [one["version"] for one in answer["of_one"]] == ["1"]
    # The three calls by ids, and those of both streams and of asyncio; all of them, whichever process answers.
    smiles = statistics["smiles", "2"]
    parts = {name: int(part.get("count", 0)) for name, part in smiles["inference_stats"].items()}
    assert (parts["success"], parts["fail"]) == (12, 2)
    assert {parts[name] for name in ("queue", "compute_input", "compute_infer", "compute_output")} == {12}
    assert int(smiles["inference_count"]) == 3 * 3 + 3 + 6 + 3
    assert int(smiles["execution_count"]) == sum(int(one["compute_infer"]["count"]) for one in smiles["batch_stats"])
    assert int(smiles["last_inference"]) > 1.7e12
    assert "last_inference" not in statistics["smiles", "1"]


def test_what_is_broken_is_in_the_index_with_its_reason(tmp_path: Path) -> None:
    shutil.copytree(MODELS / "smiles", tmp_path / "smiles")
    (tmp_path / "smiles" / "1" / "manifest.json").write_text("{")
    with running(tmp_path) as server, grpc.insecure_channel(server.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        ready, broken = stub.RepositoryIndex(pb.RepositoryIndexRequest()).models
        assert (ready.version, ready.state, ready.reason) == ("2", "READY", "")
        assert (broken.version, broken.state) == ("1", "UNAVAILABLE")
        assert "manifest.json" in broken.reason
        assert list(stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True)).models) == [ready]


def ids_request(rows: list[list[int]], **changes: Any) -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor
    flat = [number for row in rows for number in row]
    inputs = [
        tensor(name="input_ids", datatype="INT32", shape=[len(flat)]),
        tensor(name="lengths", datatype="INT32", shape=[len(rows)]),
    ]
    raw = [np.array(values, "<i4").tobytes() for values in (flat, list(map(len, rows)))]
    return pb.ModelInferRequest(**{"model_name": "smiles", "inputs": inputs, "raw_input_contents": raw, **changes})


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (ids_request([[5], [5, 10**6]]), r"1: token 1 is 1000000, and the ids of this encoder go from 0 to"),
        (ids_request([[5], [-1]]), "1: token 0 is -1"),
        (ids_request([[5], []]), "1: the sequence is empty"),
        (ids_request([[5] * (SMILES.max_length + 1)]), f"this encoder accepts {SMILES.max_length}"),
        # One long sequence makes all others as long: gigabytes of zeros, for some megabytes of encodings.
        (
            ids_request([[5] * SMILES.max_length, *[[5]] * 16_383], outputs=[Output(name="token_embeddings")]),
            f"with 16384 sequences padded to {SMILES.max_length} tokens, and this server sends at most",
        ),
    ],
)
def test_ids_are_checked_and_padding_counts(
    inference: GRPCInferenceServiceStub, bad: pb.ModelInferRequest, words: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        inference.ModelInfer(bad)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in (caught.value.details() or "")


def test_long_sequences_of_ids_can_be_cut(inference: GRPCInferenceServiceStub) -> None:
    long = ids_request([[5] * (SMILES.max_length + 9)])
    long.parameters["truncate"].bool_param = True
    cut = inference.ModelInfer(long)
    assert cut.raw_output_contents == inference.ModelInfer(ids_request([[5] * SMILES.max_length])).raw_output_contents


def test_vectors_can_have_length_1_and_half_the_bytes(inference: GRPCInferenceServiceStub) -> None:
    plain, asked = request(b"CCO", b"c1ccccc1"), request(b"CCO", b"c1ccccc1")
    asked.parameters["normalize"].bool_param = True
    asked.parameters["element_type"].string_param = "FP16"
    vectors = np.frombuffer(inference.ModelInfer(plain).raw_output_contents[0], "<f4").reshape(2, -1)
    reply = inference.ModelInfer(asked)
    assert reply.outputs[0].datatype == "FP16"
    found = np.frombuffer(reply.raw_output_contents[0], "<f2").reshape(2, -1)
    assert np.abs(found - vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).max() < 1e-3


def test_a_failure_in_a_stream_has_an_id_and_a_code(inference: GRPCInferenceServiceStub) -> None:
    requests = [request(b"C", id="1"), request(b"C", id="2", model_name="stranger"), request(b"C", id="3")]
    replies = list(inference.ModelStreamInfer(iter(requests), timeout=PATIENCE_SECONDS))
    assert [reply.infer_response.id for reply in replies] == ["1", "2", "3"]
    assert [bool(reply.error_message) for reply in replies] == [False, True, False]
    assert replies[1].infer_response.parameters["code"].string_param == "NOT_FOUND"
    assert all(reply.infer_response.parameters["triton_final_response"].bool_param for reply in replies)


GOOD = request(b"CCO", id="good").SerializeToString()
MESSAGES = st.one_of(
    st.binary(max_size=40),
    st.just(GOOD),
    # A good one with one byte changed.
    st.builds(
        lambda place, byte: GOOD[:place] + bytes([byte]) + GOOD[place + 1 :],
        st.integers(0, len(GOOD) - 1),
        st.integers(0, 255),
    ),
    st.builds(
        lambda name, datatype, shape, raw: pb.ModelInferRequest(
            model_name="smiles",
            inputs=[pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)],
            raw_input_contents=raw,
        ).SerializeToString(),
        st.sampled_from(["text", "input_ids", "lengths"]),
        st.sampled_from(["BYTES", "INT32"]),
        st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2), max_size=3),
        st.lists(st.binary(max_size=12), max_size=3),
    ),
)


@settings(max_examples=40, deadline=None)
@given(messages=st.lists(MESSAGES, max_size=12))
def test_whatever_comes_on_a_stream_is_answered_and_ends_nothing(server: ServerProcess, messages: list[bytes]) -> None:
    with grpc.insecure_channel(server.address) as channel:
        call: Any = channel.stream_stream(f"/{pb.DESCRIPTOR.package}.GRPCInferenceService/ModelStreamInfer")
        replies = list(call(iter([*messages, GOOD]), timeout=PATIENCE_SECONDS))
    assert len(replies) == len(messages) + 1
    last = pb.ModelStreamInferResponse.FromString(replies[-1])
    assert (last.error_message, last.infer_response.id) == ("", "good")
    assert list(last.infer_response.outputs[0].shape) == [1, SMILES.dimension]
    codes = [
        pb.ModelStreamInferResponse.FromString(reply).infer_response.parameters["code"].string_param
        for reply in replies
    ]
    assert "INTERNAL" not in codes
