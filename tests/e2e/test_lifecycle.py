import json
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.e2e.molecules import chains
from tests.e2e.server_process import (
    MODELS,
    PATIENCE_SECONDS,
    SMILES,
    SMILES_ALONE,
    ServerProcess,
    failure,
    running,
    start,
    until,
)

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


def health(server: ServerProcess, service: str) -> int:
    with grpc.insecure_channel(server.address) as channel:
        return int(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service)).status)


def code_of(error: grpc.RpcError) -> grpc.StatusCode:
    assert isinstance(error, grpc.Call)
    code: grpc.StatusCode = error.code()
    return code


def large_replies(address: str) -> grpc.Channel:
    """A channel that takes replies of any size."""
    return grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])


@pytest.mark.parametrize("service", ["", "liveness", "birnn.v1.EncoderService", "inference.GRPCInferenceService"])
def test_a_healthy_server_says_so_to_grpc_probes(server: ServerProcess, service: str) -> None:
    assert health(server, service) == SERVING


def test_a_healthy_server_says_so_over_http(server: ServerProcess) -> None:
    assert server.get("/healthz") == (200, "ok\n")
    assert server.get("/readyz") == (200, "ok\n")
    assert server.get("/")[0] == 404


def test_reflection_lists_both_services(server: ServerProcess) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(server.address) as channel:
        (reply,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
    names = {service.name for service in reply.list_services_response.service}
    assert {"birnn.v1.EncoderService", "inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names


def test_sigterm_lets_calls_in_flight_finish_refuses_new_ones_and_exits_cleanly() -> None:
    with running(SMILES_ALONE, "--drain-seconds", "600") as server, large_replies(server.address) as channel:
        stub = EncoderServiceStub(channel)
        slow = stub.Encode.future(pb.EncodeRequest(encoder="smiles", sequences=chains(1_500, 200)))
        until(lambda: server.metric("birnn_batch_sequences_count", encoder="smiles"))
        server.terminate()
        until(lambda: server.get("/readyz")[0] == 503)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Encode(pb.EncodeRequest(encoder="smiles", sequences=[b"C"]))
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert len(slow.result(timeout=PATIENCE_SECONDS).embeddings) == 1_500 * SMILES.dimension * 4
        assert server.ended() == 0


@pytest.mark.parametrize("front_ends", [0, 2])
def test_callers_who_go_on_calling_through_a_shutdown_hear_unavailable_and_nothing_else(front_ends: int) -> None:
    codes: Counter[grpc.StatusCode] = Counter()
    answered = threading.Semaphore(0)

    def call_on(address: str) -> None:
        refusals = 0
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = EncoderServiceStub(channel)
            while refusals < 12:
                try:
                    stub.Encode(pb.EncodeRequest(encoder="smiles", sequences=[b"CCO", b"CC"] * 8))
                    answered.release()
                except grpc.RpcError as error:
                    codes[code_of(error)] += 1
                    refusals += 1
                    time.sleep(0.05)

    with running(SMILES_ALONE, "--frontends", str(front_ends)) as server:
        callers = [threading.Thread(target=call_on, args=(server.address,)) for _ in range(32)]
        for caller in callers:
            caller.start()
        for _ in range(3 * len(callers)):
            answered.acquire()
        server.terminate()
        assert server.ended() == 0
        for caller in callers:
            caller.join()
    assert codes == {grpc.StatusCode.UNAVAILABLE: 12 * len(callers)}


def test_callers_who_know_another_server_lose_no_call_to_a_shutdown_although_they_repeat_none() -> None:
    """With the native front end; grpcio's server refuses what comes before its clients know."""
    policy = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
    failures: list[str] = []
    over = threading.Event()

    def call_on(target: str) -> None:
        options = [("grpc.service_config", policy), ("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(target, options=options) as channel:
            stub = EncoderServiceStub(channel)
            while not over.is_set():
                try:
                    stub.Encode(pb.EncodeRequest(encoder="smiles", sequences=[b"CCO", b"CC"]))
                except grpc.RpcError as error:
                    failures.append(f"{code_of(error)}: {error.details()}")

    native = ("--transport", "native")
    with running(SMILES_ALONE, *native) as ending, running(SMILES_ALONE, *native) as staying:
        target = f"ipv4:{ending.address},{staying.address}"
        callers = [threading.Thread(target=call_on, args=(target,)) for _ in range(16)]
        for caller in callers:
            caller.start()
        until(lambda: all(one.metric("birnn_requests_total", code="OK") > 100 for one in (ending, staying)))
        ending.terminate()
        assert ending.ended() == 0
        before = staying.metric("birnn_requests_total", code="OK")
        until(lambda: staying.metric("birnn_requests_total", code="OK") > before + 100)
        over.set()
        for caller in callers:
            caller.join()
    assert failures == []


def test_calls_that_outlast_the_drain_are_cut_off_and_the_server_still_exits() -> None:
    with running(SMILES_ALONE, "--drain-seconds", "0.2") as server, grpc.insecure_channel(server.address) as channel:
        stub = EncoderServiceStub(channel)
        slow = stub.Encode.future(pb.EncodeRequest(encoder="smiles", sequences=chains(16_000, 250)))
        until(lambda: server.metric("birnn_batch_sequences_count", encoder="smiles"))
        server.terminate()
        assert server.ended() == 0
        assert slow.code() is not grpc.StatusCode.OK


@contextmanager
def started() -> Iterator[ServerProcess]:
    """A server that has begun to load its encoders, and has several to go."""
    server = ServerProcess(start(MODELS))
    reader = threading.Thread(target=server.read_log)
    reader.start()
    try:
        until(lambda: server.logged("encoder smiles/1"))
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        reader.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_encoders_are_loaded_ends_the_server_before_it_serves(number: signal.Signals) -> None:
    with started() as server:
        server.process.send_signal(number)
        assert server.ended() == 0
        assert not server.logged("serving")
        assert not server.logged("Traceback")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_drain_that_would_take_long(number: signal.Signals) -> None:
    with running(SMILES_ALONE, "--linger-seconds", "3600") as server:
        server.process.send_signal(number)
        until(lambda: server.logged("draining"))
        server.process.send_signal(number)
        assert server.ended() == -number
    assert not server.logged("Traceback")


def test_an_idle_encoder_keeps_proving_itself() -> None:
    with running(SMILES_ALONE, "--health-seconds", "0.2") as server:
        until(lambda: server.metric("birnn_health_probes_total", encoder="smiles", outcome="passed") >= 3)
        assert server.metric("birnn_queue_seconds_count", encoder="smiles") == 0
        assert health(server, "") == SERVING


def test_a_cancelled_call_leaves_the_queue(server: ServerProcess, stub: EncoderServiceStub) -> None:
    call = stub.Encode.future(pb.EncodeRequest(encoder="smiles", sequences=chains(16_000, 200)))
    until(lambda: server.metric("birnn_queue_sequences", encoder="smiles"))
    call.cancel()
    until(lambda: not server.metric("birnn_queue_sequences", encoder="smiles"))


def test_under_overload_calls_are_refused_with_a_time_to_retry() -> None:
    with (
        running(SMILES_ALONE, "--max-backlog-seconds", "0.2") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        stub = EncoderServiceStub(channel)
        sequences = chains(16_000, 200)
        accepted = stub.Encode.future(pb.EncodeRequest(encoder="smiles", sequences=sequences[:12_000]))
        until(lambda: server.metric("birnn_queue_sequences", encoder="smiles"))
        with pytest.raises(grpc.RpcError) as caught:
            stub.Encode(pb.EncodeRequest(encoder="smiles", sequences=sequences[12_000:]))
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers = {item.key: item.value for item in caught.value.trailing_metadata() or ()}
        assert b"google.rpc.RetryInfo" in trailers["grpc-status-details-bin"]
        assert int(trailers["grpc-retry-pushback-ms"]) > 0
        accepted.cancel()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder of two encoders, one to be broken; of one version each, or the other would stand in for it."""
    for one in ("smiles/2", "text/1"):
        shutil.copytree(MODELS / one, tmp_path / "models" / one)
    return tmp_path / "models"


def tamper(models: Path) -> None:
    weights = models / "text" / "1" / "weights.bin"
    raw = bytearray(weights.read_bytes())
    raw[1000] ^= 1
    weights.write_bytes(raw)


def truncate(models: Path) -> None:
    weights = models / "text" / "1" / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-100])


def lose(models: Path) -> None:
    (models / "text" / "1" / "tokens.onnx").unlink()


def add_key(models: Path) -> None:
    manifest = models / "text" / "1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name"', '"nmae"', 1))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (tamper, "weights.bin was changed"),
        (truncate, "weights.bin was changed or cut short"),
        (lose, "tokens.onnx is missing"),
        (add_key, "nmae: Extra inputs are not permitted"),
    ],
)
def test_a_damaged_bundle_is_refused_by_name_and_its_neighbors_are_served(
    models: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(models)
    with running(models) as server, grpc.insecure_channel(server.address) as channel:
        stub = EncoderServiceStub(channel)
        assert (
            len(stub.Encode(pb.EncodeRequest(encoder="smiles", sequences=[b"CCO"])).embeddings) == SMILES.dimension * 4
        )
        with pytest.raises(grpc.RpcError) as caught:
            stub.Encode(pb.EncodeRequest(encoder="text", sequences=[b"hello"]))
        assert isinstance(caught.value, grpc.Call)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert words in (caught.value.details() or "")
        # Clients with a retry policy would else wait for what cannot come.
        assert ("grpc-retry-pushback-ms", "-1") in (caught.value.trailing_metadata() or ())
        assert words in "".join(server.log)
        assert server.metric("birnn_encoder_ready", encoder="text") == 0
        assert server.get("/healthz")[0] == 200
        assert server.get("/readyz")[0] == 503
        assert health(server, "") == NOT_SERVING
        listed = {encoder.name: encoder.ready for encoder in stub.ListEncoders(pb.ListEncodersRequest()).encoders}
        assert listed == {"smiles": True, "text": False}


@pytest.mark.parametrize("flag", ["--grpc-port", "--metrics-port"])
def test_a_busy_port_is_an_error_that_names_the_flag(flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        log = failure(MODELS, flag, str(taken.getsockname()[1]))
    assert "cannot listen" in log
    assert flag in log
    assert "encoder" not in log, "it was found only after encoders were loaded"


def test_two_servers_never_share_a_port(server: ServerProcess) -> None:
    assert "cannot listen" in failure(MODELS, "--grpc-port", server.address.rpartition(":")[2])
    assert "cannot listen" in failure(MODELS, "--metrics-port", server.http.rpartition(":")[2])


def test_what_is_missing_or_misspelt_stops_the_start(tmp_path: Path) -> None:
    assert "does not exist" in failure(tmp_path / "nowhere")
    assert "no encoder in" in failure(tmp_path)
    assert "it is the folder of one encoder's versions" in failure(MODELS / "smiles")
    assert "BIRNN_GRPCPORT (did you mean BIRNN_GRPC_PORT?)" in failure(MODELS, env={"BIRNN_GRPCPORT": "1"})
    assert failure(MODELS, "--grpc-port", "99999") == (
        "Error: --grpc-port (BIRNN_GRPC_PORT, TOML `grpc_port`): '99999' should be less than or equal to 65535\n"
    )
    config = tmp_path / "birnn.toml"
    config.write_text("modles = 'x'\n")
    assert "modles (did you mean models?)" in failure(MODELS, "--config", str(config))


def test_cuda_that_does_not_work_is_an_error_and_never_a_silent_cpu() -> None:
    from birnn_bundle.onnxruntime import ort

    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this machine's onnxruntime has CUDA")
    log = failure(MODELS, "--device", "cuda")
    assert "no CUDA in this onnxruntime" in log
    assert "birnn-serving[service,gpu]" in log


def test_many_clients_at_once_are_all_answered(server: ServerProcess) -> None:
    answers: list[int] = []

    def client() -> None:
        with grpc.insecure_channel(server.address) as channel:
            stub = EncoderServiceStub(channel)
            for _ in range(20):
                reply = stub.Encode(pb.EncodeRequest(encoder="smiles", sequences=[b"CCO", b"CC"]))
                answers.append(len(reply.embeddings))

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [2 * SMILES.dimension * 4] * 160
