"""A load generator over gRPC and HTTP, in a process of its own: the second opinion beside perf_analyzer.

`python -m bench.callers` puts a load on a server and writes a `Sample` as JSON. Messages are made beforehand; every
caller has sequences that no other has. It shares no code with the targets of `birnn loadtest`: those make each message
when it is due and check replies, and here client and server share two cores, so the client must do as little as it can.
"""

import asyncio
import itertools
import json
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import click
import grpc
import grpc.aio
import numpy as np
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.http_calls import HttpConnection, embeddings_message, infer_message
from bench.loads import Load, Sample
from bench.machine import ROOT
from birnn.openinference import inference_pb2
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn.v1 import encoder_pb2
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from birnn_bundle.atomic_file import replace_text

CONNECTIONS = 4
TIMEOUT = 60.0
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]

Method = Literal["infer", "encode", "stream", "health", "rest", "openai"]
# Those over HTTP, and what makes their messages.
HTTP: dict[Method, Callable[[str, Sequence[str]], bytes]] = {"rest": infer_message, "openai": embeddings_message}
# One call: sends its message and waits for the reply.
Call = Callable[[Any], Awaitable[Any]]


def infer_request(model: str, sequences: Sequence[str]) -> inference_pb2.ModelInferRequest:
    """A call with `sequences` as the raw BYTES tensor `text`, the form that tritonclient sends."""
    encoded = [sequence.encode() for sequence in sequences]
    raw = b"".join(struct.pack("<I", len(sequence)) + sequence for sequence in encoded)
    request = inference_pb2.ModelInferRequest
    text = request.InferInputTensor(name="text", datatype="BYTES", shape=[len(encoded), 1])
    wanted = request.InferRequestedOutputTensor(name="embedding")
    return request(model_name=model, inputs=[text], outputs=[wanted], raw_input_contents=[raw])


def message(method: Method, model: str, sequences: Sequence[str]) -> Any:
    """The message of one call of a method."""
    if method in HTTP:
        return HTTP[method](model, sequences)
    if method == "infer":
        return infer_request(model, sequences)
    if method in ("encode", "stream"):
        return encoder_pb2.EncodeRequest(encoder=model, sequences=[sequence.encode() for sequence in sequences])
    return health_pb2.HealthCheckRequest()


def deal(method: Method, model: str, sequences: Sequence[str], load: Load) -> list[list[Any]]:
    """The messages of every caller: its own share of the sequences, `load.batch` at a time.

    Raises:
        ValueError: There is not a call's worth of sequences for every caller.
    """
    if len(sequences) < load.batch * load.in_flight:
        raise ValueError(f"{load} takes {load.batch * load.in_flight} sequences, and there are {len(sequences)}")
    shares = [sequences[number :: load.in_flight] for number in range(load.in_flight)]
    return [
        [
            message(method, model, share[start : start + load.batch])
            for start in range(0, len(share) - load.batch + 1, load.batch)
        ]
        for share in shares
    ]


def call_of(method: Method, channel: grpc.aio.Channel) -> Call:
    """How to call a method over a connection of gRPC."""
    stubs: dict[Method, Callable[[], Any]] = {
        "infer": lambda: GRPCInferenceServiceStub(channel).ModelInfer,
        "encode": lambda: EncoderServiceStub(channel).Encode,
        "stream": lambda: EncodeStream(channel),
        "health": lambda: health_pb2_grpc.HealthStub(channel).Check,
    }
    multicallable = stubs[method]()
    return lambda request: multicallable(request, timeout=TIMEOUT)


class EncodeStream:
    """Calls over one stream, as if each were a call of its own."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stream = EncoderServiceStub(channel).EncodeStream()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        # Only one message may be on its way at a time.
        self._writing = asyncio.Lock()
        self._reader = asyncio.ensure_future(self._read())

    async def __call__(self, request: encoder_pb2.EncodeRequest, *, timeout: float) -> Any:  # noqa: ASYNC109
        """Send a request and wait for its reply."""
        number = next(self._numbers)
        # Its reply may be there before the writer comes back.
        reply = self._waiting[number] = asyncio.get_running_loop().create_future()
        sent = encoder_pb2.EncodeStreamRequest(id=number, timeout=timeout, encode=request)
        async with self._writing:
            await self._stream.write(sent)
        return await reply

    async def _read(self) -> None:
        try:
            async for reply in self._stream:
                waiting = self._waiting.pop(reply.id)
                if reply.HasField("failure"):
                    waiting.set_exception(RuntimeError(reply.failure.message))
                else:
                    waiting.set_result(reply.response)
        except grpc.aio.AioRpcError as error:
            for waiting in self._waiting.values():
                waiting.set_exception(error)


async def drive(
    address: str, method: Method, messages: Sequence[Sequence[Any]], seconds: float
) -> list[tuple[float, float]]:
    """Let every caller send its messages one after the other, over and over, for `seconds`; (sent, answered) of all.

    Raises:
        grpc.aio.AioRpcError: A call failed over gRPC.
        RuntimeError: A call failed over HTTP or on a stream.
    """
    recorded: list[tuple[float, float]] = []
    end = time.monotonic() + seconds

    async def caller(call: Call, mine: Sequence[Any]) -> None:
        number = 0
        while (sent := time.monotonic()) < end:
            await call(mine[number % len(mine)])
            recorded.append((sent, time.monotonic()))
            number += 1

    async with connected(address, method, len(messages)) as calls, asyncio.TaskGroup() as group:
        for number, mine in enumerate(messages):
            group.create_task(caller(calls[number % len(calls)], mine))
    return recorded


@asynccontextmanager
async def connected(address: str, method: Method, callers: int) -> AsyncIterator[list[Call]]:
    """Connections for so many callers: one for each over HTTP, one for all on a stream, and else `CONNECTIONS`."""
    connections: list[HttpConnection] | list[grpc.aio.Channel]
    calls: list[Call]
    if method in HTTP:
        calls = connections = [HttpConnection(address) for _ in range(callers)]
    else:
        # What is to be known of streams is what one of them does.
        count = 1 if method == "stream" else min(CONNECTIONS, callers)
        connections = [grpc.aio.insecure_channel(address, OPTIONS) for _ in range(count)]
        calls = [call_of(method, channel) for channel in connections]
    try:
        yield calls
    finally:
        for connection in connections:
            await connection.close()


def run_callers(
    address: str,
    method: Method,
    model: str,
    load: Load,
    sequences: Sequence[str],
    *,
    seconds: float,
    warmup: float,
    prefix: Sequence[str],
    scratch: Path,
) -> Sample:
    """Put a load on a server from a process of its own.

    Args:
        address: Where the server listens.
        method: What is called.
        model: Name of the encoder.
        load: Sequences a call, and callers.
        sequences: Dealt to the callers in turn.
        seconds: Time measured.
        warmup: Time before it.
        prefix: Put before the command, to choose cores.
        scratch: Folder for its input and output.

    Raises:
        click.ClickException: A call failed, or no call ended in time.
    """
    file, out = scratch / "sequences.txt", scratch / "sample.json"
    file.write_text("\n".join(sequences) + "\n")
    command = [*prefix, sys.executable, "-m", "bench.callers", "--address", address, "--method", method]
    command += ["--model", model, "--batch", str(load.batch), "--in-flight", str(load.in_flight)]
    command += ["--seconds", str(seconds), "--warmup", str(warmup), "--file", str(file), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        raise click.ClickException(f"the asyncio load generator failed: {said[-1]}")
    return Sample.from_json(out.read_text())


@click.command()
@click.option("--address", required=True)
@click.option("--method", type=click.Choice(get_args(Method)), required=True)
@click.option("--model", required=True)
@click.option("--batch", type=int, required=True)
@click.option("--in-flight", type=int, required=True)
@click.option("--seconds", type=float, required=True)
@click.option("--warmup", type=float, required=True)
@click.option("--file", type=click.Path(path_type=Path), required=True, help="Sequences, one a line.")
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(
    address: str,
    method: Method,
    model: str,
    batch: int,
    in_flight: int,
    seconds: float,
    warmup: float,
    file: Path,
    out: Path,
) -> None:
    """Put a load on a server and write what was seen."""
    load = Load("", batch, in_flight)
    messages = deal(method, model, file.read_text().splitlines(), load)
    start, epoch = time.monotonic(), time.time() - time.monotonic()
    try:
        recorded = uvloop.run(drive(address, method, messages, warmup + seconds))
    except ExceptionGroup as failures:
        raise click.ClickException(str(failures.exceptions[0])) from failures
    try:
        sample = Sample.of(np.array(recorded) + epoch, batch, begin := epoch + start + warmup, begin + seconds)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    replace_text(out, json.dumps(asdict(sample)))


if __name__ == "__main__":
    main()
