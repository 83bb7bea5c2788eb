"""The encoder as a Ray Serve deployment behind Ray Serve's gRPC proxy.

The proxy calls the method of the deployment that has the name of the gRPC method; with the stubs of the Open Inference
Protocol, the same clients reach it as reach the others.
"""

import argparse
import asyncio
import signal
import threading
from pathlib import Path

import numpy as np
import ray
from numpy.typing import NDArray
from ray import serve
from tritonclient.utils import deserialize_bytes_tensor

from bench.peers.served.onnx_encoder import OnnxEncoder
from birnn.openinference import inference_pb2 as pb

Texts = NDArray[np.object_]


@serve.deployment(max_ongoing_requests=1024, ray_actor_options={"num_cpus": 1})
class Encoder:
    """Open Inference calls in, batched by `serve.batch`."""

    def __init__(self, bundle: str, config: bytes, max_batch_size: int, batch_wait_timeout_s: float) -> None:
        self._encoder = OnnxEncoder(Path(bundle))
        self._config = pb.ModelConfigResponse.FromString(config)
        self._encode.set_max_batch_size(max_batch_size)
        self._encode.set_batch_wait_timeout_s(batch_wait_timeout_s)

    @serve.batch  # type: ignore[untyped-decorator]
    async def _encode(self, texts: list[Texts]) -> list[NDArray[np.float32]]:
        # In a thread, so that calls are received meanwhile.
        encodings = await asyncio.to_thread(self._encoder.encode, np.concatenate(texts).tolist())
        return np.split(encodings, np.cumsum([len(text) for text in texts])[:-1])

    async def ModelInfer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:  # noqa: N802
        """Encode the strings of a request."""
        encodings = await self._encode(deserialize_bytes_tensor(request.raw_input_contents[0]))
        output = pb.ModelInferResponse.InferOutputTensor(name="embedding", datatype="FP32", shape=encodings.shape)
        return pb.ModelInferResponse(
            model_name=request.model_name,
            model_version="1",
            id=request.id,
            outputs=[output],
            raw_output_contents=[encodings.tobytes()],
        )

    async def ServerMetadata(self, request: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:  # noqa: N802
        """Name and version."""
        return pb.ServerMetadataResponse(name="ray serve", version=ray.__version__, extensions=["model_configuration"])

    async def ModelReady(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:  # noqa: N802
        """The model is loaded before the deployment takes calls."""
        return pb.ModelReadyResponse(ready=True)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:  # noqa: N802
        """Inputs and outputs, the batch dimension included."""
        tensor = pb.ModelMetadataResponse.TensorMetadata
        model = self._config.config
        return pb.ModelMetadataResponse(
            name=model.name,
            versions=["1"],
            platform="onnxruntime",
            inputs=[tensor(name="text", datatype="BYTES", shape=[-1, 1])],
            outputs=[tensor(name="embedding", datatype="FP32", shape=[-1, *model.output[0].dims])],
        )

    async def ModelConfig(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:  # noqa: N802
        """What the benchmark wrote into a file."""
        return self._config


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bundle", required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--http-port", type=int, required=True)
    parser.add_argument("--replicas", type=int, required=True)
    parser.add_argument("--cores", type=int, required=True)
    parser.add_argument("--max-batch-size", type=int, required=True)
    parser.add_argument("--batch-wait-timeout", type=float, required=True)
    arguments = parser.parse_args()
    # More logical CPUs than there are: Ray would not place two replicas on one core otherwise.
    ray.init(
        num_cpus=arguments.cores + arguments.replicas,
        include_dashboard=False,
        object_store_memory=100 << 20,
        _node_ip_address="127.0.0.1",
    )
    serve.start(
        http_options={"host": "127.0.0.1", "port": arguments.http_port},
        grpc_options={
            "port": arguments.grpc_port,
            "grpc_servicer_functions": [
                "birnn.openinference.inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server"
            ],
        },
    )
    encoder = Encoder.options(num_replicas=arguments.replicas)  # type: ignore[attr-defined]
    serve.run(
        encoder.bind(
            arguments.bundle, arguments.config.read_bytes(), arguments.max_batch_size, arguments.batch_wait_timeout
        )
    )
    stop = threading.Event()
    # After Ray's own handler, which would abort.
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    stop.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
