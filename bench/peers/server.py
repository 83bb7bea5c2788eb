"""A server beside others: how it is configured, started, found ready and stopped."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import click
import grpc

from bench.callers import Method
from birnn.openinference import inference_pb2 as pb
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn_bundle.bundle import Bundle

START_SECONDS = 120.0
STOP_SECONDS = 30.0
# Larger batches than any load here sends; perf_analyzer asks.
LARGEST_BATCH = 1024

Setting = int | float | bool
Settings = Mapping[str, Setting]


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a server.

    Attributes:
        arguments: Program and arguments.
        environment: Variables besides those of the benchmark itself.
        address: Where its gRPC will listen.
        metrics: URL of its Prometheus metrics; None where a comparison reads none.
        http: Where its HTTP will listen, if it has one.
        calls: What else can be called besides Open Inference over gRPC, which all servers have.
    """

    arguments: Sequence[str]
    address: str
    environment: Mapping[str, str] = field(default_factory=dict)
    metrics: str | None = None
    http: str | None = None
    calls: Sequence[Method] = ()


class Server(Protocol):
    """A server that can serve a bundle's graph as the model `model(bundle)`, strings in, vectors out."""

    @property
    def name(self) -> str:
        """What reports call it."""

    def candidates(self, cores: int) -> Sequence[Settings]:
        """Settings that a competent user would try on `cores` cores."""

    def prepare(self, bundle: Bundle, settings: Settings, cores: int, scratch: Path) -> Command:
        """Write what the server reads into the empty folder `scratch` and say how to start it."""

    def versions(self) -> list[str]:
        """What takes part, `name==version`."""


def free_port() -> int:
    """A TCP port of the loopback interface that is free now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def model_config(bundle: Bundle) -> pb.ModelConfigResponse:
    """What perf_analyzer wants to know of the model; for the servers that do not say so by themselves."""
    return pb.ModelConfigResponse(
        config=pb.ModelConfig(
            name=bundle.manifest.name,
            platform="onnxruntime",
            backend="python",
            max_batch_size=LARGEST_BATCH,
            input=[pb.ModelInput(name="text", data_type=pb.TYPE_STRING, dims=[1])],
            output=[pb.ModelOutput(name="embedding", data_type=pb.TYPE_FP32, dims=[bundle.manifest.dimension])],
        )
    )


@contextmanager
def running(command: Command, model: str, prefix: Sequence[str], log: Path) -> Iterator[int]:
    """A server that answers for `model`, in a process group of its own; stopped at the end. Gives its process number.

    Args:
        command: How to start it.
        model: The model that must be ready.
        prefix: Put before the command, to choose cores.
        log: Where its output goes.

    Raises:
        click.ClickException: It ended, or was not ready in time; shows the end of its log.
    """
    # A group of its own: what the server itself starts is stopped with it.
    with log.open("w") as output:
        process = subprocess.Popen(
            [*prefix, *command.arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **command.environment},
            start_new_session=True,
        )
    try:
        _await_ready(process, command.address, model, log)
        yield process.pid
    finally:
        _stop(process)


def _await_ready(process: "subprocess.Popen[bytes]", address: str, model: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    with grpc.insecure_channel(address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        while time.monotonic() < end and process.poll() is None:
            try:
                if stub.ModelReady(pb.ModelReadyRequest(name=model), timeout=2).ready:
                    return
            except grpc.RpcError:
                pass
            time.sleep(0.2)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    what = f"was not ready after {START_SECONDS:g} s" if process.poll() is None else f"ended with {process.returncode}"
    raise click.ClickException(f"the server {what}; the end of {log}:\n{tail}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    # Whatever it left behind.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
