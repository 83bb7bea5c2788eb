"""The real server with several front-end processes keeps every promise that one process makes."""

import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray

from birnn.openinference import inference_pb2
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_service.frontends.arena import KEEP_BYTES
from tests.e2e.molecules import chains, molecules
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

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="front-ends need Linux")

FRONT_ENDS = 2
# However much work is to wait here, and however long it takes.
SEVERAL = ["--frontends", str(FRONT_ENDS), "--max-backlog-seconds", "1e6", "--drain-seconds", "600"]
# With so many connections it is certain enough (1 - 2 ** -15) that each of two front-ends has some.
CHANNELS = 16
# Of each call, so that all of them together take minutes; nobody waits for them.
ROWS = 4_000


@pytest.fixture(scope="module")
def several() -> Iterator[ServerProcess]:
    with running(MODELS, *SEVERAL) as server:
        yield server


@pytest.fixture
def stubs(several: ServerProcess) -> Iterator[list[EncoderServiceStub]]:
    with ExitStack() as stack:
        yield connect(several, stack)


def connect(server: ServerProcess, stack: ExitStack) -> list[EncoderServiceStub]:
    """Many connections, so that every front-end has some."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    channels = [grpc.insecure_channel(server.address, options=options) for _ in range(CHANNELS)]
    for channel in channels:
        stack.enter_context(channel)
        grpc.channel_ready_future(channel).result(timeout=PATIENCE_SECONDS)
    return [EncoderServiceStub(channel) for channel in channels]


def request(sequences: list[bytes], **options: object) -> pb.EncodeRequest:
    return pb.EncodeRequest(encoder="smiles", sequences=sequences, **options)  # type: ignore[arg-type]


def call_all(stubs: list[EncoderServiceStub], rows: int) -> list[grpc.Future]:
    """A call of so many rows, none like another, for each stub."""
    work = chains(rows * len(stubs), 200)
    return [stub.Encode.future(request(work[rows * number : rows * (number + 1)])) for number, stub in enumerate(stubs)]


def not_done(calls: list[grpc.Future]) -> int:
    return sum(not call.done() for call in calls)


def vectors(response: pb.EncodeResponse) -> NDArray[np.float32]:
    return np.frombuffer(response.embeddings, dtype="<f4").reshape(response.shape)


def code(call: object) -> grpc.StatusCode:
    assert isinstance(call, grpc.Call)
    found: grpc.StatusCode = call.code()
    return found


def children(server: ServerProcess) -> list[int]:
    """The front-end processes, as the system knows them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == server.process.pid and state != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def shared_bytes(process: int) -> int:
    """Memory that a front-end's arena takes."""
    arenas = [file for file in Path(f"/proc/{process}/fd").iterdir() if "birnn-arena" in os.readlink(file)]
    assert arenas
    return arenas[0].stat().st_blocks * 512


def test_lone_sequences_are_encoded_to_the_bit_as_by_one_process(
    stub: EncoderServiceStub, stubs: list[EncoderServiceStub]
) -> None:
    for number, string in enumerate(molecules(30)):
        for output in (pb.OUTPUT_POOLED, pb.OUTPUT_TOKENS):
            alone = stub.Encode(request([string.encode()], output=output))
            other = stubs[number % CHANNELS].Encode(request([string.encode()], output=output))
            assert other.embeddings == alone.embeddings
            assert (other.shape, other.lengths) == (alone.shape, alone.lengths)
            assert (other.encoder, other.version) == (alone.encoder, alone.version)


@pytest.mark.parametrize("output", [pb.OUTPUT_POOLED, pb.OUTPUT_TOKENS])
def test_a_whole_request_is_encoded_as_by_one_process_bad_items_included(
    stub: EncoderServiceStub, stubs: list[EncoderServiceStub], output: pb.Output.ValueType
) -> None:
    sequences = [b"", b"C\xff", b"C" * 9_000, b"C[Zz]C", *(string.encode() for string in molecules(300))]
    alone, other = (each.Encode(request(sequences, output=output)) for each in (stub, stubs[0]))
    assert np.allclose(vectors(other), vectors(alone), atol=1e-5, equal_nan=True)
    assert other.errors == alone.errors
    assert len(other.errors) == 3
    assert other.notices == alone.notices
    assert other.timings.compute > 0
    assert other.engine == alone.engine


def test_what_is_served_is_described_as_by_one_process(
    server: ServerProcess, stub: EncoderServiceStub, several: ServerProcess, stubs: list[EncoderServiceStub]
) -> None:
    listing = pb.ListEncodersRequest()
    assert stubs[0].ListEncoders(listing) == stub.ListEncoders(listing)
    descriptions = []
    for each in (server, several):
        with grpc.insecure_channel(each.address) as channel:
            inference = GRPCInferenceServiceStub(channel)
            assert inference.ServerReady(inference_pb2.ServerReadyRequest()).ready
            descriptions.append(
                (
                    inference.ModelMetadata(inference_pb2.ModelMetadataRequest(name="smiles")),
                    inference.ModelConfig(inference_pb2.ModelConfigRequest(name="text")),
                )
            )
    assert descriptions[0] == descriptions[1]


def test_many_callers_at_once_get_their_own(stubs: list[EncoderServiceStub]) -> None:
    strings = [string.encode() for string in molecules(480)]
    together = vectors(stubs[0].Encode(request(strings)))
    calls = [
        stubs[start // 3 % CHANNELS].Encode.future(request(strings[start : start + 3])) for start in range(0, 480, 3)
    ]
    assert (
        np.abs(np.concatenate([vectors(call.result(timeout=PATIENCE_SECONDS)) for call in calls]) - together).max()
        < 1e-5
    )


def test_the_largest_request_comes_back_in_order_and_its_memory_goes_back(
    several: ServerProcess, stubs: list[EncoderServiceStub]
) -> None:
    few = [string.encode() for string in molecules(128)]
    expected = vectors(stubs[0].Encode(request(few)))
    response = stubs[0].Encode(request(few * 128))
    assert response.shape == [16_384, SMILES.dimension]
    assert np.abs(vectors(response).reshape(128, 128, SMILES.dimension) - expected).max() < 1e-5
    tokens = stubs[0].Encode(request(few * 16, output=pb.OUTPUT_TOKENS))
    assert len(tokens.embeddings) > KEEP_BYTES
    assert sum(map(shared_bytes, children(several))) <= FRONT_ENDS * KEEP_BYTES


def test_a_request_that_cannot_be_done_in_time_is_refused_before_it_is_computed(
    several: ServerProcess, stubs: list[EncoderServiceStub]
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stubs[0].Encode(request(chains(16_000, 250)), timeout=3)
    assert code(caught.value) is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: several.metric("birnn_queue_sequences", encoder="smiles") == 0)


def test_a_cancelled_call_leaves_the_queue(several: ServerProcess, stubs: list[EncoderServiceStub]) -> None:
    call = stubs[0].Encode.future(request(chains(16_000, 200)))
    until(lambda: several.metric("birnn_queue_sequences", encoder="smiles"))
    call.cancel()
    until(lambda: several.metric("birnn_queue_sequences", encoder="smiles") == 0)


def test_metrics_of_all_processes_add_up(several: ServerProcess, stubs: list[EncoderServiceStub]) -> None:
    # Nobody else calls this encoder: what counts so far has reported is certain.
    name = "smiles-small"
    names = {
        "birnn_requests_total": 2 * CHANNELS,
        "birnn_request_seconds_count": 2 * CHANNELS,
        "birnn_tokenize_seconds_count": 2 * CHANNELS,
        "birnn_queue_seconds_count": 2 * CHANNELS,
        "birnn_sequence_length_count": 4 * CHANNELS,
        "birnn_sequence_length_sum": 2 * CHANNELS * (2 + 3),
        "birnn_unknown_tokens_total": 2 * CHANNELS,
    }

    def counted() -> dict[str, float]:
        return {series: several.metric(series, encoder=name) for series in names}

    assert set(counted().values()) == {0}
    for stub in stubs * 2:
        stub.Encode(pb.EncodeRequest(encoder=name, sequences=[b"CC", b"C[Zz]C", b""]))
    until(lambda: counted() == names)
    assert several.metric("birnn_sequence_errors_total", encoder=name, code="EMPTY") == 2 * CHANNELS
    assert several.metric("birnn_frontends") == FRONT_ENDS
    assert several.metric("birnn_encoder_ready") == len(list(MODELS.glob("*/*/manifest.json")))
    assert several.metric("birnn_encoder_info", encoder="smiles", version="2", device="cpu") == 1


def test_two_servers_never_share_a_port(server: ServerProcess, several: ServerProcess) -> None:
    theirs, shared = (each.address.rpartition(":")[2] for each in (server, several))
    for arguments in (["--frontends", "1", "--grpc-port", shared], ["--grpc-port", shared]):
        assert "cannot listen" in failure(MODELS, *arguments)
    assert "cannot listen" in failure(MODELS, "--frontends", "1", "--grpc-port", theirs)


def test_a_killed_front_end_loses_its_calls_alone_and_comes_back(several: ServerProcess) -> None:
    with ExitStack() as stack:
        stubs = connect(several, stack)
        calls = call_all(stubs, ROWS)
        until(lambda: several.metric("birnn_queue_sequences", encoder="smiles") > ROWS * CHANNELS / 2)
        requests = several.metric("birnn_requests_total")
        victim, survivor = children(several)
        os.kill(victim, signal.SIGKILL)
        until(lambda: several.metric("birnn_frontend_restarts_total") == 1)
        until(lambda: any(call.done() for call in calls))
        # What the dead one had is no longer queued; what the other one has, is.
        until(lambda: several.metric("birnn_queue_sequences", encoder="smiles") <= ROWS * not_done(calls))
        assert several.metric("birnn_queue_sequences", encoder="smiles") > 0
        assert 0 < not_done(calls) < CHANNELS
        assert {code(call) for call in calls if call.done()} == {grpc.StatusCode.UNAVAILABLE}
        assert several.metric("birnn_requests_total") >= requests
        until(lambda: several.metric("birnn_frontends") == FRONT_ENDS)
        assert several.get("/readyz")[0] == 200
        assert survivor in children(several)
        # The memory of the dead one has gone with it.
        until(lambda: Path(f"/proc/{several.process.pid}/maps").read_text().count("birnn-arena") == FRONT_ENDS)
        for call in calls:
            call.cancel()
        until(lambda: several.metric("birnn_queue_sequences", encoder="smiles") == 0)
        again = connect(several, stack)
        for stub in again:
            stub.Encode(request([b"CCO"]))
        until(lambda: several.metric("birnn_requests_total") >= requests + CHANNELS)
    assert several.logged("killed by SIGKILL")


def test_sigterm_lets_calls_of_every_front_end_finish_and_leaves_nothing_behind() -> None:
    named = set(os.listdir("/dev/shm"))
    with running(SMILES_ALONE, *SEVERAL) as server, ExitStack() as stack:
        stubs = connect(server, stack)
        processes = children(server)
        assert len(processes) == 2
        calls = call_all(stubs, 50)
        # All of them have come in.
        until(lambda: server.metric("birnn_sequence_length_count", encoder="smiles") == 50 * CHANNELS)
        server.terminate()
        until(lambda: server.logged(": draining") == FRONT_ENDS)
        assert server.get("/readyz")[0] == 503
        refused = [stub.Encode.future(request([b"C"])) for stub in stubs]
        assert {code(call) for call in refused} == {grpc.StatusCode.UNAVAILABLE}
        found = [len(call.result(timeout=PATIENCE_SECONDS).embeddings) for call in calls]
        assert found == [50 * SMILES.dimension * 4] * CHANNELS
        assert server.ended() == 0
        assert all(map(is_gone, processes))
    assert set(os.listdir("/dev/shm")) <= named


def test_when_the_engine_process_is_killed_calls_fail_and_the_front_ends_end() -> None:
    named = set(os.listdir("/dev/shm"))
    with running(SMILES_ALONE, *SEVERAL) as server, ExitStack() as stack:
        stubs = connect(server, stack)
        processes = children(server)
        calls = call_all(stubs, ROWS)
        until(lambda: server.metric("birnn_queue_sequences", encoder="smiles") > ROWS * CHANNELS / 2)
        server.process.kill()
        assert {code(call) for call in calls} == {grpc.StatusCode.UNAVAILABLE}
        until(lambda: all(map(is_gone, processes)))
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            host, _, port = server.address.rpartition(":")
            free.bind((host, int(port)))
            free.listen()
    assert set(os.listdir("/dev/shm")) <= named


def test_under_overload_a_front_end_passes_the_refusal_on_and_one_that_hangs_is_replaced() -> None:
    arguments = ["--frontends", "1", "--max-backlog-seconds", "0.2", "--health-seconds", "0.5"]
    with running(SMILES_ALONE, *arguments) as server, grpc.insecure_channel(server.address) as channel:
        stub = EncoderServiceStub(channel)
        sequences = chains(16_000, 200)
        accepted = stub.Encode.future(request(sequences[:12_000]))
        until(lambda: server.metric("birnn_queue_sequences", encoder="smiles"))
        with pytest.raises(grpc.RpcError) as caught:
            stub.Encode(request(sequences[12_000:]))
        assert code(caught.value) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert isinstance(caught.value, grpc.Call)
        trailers = {item.key: item.value for item in caught.value.trailing_metadata() or ()}
        assert b"google.rpc.RetryInfo" in trailers["grpc-status-details-bin"]
        assert int(trailers["grpc-retry-pushback-ms"]) > 0

        (hung,) = children(server)
        os.kill(hung, signal.SIGSTOP)
        assert code(accepted) is grpc.StatusCode.UNAVAILABLE
        until(lambda: server.metric("birnn_queue_sequences", encoder="smiles") == 0)
        until(lambda: server.get("/readyz")[0] == 200)
        assert children(server) != [hung]
        reply = stub.Encode(request([b"CCO"]), wait_for_ready=True, timeout=PATIENCE_SECONDS)
        assert len(reply.embeddings) == SMILES.dimension * 4


def test_an_encoder_that_is_broken_is_so_for_the_callers_of_every_front_end(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for one in ("smiles/2", "text/1"):
        shutil.copytree(MODELS / one, models / one)
    weights = models / "text" / "1" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-100])
    with running(models, "--frontends", "1") as server, grpc.insecure_channel(server.address) as channel:
        stub = EncoderServiceStub(channel)
        assert len(stub.Encode(request([b"CCO"])).embeddings) == SMILES.dimension * 4
        with pytest.raises(grpc.RpcError) as caught:
            stub.Encode(pb.EncodeRequest(encoder="text", sequences=[b"hello"]))
        assert code(caught.value) is grpc.StatusCode.UNAVAILABLE
        listed = {encoder.name: encoder.ready for encoder in stub.ListEncoders(pb.ListEncodersRequest()).encoders}
        assert listed == {"smiles": True, "text": False}
        health = health_pb2_grpc.HealthStub(channel)
        found = {name: health.Check(health_pb2.HealthCheckRequest(service=name)).status for name in ("", "liveness")}
        assert found == {
            "": health_pb2.HealthCheckResponse.NOT_SERVING,
            "liveness": health_pb2.HealthCheckResponse.SERVING,
        }
        assert server.get("/readyz")[0] == 503
