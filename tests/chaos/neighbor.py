"""A neighbor in a process of its own that keeps calls in flight from 127.0.0.2, until its standard input ends.

    python neighbor.py ADDRESS ENCODER IN_FLIGHT SEQUENCES TIMEOUT

A timeout of 0 is none. It writes `busy` once its calls are under way, and at last how many were answered, refused or
failed otherwise. A gRPC channel cannot choose the address that it calls from, so it goes through a relay that does.
"""

import asyncio
import json
import sys
from collections import Counter
from contextlib import suppress

import numpy as np

from birnn import AsyncClient, EncodeError, OverloadedError

SOURCE = "127.0.0.2"


def say(line: str) -> None:
    """Tell the parent process."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def relay(server: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one connection on to the server, from `SOURCE`."""
    host, port = server.split(":")
    there, back = await asyncio.open_connection(host, int(port), local_addr=(SOURCE, 0))
    await asyncio.gather(pipe(reader, back), pipe(there, writer))


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes one way until they end."""
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


def molecules(number: int, count: int) -> list[str]:
    """Distinct SMILES for the call of that number."""
    random = np.random.default_rng(number + 1000)
    parts = ["C", "N", "O", "c1ccccc1", "C(=O)", "C(C)", "S", "F", "c1ccncc1", "N(C)"]
    return ["".join(random.choice(parts, size)) for size in random.integers(8, 20, count)]


async def caller(
    client: AsyncClient, encoder: str, number: int, count: int, patience: float | None, ends: Counter[str]
) -> None:
    """Make one call after another."""
    while True:
        number += 10_000
        try:
            await client.encode(molecules(number, count), encoder, timeout=patience)
            ends["answered"] += 1
        except OverloadedError:
            ends["refused"] += 1
            await asyncio.sleep(0.05)
        except EncodeError as error:
            ends[type(error).__name__] += 1


async def main(server: str, encoder: str, in_flight: int, count: int, patience: float | None) -> None:
    """Call until standard input ends."""
    ends: Counter[str] = Counter()
    listener = await asyncio.start_server(lambda *streams: relay(server, *streams), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with AsyncClient(f"127.0.0.1:{port}", batch_size=max(count, 1), in_flight=1) as client:
        calls = [asyncio.create_task(caller(client, encoder, n, count, patience, ends)) for n in range(in_flight)]
        await asyncio.sleep(1.0)
        say("busy")
        await asyncio.to_thread(sys.stdin.read)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    listener.close()
    say(json.dumps(ends))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]) or None))
