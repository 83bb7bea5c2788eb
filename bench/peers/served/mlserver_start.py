"""Starts MLServer as `mlserver start FOLDER` does, with one call more: perf_analyzer asks a model for its ModelConfig.

MLServer does not implement that extension of the protocol. The answer, made by the benchmark, is in the file FOLDER's
`model_config.bin`; the calls that are measured do not come past here.
"""

import sys
from pathlib import Path
from typing import Any

import grpc
from mlserver.cli.main import root
from mlserver.grpc.server import GRPCServer

CONFIG_FILE = "model_config.bin"


def answer_model_config(reply: bytes) -> None:
    """Let every gRPC server of MLServer answer ModelConfig with a serialized ModelConfigResponse."""
    create = GRPCServer._create_server

    async def model_config(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return reply

    def create_with_config(server: GRPCServer) -> Any:
        created = create(server)
        methods = {"ModelConfig": grpc.unary_unary_rpc_method_handler(model_config)}
        created.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),)
        )
        return created

    GRPCServer._create_server = create_with_config


if __name__ == "__main__":
    answer_model_config((Path(sys.argv[1]) / CONFIG_FILE).read_bytes())
    root(["start", sys.argv[1]])
