import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from birnn.openinference import inference_pb2 as pb
from birnn_bundle.bundle import Bundle
from birnn_service.access import Access
from birnn_service.call import Call, Method
from birnn_service.catalog import Encoders
from birnn_service.endpoint import CALL_BYTES, Endpoint
from birnn_service.engine.engine import EngineInfo
from birnn_service.errors import OverloadedError
from birnn_service.frontends.setup import RemoteEncoder
from birnn_service.memory_budget import REQUEST_COST
from birnn_service.observe.metrics import Metrics
from birnn_service.settings import Settings
from birnn_service.settings_reader import load_settings
from birnn_service.state import ServingState
from birnn_service.statistics import Statistics
from birnn_service.transports.grpc_server import GrpcServer

MODELS = Path(__file__).parents[2] / "models"


@asynccontextmanager
async def serving(
    name: str, answer: Callable[[Any, Call], Awaitable[Any]], metrics: Metrics, settings: Settings | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of one service, `test`, with one method: of an encoder if it is called ModelInfer."""
    settings = settings or load_settings({"grpc_port": 0})
    of_encoder = (lambda request: ("", "")) if name == "ModelInfer" else None
    endpoint = endpoint_of(settings, metrics)
    methods = [Method(name, pb.ModelInferRequest.FromString, answer, of_encoder)]
    server = GrpcServer(endpoint, {"test": methods}, settings.grpc_address, settings)
    port = await server.listen()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.close()


def endpoint_of(settings: Settings, metrics: Metrics | None = None, state: ServingState | None = None) -> Endpoint:
    """An endpoint that serves one encoder."""
    bundle = Bundle.load(MODELS / "smiles" / "1")
    info = EngineInfo("fake", "cpu", "float32", 1, 1, True)
    encoders = Encoders([RemoteEncoder(bundle.manifest, bundle.tokenizer, info)], {})
    if state is None:
        state = ServingState()
        state.start()
    return Endpoint(encoders, state, settings, metrics or Metrics(), Statistics(encoders), Access(settings))


class Piecewise:
    """A call whose request comes in pieces of a MiB, each after a pause."""

    caller = "ipv4:192.0.2.1"
    deadline = None
    request_id = ""
    certificate_name = ""
    traceparent = path = ""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces
        self.ended: list[Callable[[], None]] = []

    def header(self, name: str) -> str:
        return ""

    async def read(self, grow: Callable[[int], None]) -> bytes:
        for _ in range(self.pieces):
            await asyncio.sleep(0)
            grow(1 << 20)
        return b""

    def at_end(self, ended: Callable[[], None]) -> None:
        self.ended.append(ended)


async def failure(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady"])
@pytest.mark.parametrize("error", [MemoryError(), ValueError("of no concern to callers"), KeyError("secret")])
def test_a_fault_of_ours_is_internal_logged_once_and_counted(
    method: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()

    async def fails(request: Any, call: Any) -> Any:
        raise error

    async def run() -> tuple[grpc.StatusCode, str]:
        async with serving(method, fails, metrics) as channel:
            return await failure(channel.unary_unary(f"/test/{method}")(b""))

    with caplog.at_level(logging.INFO):
        code, details = asyncio.run(run())
    assert code is grpc.StatusCode.INTERNAL
    assert details == f"the server failed unexpectedly ({type(error).__name__}); its log says more"
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    encoder, version = ("smiles", "1") if method == "ModelInfer" else ("", "")
    labels = {"encoder": encoder, "version": version, "method": method}
    assert metrics.registry.get_sample_value("birnn_unexpected_errors_total", labels) == 1


def test_a_call_holds_memory_by_what_was_sent_until_its_end() -> None:
    async def holds(request: Any, call: Any) -> Any:
        assert call.caller == "ipv4:127.0.0.1"
        live = call.memory.size == CALL_BYTES + REQUEST_COST * request.ByteSize()
        return pb.ServerLiveResponse(live=live).SerializeToString()

    async def run() -> None:
        async with serving(
            "ModelInfer", holds, Metrics(), load_settings({"memory_mib": 256, "grpc_port": 0})
        ) as channel:
            call = channel.unary_unary("/test/ModelInfer", response_deserializer=pb.ServerLiveResponse.FromString)
            request = pb.ModelInferRequest(id="x" * (1 << 20)).SerializeToString()
            # Each takes 24 of 128 MiB: without an end to them there would be no room for so many.
            for _ in range(12):
                assert (await call(request)).live

    asyncio.run(run())


async def test_requests_that_arrive_in_pieces_are_counted_whatever_they_are_for() -> None:
    endpoint = endpoint_of(load_settings({"memory_mib": 256}))

    async def answer(request: Any, call: Any) -> bytes:
        return b"done"

    method = Method("RepositoryIndex", bytes, answer)
    # Of 128 MiB one caller gets three quarters.
    arriving = [endpoint.answer(method, Piecewise(15)) for _ in range(10)]
    outcomes = await asyncio.gather(*arriving, return_exceptions=True)
    assert any(isinstance(outcome, OverloadedError) for outcome in outcomes)
    # All of that is free again, and what has no body is answered in any case.
    assert await endpoint.answer(method, Piecewise(127)) == b"done"
    assert await endpoint.answer(method, Piecewise(0)) == b"done"


async def test_a_shutdown_waits_until_callers_have_their_answers() -> None:
    endpoint = endpoint_of(load_settings({}))

    async def answer(request: Any, call: Any) -> bytes:
        return b"done"

    calls = [Piecewise(1), Piecewise(2)]
    for call in calls:
        assert await endpoint.answer(Method("ModelInfer", bytes, answer, lambda request: ("", "")), call) == b"done"
    draining = asyncio.create_task(endpoint.drain())
    for call in calls:
        for _ in range(100):
            await asyncio.sleep(0)
        assert not draining.done()
        (ended,) = call.ended
        ended()
    await asyncio.wait_for(draining, 60)
