"""The full names of gRPC methods, as OpenTelemetry wants them."""

from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from birnn.openinference import inference_pb2
from birnn.v1 import encoder_pb2

FILES = (encoder_pb2, inference_pb2, health_pb2, reflection_pb2)


def rpc_methods() -> dict[str, str]:
    """`package.Service/Method` by method."""
    return {
        method.name: f"{service.full_name}/{method.name}"
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
