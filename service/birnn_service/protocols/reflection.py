"""grpc.reflection.v1alpha.ServerReflection: lets tools such as grpcurl find out what can be called."""

from collections.abc import AsyncIterator, Collection, Sequence

from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha._async import ReflectionServicer

from birnn_service.call import Call, Exchange, Method
from birnn_service.conversation import parsed
from birnn_service.errors import ServiceError
from birnn_service.protocols.protobuf import read_message

SERVICE: str = reflection.SERVICE_NAME
NAME = "ServerReflectionInfo"


class ReflectionProtocol:
    """Describes services, as the library does."""

    def __init__(self, services: Collection[str]) -> None:
        """Describe `services`, by their full names."""
        self._servicer = ReflectionServicer((*services, SERVICE))

    def methods(self) -> Sequence[Exchange]:
        """All methods of the service."""
        return [
            Exchange(
                NAME,
                lambda message: (None, read_message(NAME, reflection_pb2.ServerReflectionRequest, message)),
                Method(NAME, parsed, self._answer),
                _failed,
                ordered=True,
            )
        ]

    async def _answer(self, request: reflection_pb2.ServerReflectionRequest, call: Call) -> bytes:
        async def one() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
            yield request

        async for reply in self._servicer.ServerReflectionInfo(one(), None):
            return bytes(reply.SerializeToString())
        raise AssertionError("every request has a reply")


def _failed(_: None, error: ServiceError) -> bytes:
    response = reflection_pb2.ServerReflectionResponse()
    response.error_response.error_code = error.code
    response.error_response.error_message = error.message
    return bytes(response.SerializeToString())
