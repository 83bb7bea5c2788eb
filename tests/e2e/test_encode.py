import random
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_bundle.bundle import Bundle
from tests.e2e.molecules import chains, molecules
from tests.e2e.server_process import MODELS, PATIENCE_SECONDS, SMILES, SMILES_ALONE, ServerProcess, running


def encode(stub: EncoderServiceStub, sequences: list[str] | list[bytes], **options: Any) -> pb.EncodeResponse:
    raw = [sequence.encode() if isinstance(sequence, str) else sequence for sequence in sequences]
    response: pb.EncodeResponse = stub.Encode(
        pb.EncodeRequest(sequences=raw, **{"encoder": "smiles", **options}), timeout=PATIENCE_SECONDS
    )
    return response


def vectors(response: pb.EncodeResponse) -> NDArray[np.float32]:
    return np.frombuffer(response.embeddings, dtype="<f4").reshape(response.shape)


def status(call: object) -> tuple[grpc.StatusCode, str]:
    assert isinstance(call, grpc.Call)
    return call.code(), call.details() or ""


@pytest.mark.parametrize(
    ("name", "version"), [("smiles", "1"), ("smiles", "2"), ("smiles-small", "1"), ("text", "1"), ("text", "2")]
)
@pytest.mark.parametrize("output", [pb.OUTPUT_POOLED, pb.OUTPUT_TOKENS])
def test_golden_sequences_come_back_as_pytorch_encoded_them(
    stub: EncoderServiceStub, name: str, version: str, output: pb.Output.ValueType
) -> None:
    bundle = Bundle.load(MODELS / name / version)
    golden = bundle.golden
    sequences = [bundle.tokenizer.decode(golden.batch.row(row).tolist()) for row in range(len(golden.batch))]
    # Not every sequence of ids is what its text tokenizes to; those that are must agree.
    tokenized = bundle.tokenizer.tokenize(sequences, bundle.manifest.max_length)
    same = [
        row
        for position, row in enumerate(tokenized.rows.tolist())
        if tokenized.batch.row(position).tolist() == golden.batch.row(row).tolist()
    ]
    assert same
    response = encode(stub, [sequences[row] for row in same], encoder=name, version=version, output=output)
    expected = golden.pooled[same]
    if output == pb.OUTPUT_TOKENS:
        expected = np.concatenate([golden.tokens[slice(*golden.batch.offsets[row : row + 2])] for row in same])
    assert (response.encoder, response.version) == (name, version)
    assert response.lengths == [len(golden.batch.row(row)) for row in same]
    assert np.abs(vectors(response) - expected).max() < 1e-5


def test_one_by_one_or_all_at_once_in_any_order_gives_the_same_vectors(stub: EncoderServiceStub) -> None:
    strings = molecules(300)
    together = vectors(encode(stub, strings))
    alone = np.concatenate([vectors(encode(stub, [string])) for string in strings[:100]])
    order = random.Random(1).sample(range(len(strings)), len(strings))
    shuffled = vectors(encode(stub, [strings[index] for index in order]))
    assert together.shape == (300, SMILES.dimension)
    assert np.abs(alone - together[:100]).max() < 1e-5
    assert np.abs(shuffled - together[order]).max() < 1e-5


def test_calls_in_flight_together_do_not_mix_up_their_rows(stub: EncoderServiceStub) -> None:
    strings = molecules(240)
    together = vectors(encode(stub, strings))
    calls = [
        stub.Encode.future(
            pb.EncodeRequest(encoder="smiles", sequences=[s.encode() for s in strings[start : start + 6]])
        )
        for start in range(0, 240, 6)
    ]
    assert np.abs(np.concatenate([vectors(call.result()) for call in calls]) - together).max() < 1e-5


def test_items_fail_alone_and_their_rows_are_nan(stub: EncoderServiceStub) -> None:
    good = vectors(encode(stub, ["CCO"]))[0]
    response = encode(stub, [b"CCO", b"", b"C\xff", b"CC O", b"C" * 100_000, b"C" * 9_000, b"CCO"])
    values = vectors(response)
    assert [(error.index, pb.ItemError.Code.Name(error.code)) for error in response.errors] == [
        (1, "CODE_EMPTY"),
        (2, "CODE_NOT_UTF8"),
        (3, "CODE_UNKNOWN_CHARACTERS"),
        (4, "CODE_TOO_LONG"),
        (5, "CODE_TOO_LONG"),
    ]
    assert "65536" in response.errors[3].reason
    assert np.isnan(values[1:6]).all()
    assert np.abs(values[[0, 6]] - good).max() < 1e-5
    assert response.lengths == [3, 0, 0, 0, 0, 0, 3]


@pytest.mark.parametrize("output", [pb.OUTPUT_POOLED, pb.OUTPUT_TOKENS])
@pytest.mark.parametrize("name", ["smiles", "text"])
def test_a_reply_names_the_engine_that_computed_it_as_the_listing_does(
    stub: EncoderServiceStub, name: str, output: pb.Output.ValueType
) -> None:
    encoders = stub.ListEncoders(pb.ListEncodersRequest()).encoders
    listed = max((each for each in encoders if each.name == name), key=lambda each: int(each.version))
    response = encode(stub, ["CCO", ""], encoder=name, output=output)
    assert response.engine == f"{listed.engine}, {listed.device}, {listed.precision}"
    assert listed.engine
    assert encode(stub, [""], encoder=name, output=output).engine == response.engine


def test_a_reply_names_the_engine_that_was_asked_for() -> None:
    with running(SMILES_ALONE, "--engine", "onnxruntime") as server, grpc.insecure_channel(server.address) as channel:
        named = encode(EncoderServiceStub(channel), ["CCO"]).engine
    assert named.startswith("onnxruntime ")
    assert named.endswith(", cpu, float32")


def test_per_token_replies_leave_failed_items_out_and_say_so(stub: EncoderServiceStub) -> None:
    response = encode(stub, ["CCO", "", "CN"], output=pb.OUTPUT_TOKENS)
    assert response.lengths == [3, 0, 2]
    assert response.shape == [5, SMILES.token_dimension]


def test_a_request_of_nothing_but_bad_items_still_answers(stub: EncoderServiceStub) -> None:
    response = encode(stub, ["", "x"])
    assert len(response.errors) == 2
    assert response.shape == [2, SMILES.dimension]


def test_unknown_tokens_and_truncation_are_reported(stub: EncoderServiceStub) -> None:
    response = encode(stub, ["C[Zz]C", "C" * 9_000, "C"], truncate=True)
    limit = SMILES.max_length
    assert [(n.index, n.unknown_tokens, n.truncated_tokens) for n in response.notices] == [
        (0, 1, 0),
        (1, 0, 9_000 - limit),
    ]
    assert not response.errors


@pytest.mark.parametrize(
    ("options", "count", "code", "words"),
    [
        ({"encoder": "protein"}, 1, grpc.StatusCode.NOT_FOUND, ["'protein'", "smiles, smiles-small, text"]),
        ({"encoder": ""}, 1, grpc.StatusCode.NOT_FOUND, ["smiles, smiles-small, text"]),
        ({"version": "99"}, 1, grpc.StatusCode.NOT_FOUND, ["'99'", "served are: 1, 2"]),
        ({"version": "latest"}, 1, grpc.StatusCode.NOT_FOUND, ["'latest'"]),
        ({}, 0, grpc.StatusCode.INVALID_ARGUMENT, ["no sequences", "16384"]),
        ({}, 100_000, grpc.StatusCode.INVALID_ARGUMENT, ["16384", "--max-sequences", "split"]),
        ({"output": 7}, 1, grpc.StatusCode.INVALID_ARGUMENT, ["OUTPUT_POOLED"]),
        ({"element_type": 7}, 1, grpc.StatusCode.INVALID_ARGUMENT, ["ELEMENT_TYPE_FLOAT16"]),
    ],
)
def test_what_is_wrong_with_a_whole_request_is_said(
    stub: EncoderServiceStub, options: dict[str, object], count: int, code: grpc.StatusCode, words: list[str]
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        encode(stub, ["C"] * count, **options)
    found, details = status(caught.value)
    assert found is code
    assert all(word in details for word in words), details


def test_a_message_beyond_the_limit_is_refused_and_the_server_stays_up(stub: EncoderServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        encode(stub, ["C" * (65 << 20)])
    assert status(caught.value)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(encode(stub, ["C"]).embeddings) == SMILES.dimension * 4


@pytest.mark.parametrize("method", ["birnn.v1.EncoderService/Encode", "inference.GRPCInferenceService/ModelConfig"])
@pytest.mark.parametrize("raw", [b"\x0a\xff", b"\x0a\x02\xc3\x28", b"\xff" * 50])
def test_bytes_that_are_no_message_are_an_invalid_argument_and_no_traceback(
    server: ServerProcess, method: str, raw: bytes
) -> None:
    before = server.metric("birnn_requests_total", code="INVALID_ARGUMENT")
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"/{method}")(raw)
    found, details = status(caught.value)
    assert found is grpc.StatusCode.INVALID_ARGUMENT
    assert "message" in details
    assert server.metric("birnn_requests_total", code="INVALID_ARGUMENT") == before + 1
    assert "Traceback" not in "".join(server.log)


@pytest.mark.parametrize("output", [pb.OUTPUT_POOLED, pb.OUTPUT_TOKENS])
def test_float16_replies_hold_the_same_numbers_rounded(stub: EncoderServiceStub, output: pb.Output.ValueType) -> None:
    strings = ["", *molecules(40)]
    whole = encode(stub, strings, output=output)
    half = encode(stub, strings, output=output, element_type=pb.ELEMENT_TYPE_FLOAT16)
    assert (whole.element_type, half.element_type) == (pb.ELEMENT_TYPE_FLOAT32, pb.ELEMENT_TYPE_FLOAT16)
    assert (half.shape, half.lengths, half.errors) == (whole.shape, whole.lengths, whole.errors)
    assert 2 * len(half.embeddings) == len(whole.embeddings)
    rounded = np.frombuffer(half.embeddings, dtype="<f2").reshape(half.shape)
    np.testing.assert_array_equal(rounded, vectors(whole).astype(np.float16))


def test_a_deadline_that_cannot_be_met_ends_the_call(stub: EncoderServiceStub) -> None:
    request = pb.EncodeRequest(encoder="smiles", sequences=chains(16_000, 200))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Encode(request, timeout=0.5)
    assert status(caught.value)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(encode(stub, ["C"]).embeddings) == SMILES.dimension * 4


def test_encoders_are_listed_with_what_a_caller_needs(stub: EncoderServiceStub) -> None:
    listed = {encoder.name: encoder for encoder in stub.ListEncoders(pb.ListEncodersRequest()).encoders}
    smiles = listed["smiles"]
    assert (smiles.architecture, smiles.dimension, smiles.token_dimension, smiles.tokenizer) == (
        "bigru",
        SMILES.dimension,
        SMILES.token_dimension,
        "smiles",
    )
    assert smiles.device == "cpu"
    assert smiles.engine.startswith(("native", "onnxruntime"))
    assert smiles.ready
    assert listed["text"].tokenizer == "text"


def test_timings_add_up(stub: EncoderServiceStub) -> None:
    timings = encode(stub, ["CCO"]).timings
    assert timings.compute > 0
    assert timings.tokenize + timings.queue + timings.compute <= timings.total


def test_metrics_count_what_was_served(server: ServerProcess, stub: EncoderServiceStub) -> None:
    before = {name: server.metric(name, encoder="smiles") for name in COUNTED}
    errors_before = server.metric("birnn_sequence_errors_total", encoder="smiles", code="EMPTY")
    encode(stub, ["CCO", "CC", "", "C[Zz]"])
    with pytest.raises(grpc.RpcError):
        encode(stub, ["C"], encoder="nobody")
    grown = {name: server.metric(name, encoder="smiles") - before[name] for name in COUNTED}
    assert grown["birnn_requests_total"] == 1
    assert grown["birnn_sequences_total"] == 3
    assert grown["birnn_tokens_total"] == 3 + 2 + 2
    assert grown["birnn_unknown_tokens_total"] == 1
    assert grown["birnn_request_seconds_count"] == 1
    assert grown["birnn_tokenize_seconds_count"] == 1
    assert grown["birnn_queue_seconds_count"] == 1
    assert grown["birnn_compute_seconds_count"] >= 1
    assert grown["birnn_batch_sequences_sum"] == 3
    assert grown["birnn_sequence_length_count"] == 3
    assert server.metric("birnn_sequence_errors_total", encoder="smiles", code="EMPTY") == errors_before + 1
    assert server.metric("birnn_requests_total", encoder="", code="NOT_FOUND") >= 1
    assert server.metric("birnn_queue_sequences") == 0
    assert server.metric("birnn_encoder_ready") == len(list(MODELS.glob("*/*/manifest.json")))
    assert server.metric("birnn_encoder_info", encoder="smiles", version="2", architecture="bigru", device="cpu") == 1


COUNTED = [
    "birnn_requests_total",
    "birnn_sequences_total",
    "birnn_tokens_total",
    "birnn_unknown_tokens_total",
    "birnn_request_seconds_count",
    "birnn_tokenize_seconds_count",
    "birnn_queue_seconds_count",
    "birnn_compute_seconds_count",
    "birnn_batch_sequences_sum",
    "birnn_sequence_length_count",
]


def test_a_repeated_sequence_comes_from_the_cache_and_is_the_same_to_the_bit() -> None:
    strings = [molecule.encode() for molecule in molecules(60)]
    with running(SMILES_ALONE, "--cache-mib", "8") as server, grpc.insecure_channel(server.address) as channel:
        stub = EncoderServiceStub(channel)
        first = stub.Encode(pb.EncodeRequest(encoder="smiles", sequences=strings[:40]))
        again = stub.Encode(pb.EncodeRequest(encoder="smiles", sequences=[b"", *strings]))
        width = first.shape[1] * 4
        assert again.embeddings[width : 41 * width] == first.embeddings
        assert [error.index for error in again.errors] == [0]
        assert server.metric("birnn_cache_hits_total", encoder="smiles") == 40
        assert server.metric("birnn_cache_misses_total", encoder="smiles") == 60
        assert server.metric("birnn_cache_bytes") > 60 * width
        assert server.metric("birnn_sequences_total", encoder="smiles") == 60


def test_a_request_id_comes_back_whatever_becomes_of_the_call(stub: EncoderServiceStub) -> None:
    for sequences, encoder in (([b"CCO"], "smiles"), ([b"CCO"], "nothing")):
        call = stub.Encode.future(
            pb.EncodeRequest(encoder=encoder, sequences=sequences),
            metadata=(("x-request-id", "order 7"),),
            timeout=PATIENCE_SECONDS,
        )
        assert (call.exception() is None) == (encoder == "smiles")
        assert dict(call.trailing_metadata())["x-request-id"] == "order 7"


def test_vectors_come_in_the_form_that_was_asked_for(stub: EncoderServiceStub) -> None:
    strings = [*molecules(40), ""]
    plain = vectors(encode(stub, strings))
    lengths = np.linalg.norm(plain.astype(np.float64), axis=1, keepdims=True)
    unit = encode(stub, strings, normalize=True)
    assert np.abs(vectors(unit)[:-1] - (plain / lengths)[:-1]).max() < 1e-6
    int8 = encode(stub, strings, normalize=True, element_type=pb.ELEMENT_TYPE_INT8)
    scales = np.frombuffer(int8.scales, "<f4")
    integers = np.frombuffer(int8.embeddings, np.int8).reshape(int8.shape)
    assert np.isnan(scales).tolist() == [False] * 40 + [True]
    assert (np.abs(integers[:40] * scales[:40, None] - vectors(unit)[:40]) <= 0.5001 * scales[:40, None]).all()
    for options in ({"priority": 9}, {"element_type": 9}, {"output": 9}):
        with pytest.raises(grpc.RpcError) as caught:
            encode(stub, ["CCO"], **options)
        assert status(caught.value)[0] is grpc.StatusCode.INVALID_ARGUMENT
    for priority in (pb.PRIORITY_HIGH, pb.PRIORITY_LOW):
        assert np.abs(vectors(encode(stub, ["CCO"], priority=priority)) - vectors(encode(stub, ["CCO"]))).max() < 1e-5


def test_what_is_packed_is_bounded_by_what_it_unpacks_to(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        packed = EncoderServiceStub(channel)
        gzip, most = grpc.Compression.Gzip, 16
        small = pb.EncodeRequest(encoder="smiles", sequences=[b"CCO"])
        assert packed.Encode(small, compression=gzip, timeout=PATIENCE_SECONDS).lengths == [3]
        bomb = pb.EncodeRequest(encoder="smiles", sequences=[b"C" * (4 * most << 20)])
        before = server.metric("process_resident_memory_bytes")
        with pytest.raises(grpc.RpcError) as caught:
            packed.Encode(bomb, compression=gzip, timeout=PATIENCE_SECONDS)
        assert status(caught.value)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert server.metric("process_resident_memory_bytes") < before + (2 * most << 20)
