"""An encoder of float features: exported, served, and asked over both protocols."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

import birnn
from birnn.openinference import inference_pb2 as inference
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.e2e.server_process import ServerProcess, running
from tests.export.checkpoints.test_features import F, H, exported, own_vectors, recurrence, sequences


@pytest.fixture(scope="module", params=[(), ("--frontends", "1")], ids=["one process", "front-end"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("features")
    exported(folder)
    with running(folder / "models", *request.param) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[birnn.Client]:
    with birnn.Client(server.address, batch_size=3) as client:
        yield client


def test_served_vectors_of_features_are_those_of_the_module(client: birnn.Client) -> None:
    final, tokens = own_vectors(recurrence(), sequences())
    assert np.abs(client.encode_features(sequences(), "signals") - final).max() < 1e-6
    assert np.abs(client.encode_features(sequences()[2], "signals") - final[2]).max() < 1e-6
    assert np.abs(np.concatenate(client.encode_feature_tokens(sequences(), "signals")) - tokens).max() < 1e-6
    parts = client.stream_features(sequences(), "signals")
    assert np.abs(np.concatenate([part.vectors for part in parts]) - final).max() < 1e-6


async def test_the_client_for_asyncio_does_the_same(server: ServerProcess) -> None:
    final, tokens = own_vectors(recurrence(), sequences())
    async with birnn.AsyncClient(server.address) as client:
        assert np.abs(await client.encode_features(sequences(), "signals") - final).max() < 1e-6
        assert np.abs(np.concatenate(await client.encode_feature_tokens(sequences(), "signals")) - tokens).max() < 1e-6


def test_the_list_says_how_many_features_it_reads(client: birnn.Client) -> None:
    info = client.encoder("signals")
    assert (info.features, info.tokenizer, info.dimension) == (F, "none", 2 * H)
    assert client.encode_features([], "signals").shape == (0, 2 * H)


def test_bad_sequences_fail_alone(client: birnn.Client) -> None:
    sent = sequences()
    sent[1] = np.full((2, F), np.nan, dtype=np.float32)
    sent[3] = np.zeros((21, F), dtype=np.float32)
    found = client.encode_features(sent, "signals", on_error="nan")
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False, True]
    with pytest.raises(birnn.SequenceError) as raised:
        client.encode_features(sent, "signals")
    codes = [(error.index, error.code) for error in raised.value.errors]
    assert codes == [(1, birnn.ItemErrorCode.NOT_FINITE), (3, birnn.ItemErrorCode.TOO_LONG)]
    cut = client.encode_features([sent[3]], "signals", truncate=True)
    assert np.abs(cut - client.encode_features([sent[3][:20]], "signals")).max() < 1e-6


def test_requests_of_the_wrong_kind_are_refused_with_what_to_send(client: birnn.Client, server: ServerProcess) -> None:
    with pytest.raises(birnn.InvalidRequestError, match="reads 6 float features a step; send features and lengths"):
        client.encode(["CCO"], "signals")
    with pytest.raises(birnn.InvalidRequestError, match="have 7 features a step and this encoder reads 6"):
        client.encode_features([np.zeros((2, 7))], "signals")
    with grpc.insecure_channel(server.address) as channel:
        both = pb.EncodeRequest(encoder="signals", sequences=[b"C"], lengths=[1], features=bytes(24))
        with pytest.raises(grpc.RpcError, match="holds strings and features"):
            EncoderServiceStub(channel).Encode(both)


def test_the_open_inference_protocol_carries_features_and_lengths(server: ServerProcess) -> None:
    final, _ = own_vectors(recurrence(), sequences())
    lengths = np.array([len(row) for row in sequences()], dtype="<i4")
    tensor = inference.ModelInferRequest.InferInputTensor
    request = inference.ModelInferRequest(
        model_name="signals",
        inputs=[
            tensor(name="features", datatype="FP32", shape=[int(lengths.sum()), F]),
            tensor(name="lengths", datatype="INT32", shape=[len(lengths)]),
        ],
        raw_input_contents=[np.concatenate(sequences()).tobytes(), lengths.tobytes()],
    )
    with grpc.insecure_channel(server.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        metadata = stub.ModelMetadata(inference.ModelMetadataRequest(name="signals"))
        assert [(one.name, one.datatype, list(one.shape)) for one in metadata.inputs] == [
            ("features", "FP32", [-1, F]),
            ("lengths", "INT32", [-1]),
        ]
        config = stub.ModelConfig(inference.ModelConfigRequest(name="signals")).config
        assert (config.max_batch_size, list(config.input[0].dims), list(config.output[0].dims)) == (
            0,
            [-1, F],
            [-1, 2 * H],
        )
        reply = stub.ModelInfer(request)
    found = np.frombuffer(reply.raw_output_contents[0], dtype="<f4").reshape(reply.outputs[0].shape)
    assert np.abs(found - final).max() < 1e-6
