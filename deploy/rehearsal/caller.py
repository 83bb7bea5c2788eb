"""caller KIND TARGET FILE: calls all the time, and records the end, the duration and the outcome of each call."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import grpc.aio
import numpy as np

import birnn
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub

ENCODER = "smiles-small"
SEQUENCES = ("CCO", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "CN1C=NC2=C1C(=O)N(C(=O)N2C)C")
# Workers of a process, and how long each of them waits between two calls.
WORKERS = 4
PAUSE_SECONDS = 0.04
# A call may take as long as its caller's own caller would wait.
TIMEOUT_SECONDS = 60.0
# Differences by the order of sums, and no more.
TOLERANCE = 1e-5

Note = Callable[[float, str], None]


async def calls(target: str, note: Note) -> None:
    """Calls of our own client, which repeats what a server did not answer."""
    async with birnn.AsyncClient(target) as client:
        expected = await client.encode(list(SEQUENCES), encoder=ENCODER)

        async def call() -> str:
            vectors = await client.encode(list(SEQUENCES), encoder=ENCODER, timeout=TIMEOUT_SECONDS)
            return "OK" if np.abs(vectors - expected).max() < TOLERANCE else "WRONG"

        await _workers(call, note)


async def stream(target: str, note: Note) -> None:
    """One input that never ends, over EncodeStream; its parts must come in order, and none be missing."""
    async with birnn.AsyncClient(target, batch_size=len(SEQUENCES)) as client:
        expected = await client.encode(list(SEQUENCES), encoder=ENCODER)
        began = time.monotonic()
        async for part in client.stream(_endless(), encoder=ENCODER):
            is_right = np.abs(part.vectors - expected).max() < TOLERANCE
            note(began, "OK" if is_right else "WRONG")
            began = time.monotonic()


async def plain(target: str, note: Note) -> None:
    """Calls of gRPC's own client with round_robin, which repeats nothing by itself."""
    policy = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
    async with grpc.aio.insecure_channel(target, [("grpc.service_config", policy)]) as channel:
        stub = EncoderServiceStub(channel)
        request = pb.EncodeRequest(encoder=ENCODER, sequences=[one.encode() for one in SEQUENCES])

        async def call() -> str:
            await stub.Encode(request, timeout=TIMEOUT_SECONDS, wait_for_ready=True)
            return "OK"

        await _workers(call, note)


async def _endless() -> AsyncIterator[str]:
    while True:
        for sequence in SEQUENCES:
            yield sequence
        await asyncio.sleep(PAUSE_SECONDS)


async def _workers(call: Callable[[], Awaitable[str]], note: Note) -> None:
    async def work() -> None:
        while True:
            began = time.monotonic()
            try:
                outcome = await call()
            except birnn.EncodeError as error:
                outcome = f"{error.code}: {error}"
            except grpc.RpcError as error:
                outcome = f"{error.code().name}: {error.details()}"
            note(began, outcome)
            await asyncio.sleep(PAUSE_SECONDS)

    await asyncio.gather(*(work() for _ in range(WORKERS)))


async def main(kind: str, target: str, file: Path) -> None:
    """Call until SIGTERM."""
    with file.open("w", encoding="utf-8") as notes:

        def note(began: float, outcome: str) -> None:
            now = time.monotonic()
            print(json.dumps([now, now - began, outcome]), file=notes, flush=True)

        working = asyncio.create_task({"calls": calls, "stream": stream, "plain": plain}[kind](target, note))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        try:
            await working
        except asyncio.CancelledError:
            return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
