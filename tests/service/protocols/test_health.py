import pytest
from grpc_health.v1 import health_pb2 as pb

from birnn_service.call import Feed
from birnn_service.errors import UnavailableError
from birnn_service.protocols.health import HealthProtocol
from birnn_service.state import ServingState


async def test_who_watches_hears_every_change_and_is_let_go_once_the_server_closes() -> None:
    state = ServingState()
    (watch,) = [method for method in HealthProtocol(state, ["a.Service"]).methods() if isinstance(method, Feed)]
    replies = watch.replies(pb.HealthCheckRequest(service="a.Service"))

    async def told() -> int:
        return int(pb.HealthCheckResponse.FromString(await anext(replies)).status)

    assert await told() == pb.HealthCheckResponse.NOT_SERVING
    state.start()
    assert await told() == pb.HealthCheckResponse.SERVING
    state.drain()
    assert await told() == pb.HealthCheckResponse.NOT_SERVING
    state.close()
    with pytest.raises(UnavailableError):
        await anext(replies)
