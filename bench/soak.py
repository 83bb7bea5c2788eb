"""`python -m bench.soak`: does the server's memory stay flat over a million varied requests?"""

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np

import birnn

ROOT = Path(__file__).parents[1]
SERVING = re.compile(r"serving .* on ([\w.]+:\d+) \(gRPC[^)]*\)")
START_SECONDS = 120.0
# Sequences a call, and how often.
SIZES, SIZE_SHARES = [1, 2, 8, 64], [0.8, 0.13, 0.06, 0.01]
TOKENS_SHARE = 0.05
# Molecules joined by a dot are a molecule: so lengths go on to those of rare requests.
JOINED, JOINED_SHARES = [1, 2, 4, 10], [0.9, 0.06, 0.03, 0.01]
# Growth over the second half that counts as flat.
FLAT = 0.03
READINGS = 100


@dataclass(slots=True)
class Soak:
    """What is under way: how many requests are still to be sent, and what was seen so far.

    `memory` holds the server's resident memory in MiB, by the number of requests after which it was read.
    """

    requests: int
    random: np.random.Generator
    molecules: list[str]
    sent: int = 0
    sequences: int = 0
    errors: int = 0
    memory: list[tuple[int, float]] = field(default_factory=list)

    def draw(self) -> list[str]:
        """The sequences of one request."""
        size = int(self.random.choice(SIZES, p=SIZE_SHARES))
        return [
            ".".join(self.random.choice(self.molecules, int(parts)))
            for parts in self.random.choice(JOINED, size, p=JOINED_SHARES)
        ]


@click.command()
@click.option("--requests", type=click.IntRange(min=READINGS), default=1_000_000, show_default=True)
@click.option("--callers", type=click.IntRange(min=1), default=16, show_default=True, help="Requests in flight.")
@click.option("--encoder", default="smiles", show_default=True, help="Encoder to ask.")
@click.option("--server-args", default="", help="Further options of `birnn serve`, say '--engine onnxruntime'.")
@click.option("--seed", default=0, show_default=True)
def main(requests: int, callers: int, encoder: str, server_args: str, seed: int) -> None:
    """Start a server, send it requests of every size and length, and watch its memory.

    Prints requests and MiB of resident memory, tab-separated, and at last by how much it grew in the second half. Exits
    with 1 if that was more than 3 %, or a request failed.
    """
    molecules = (ROOT / "examples" / "molecules.smi").read_text(encoding="utf-8").split("\n")
    soak = Soak(requests, np.random.default_rng(seed), [line.split()[0] for line in molecules if line.strip()])
    begun = time.monotonic()
    with serving(server_args.split()) as (process, address):
        asyncio.run(_send_all(soak, process, address, callers, encoder))
    seconds = time.monotonic() - begun
    growth = growth_of(soak.memory)
    click.echo(
        f"{soak.sent:,} requests, {soak.sequences:,} sequences in {seconds:.0f} s, {soak.errors} failed; memory "
        f"{soak.memory[-1][1]:.1f} MiB, {growth:+.1%} over the second half"
    )
    sys.exit(abs(growth) > FLAT or soak.errors > 0)


def growth_of(memory: list[tuple[int, float]]) -> float:
    """Growth from the third quarter of the readings to the last one, by their medians: 0.01 for 1 %."""
    values = np.array([mib for _, mib in memory])
    middle, last = np.array_split(values[len(values) // 2 :], 2)
    return float(np.median(last) / np.median(middle) - 1)


@contextmanager
def serving(arguments: list[str]) -> Iterator[tuple[int, str]]:
    """A server of the bundled encoders on free ports: its process and its address; stopped at the end.

    Raises:
        click.ClickException: It does not come up.
    """
    command = [sys.executable, "-m", "birnn.cli.main", "serve", "--models", str(ROOT / "models")]
    command += ["--grpc-port", "0", "--metrics-port", "0", *arguments]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    log: list[str] = []
    try:
        for line in server.stderr:
            log.append(line)
            if match := SERVING.search(line):
                break
        else:
            raise click.ClickException("the server did not come up:\n" + "".join(log))
        # Its log is no longer read, and a full pipe would stop it.
        threading.Thread(target=server.stderr.read, daemon=True).start()
        yield server.pid, match[1]
    finally:
        server.terminate()
        server.wait(START_SECONDS)


def resident_mib(process: int) -> float:
    """Resident memory of a process and its children, in MiB."""
    # Of each of its threads.
    lists = Path(f"/proc/{process}/task").glob("*/children")
    children = [child for each in lists for child in each.read_text(encoding="ascii").split()]
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20 + sum(resident_mib(int(child)) for child in children)


async def _send_all(soak: Soak, process: int, address: str, callers: int, encoder: str) -> None:
    async with birnn.AsyncClient(address) as client:
        await asyncio.gather(*(_call(soak, client, process, encoder) for _ in range(callers)))


async def _call(soak: Soak, client: birnn.AsyncClient, process: int, encoder: str) -> None:
    """One caller: request after request until all are sent."""
    while soak.sent < soak.requests:
        soak.sent += 1
        if soak.sent % (soak.requests // READINGS) == 0:
            soak.memory.append((soak.sent, resident_mib(process)))
            click.echo(f"{soak.sent}\t{soak.memory[-1][1]:.1f}")
        sequences = soak.draw()
        soak.sequences += len(sequences)
        try:
            if soak.random.random() < TOKENS_SHARE:
                await client.encode_tokens(sequences, encoder)
            else:
                await client.encode(sequences, encoder)
        except birnn.EncodeError as error:
            soak.errors += 1
            click.echo(f"failed: {error}", err=True)


if __name__ == "__main__":
    main()
