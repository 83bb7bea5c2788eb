"""grpc.health.v1.Health, as the state of the server says."""

from collections.abc import AsyncIterator, Collection, Sequence

from grpc_health.v1 import health_pb2 as pb

from birnn_bundle.quoting import shown
from birnn_service.call import Feed, Method
from birnn_service.errors import DrainingError, UnknownServiceError
from birnn_service.protocols.protobuf import feed, simple
from birnn_service.state import ServingState

SERVICE = pb.DESCRIPTOR.services_by_name["Health"].full_name
# Health of the process, for liveness probes; readiness is the health of "" and of the services by name.
LIVENESS = "liveness"
Status = pb.HealthCheckResponse


class HealthProtocol:
    """Tells probes, load balancers and clients whether to call; they need no token."""

    def __init__(self, state: ServingState, services: Collection[str]) -> None:
        """Answer for the whole server, its process (`liveness`) and `services`, by their full names."""
        self._state = state
        self._services = {"", *services}

    def methods(self) -> Sequence[Method | Feed]:
        """All methods of the service."""
        return [
            simple("Check", pb.HealthCheckRequest, self._check, right=None),
            feed("Watch", pb.HealthCheckRequest, self._watch, right=None),
        ]

    def _check(self, request: pb.HealthCheckRequest) -> pb.HealthCheckResponse:
        status = self._status(request.service)
        if status == Status.SERVICE_UNKNOWN:
            known = ", ".join(sorted({LIVENESS, *self._services} - {""}))
            raise UnknownServiceError(f"no service {shown(request.service)}; ask for {known} or nothing")
        return pb.HealthCheckResponse(status=status)

    async def _watch(self, request: pb.HealthCheckRequest) -> AsyncIterator[pb.HealthCheckResponse]:
        told = None
        while not self._state.closed:
            change = self._state.next_change
            status = self._status(request.service)
            if status != told:
                told = status
                yield pb.HealthCheckResponse(status=status)
            await change.wait()
        raise DrainingError("the server is shutting down; watch another one")

    def _status(self, service: str) -> pb.HealthCheckResponse.ServingStatus.ValueType:
        if service == LIVENESS:
            good = self._state.live
        elif service in self._services:
            good = self._state.ready
        else:
            return Status.SERVICE_UNKNOWN
        return Status.SERVING if good else Status.NOT_SERVING
