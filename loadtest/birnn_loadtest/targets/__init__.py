"""What can be tested: a server, by one of the protocols that it speaks."""

from collections.abc import Callable

from birnn.cli.server_options import Server
from birnn_loadtest.targets.encoder_service import StreamTarget, UnaryTarget
from birnn_loadtest.targets.http import EmbeddingsTarget, InferHttpTarget
from birnn_loadtest.targets.infer_stream import InferStreamTarget
from birnn_loadtest.targets.open_inference import InferTarget
from birnn_loadtest.targets.target import Target, TensorNames

# A protocol's name -> its target, and what is called.
PROTOCOLS: dict[str, tuple[Callable[[Server, int | None, float, TensorNames], Target], str]] = {
    "encode": (UnaryTarget, "birnn.v1 Encode over gRPC"),
    "stream": (StreamTarget, "birnn.v1 EncodeStream over gRPC, one stream for each connection"),
    "infer": (InferTarget, "Open Inference ModelInfer over gRPC, of any server"),
    "infer-stream": (
        InferStreamTarget,
        "ModelStreamInfer over gRPC, of Triton and ours, one stream for each connection",
    ),
    "infer-http": (InferHttpTarget, "Open Inference over HTTP, of any server with the binary tensor extension"),
    "embeddings": (EmbeddingsTarget, "POST /v1/embeddings, as in OpenAI's API"),
}


def open_target(protocol: str, server: Server, connections: int | None, timeout: float, names: TensorNames) -> Target:
    """A target that is not connected yet.

    Args:
        protocol: One of `PROTOCOLS`.
        server: Which server is called, and how.
        connections: Connections to open; None for the protocol's default.
        timeout: Seconds in which it must accept connections and say what it serves.
        names: Names of the tensors, for Open Inference.
    """
    return PROTOCOLS[protocol][0](server, connections, timeout, names)
