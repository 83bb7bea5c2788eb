"""What every caller relies on, over each gRPC transport; BIRNN_TRANSPORT=grpcio runs all others over grpcio."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_native.front import load_front
from birnn_native.library import NativeUnavailableError
from birnn_service.settings_reader import load_settings
from birnn_service.transports.grpc_transport import takes_native
from tests.e2e.molecules import molecules
from tests.e2e.server_process import MODELS, PATIENCE_SECONDS, ServerProcess, failure, running

try:
    load_front()
    MISSING = ""
except NativeUnavailableError as error:
    MISSING = str(error)
NATIVE = pytest.param("native", marks=pytest.mark.skipif(bool(MISSING), reason=MISSING))


@pytest.fixture(scope="module", params=["grpcio", NATIVE])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with running(MODELS, "--transport", request.param, "--max-message-mib", "1") as server:
        assert server.logged("the native front end" if request.param == "native" else "gRPC calls are taken by grpcio")
        yield server


@pytest.fixture
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield channel


def request(count: int) -> pb.EncodeRequest:
    return pb.EncodeRequest(encoder="smiles-small", sequences=[text.encode() for text in molecules(count)])


def test_calls_and_streams_give_the_same_vectors(channel: grpc.Channel) -> None:
    stub = EncoderServiceStub(channel)
    whole = stub.Encode(request(300), timeout=PATIENCE_SECONDS)
    rows = np.frombuffer(whole.embeddings, np.float32).reshape(whole.shape)
    asked = request(300).sequences
    requests = (
        pb.EncodeStreamRequest(id=number, encode=pb.EncodeRequest(encoder="smiles-small", sequences=[sequence]))
        for number, sequence in enumerate(asked)
    )
    seen = set()
    for reply in stub.EncodeStream(requests, timeout=PATIENCE_SECONDS):
        row = np.frombuffer(reply.response.embeddings, np.float32)
        np.testing.assert_allclose(row, rows[reply.id], atol=1e-5)
        seen.add(reply.id)
    assert seen == set(range(300))


def test_large_replies_come_whole(channel: grpc.Channel) -> None:
    sequences = [b"C" * 500] * 40
    asked = pb.EncodeRequest(encoder="smiles-small", sequences=sequences, output=pb.OUTPUT_TOKENS)
    reply = EncoderServiceStub(channel).Encode(asked, timeout=PATIENCE_SECONDS)
    rows = np.frombuffer(reply.embeddings, np.float32).reshape(reply.shape)
    assert len(rows) == 40 * 500
    np.testing.assert_allclose(rows[:500], rows[-500:], atol=1e-5)


def test_a_message_beyond_the_limit_is_refused(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        EncoderServiceStub(channel).Encode(pb.EncodeRequest(sequences=[bytes(1 << 20)]), timeout=PATIENCE_SECONDS)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "SERVER: Received message larger than max (1048580 vs. 1048576)" in (caught.value.details() or "")


def test_errors_and_unknown_methods_have_their_codes(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        EncoderServiceStub(channel).Encode(pb.EncodeRequest(encoder="é"), timeout=PATIENCE_SECONDS)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/birnn.v1.EncoderService/Nothing")(b"", timeout=PATIENCE_SECONDS)
    assert isinstance(caught.value, grpc.Call)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


def test_watches_of_health_last_until_they_are_cancelled(server: ServerProcess, channel: grpc.Channel) -> None:
    watch = HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    assert HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_front_ends_share_a_port_over_the_native_transport() -> None:
    with running(MODELS, "--transport", "native", "--frontends", "2") as server:
        for _ in range(8):
            with grpc.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                assert len(EncoderServiceStub(channel).Encode(request(3), timeout=PATIENCE_SECONDS).lengths) == 3


def test_the_native_transport_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    certificate = tmp_path / "certificate.pem"
    certificate.touch()
    flags = ("--transport", "native", "--tls-cert", str(certificate), "--tls-key", str(certificate))
    assert "--transport native has no TLS" in failure(MODELS, *flags)


def test_auto_takes_grpcio_where_tls_is_asked_for(tmp_path: Path) -> None:
    loaded = load_settings({"transport": "auto", "tls_cert": tmp_path / "a", "tls_key": tmp_path / "b"})
    assert takes_native(loaded)[0] is False


def test_servers_take_the_native_transport_by_default_where_it_was_built() -> None:
    assert takes_native(load_settings({}))[0] is not bool(MISSING)
