import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from birnn.openinference import inference_pb2 as pb
from birnn_service.endpoint import CALL_BYTES, REQUEST_COST, GuardedServer
from birnn_service.metrics import Metrics
from birnn_service.settings import Settings, load_settings
from birnn_service.transports.arrivals import MOST_FRESH, Arrivals

GIB = 1 << 30


@asynccontextmanager
async def guarded(
    method: str, handler: Callable[[Any, Any], Awaitable[Any]], metrics: Metrics, settings: Settings | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of one service, `test`, with one method."""
    server = grpc.aio.server()
    registered = grpc.unary_unary_rpc_method_handler(
        handler, pb.ModelInferRequest.FromString, pb.ServerLiveResponse.SerializeToString
    )
    GuardedServer(server, settings or load_settings({}), metrics).add_registered_method_handlers(
        "test", {method: registered}
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


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
        async with guarded(method, fails, metrics) as channel:
            return await failure(channel.unary_unary(f"/test/{method}")(b""))

    with caplog.at_level(logging.INFO):
        code, details = asyncio.run(run())
    assert code is grpc.StatusCode.INTERNAL
    assert details == f"the server failed unexpectedly ({type(error).__name__}); its log says more"
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    labels = {"encoder": "", "method": method}
    assert metrics.registry.get_sample_value("birnn_unexpected_errors_total", labels) == 1


def test_a_call_holds_memory_by_what_was_sent_until_its_end() -> None:
    async def holds(request: Any, call: Any) -> Any:
        assert call.caller == "ipv4:127.0.0.1"
        return pb.ServerLiveResponse(live=call.memory.size == CALL_BYTES + REQUEST_COST * request.ByteSize())

    async def run() -> None:
        async with guarded("ModelInfer", holds, Metrics(), load_settings({"memory_mib": 256})) as channel:
            call = channel.unary_unary("/test/ModelInfer", response_deserializer=pb.ServerLiveResponse.FromString)
            request = pb.ModelInferRequest(id="x" * (1 << 20)).SerializeToString()
            # Each takes 24 of 128 MiB: without an end to them there would be no room for so many.
            for _ in range(12):
                assert (await call(request)).live

    asyncio.run(run())


@asynccontextmanager
async def reading(arrivals: Arrivals) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server that sends back what `arrivals` reads."""
    server = grpc.aio.server()

    async def read(_: object, context: grpc.aio.ServicerContext) -> bytes:
        return await arrivals.read(context, "caller")

    server.add_registered_method_handlers("test", {"Read": grpc.stream_unary_rpc_method_handler(read)})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


async def open_and_send_nothing(arrivals: Arrivals) -> grpc.aio.AioRpcError:
    """What becomes of a call whose request never comes."""
    async with reading(arrivals) as channel:
        assert await channel.unary_unary("/test/Read")(b"whole") == b"whole"
        call = channel.stream_unary("/test/Read")()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(call, 30)
        assert await channel.unary_unary("/test/Read")(b"whole") == b"whole"
        return caught.value


def test_requests_that_do_not_come_keep_no_others_waiting() -> None:
    async def run() -> list[bytes]:
        async with reading(Arrivals(GIB, 600, lambda: 0)) as channel:
            silent = [channel.stream_unary("/test/Read")() for _ in range(3 * MOST_FRESH)]
            calls = [channel.unary_unary("/test/Read")(b"%d" % number) for number in range(3 * MOST_FRESH)]
            replies = await asyncio.wait_for(asyncio.gather(*calls), 30)
            assert not any(call.done() for call in silent)
            # Callers who give up while they wait leave their places to others.
            for call in silent:
                call.cancel()
            assert await asyncio.wait_for(channel.unary_unary("/test/Read")(b"last"), 30) == b"last"
            return list(replies)

    assert asyncio.run(run()) == [b"%d" % number for number in range(3 * MOST_FRESH)]


def test_a_request_that_is_slow_to_arrive_is_refused_where_memory_is_short() -> None:
    error = asyncio.run(open_and_send_nothing(Arrivals(GIB, 600, lambda: GIB)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "more than 65% of the 1024 MiB that it may (--memory-mib)" in (error.details() or "")
    assert "grpc-retry-pushback-ms" in dict(error.trailing_metadata())


def test_a_request_that_does_not_arrive_in_time_is_refused() -> None:
    error = asyncio.run(open_and_send_nothing(Arrivals(GIB, 0.2, lambda: 0)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "did not arrive within 0.2 s" in (error.details() or "")
