"""`birnn loadtest`."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import click
import grpc
import grpc.aio

from birnn import AsyncClient, EncodeError
from birnn.async_connection import open_channel
from birnn.cli.distinct_files import check_distinct
from birnn.cli.file_options import Reading, file_options
from birnn.cli.finite_float_range import FiniteFloatRange
from birnn.cli.server_options import Server, server_options
from birnn.errors import call_error
from birnn.metadata import Metadata
from birnn.openinference import inference_pb2
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn_bundle.atomic_file import replace_text
from birnn_bundle.numerals import counted
from birnn_bundle.quoting import printable
from birnn_bundle.sequences import KINDS, SequenceFileError
from birnn_loadtest.generator import Generator, Workload
from birnn_loadtest.recording import Recording
from birnn_loadtest.result import Result, Settings
from birnn_loadtest.schedule import poisson_arrivals

LARGEST_POPULATION = 1_000_000
# Arrivals are drawn, and records kept, in memory: some 200 bytes a call.
MOST_CALLS = 5_000_000


@dataclass(frozen=True, slots=True)
class Target:
    """What is tested."""

    server: Server
    encoder: str
    version: str | None


@click.command()
@server_options
@click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help=f"Sequences to draw from: {', '.join(KINDS)}, each also .gz or .xz; blank lines are left out.",
)
@file_options
@click.option("--encoder", default="smiles", show_default=True, help="Name of the encoder.")
@click.option("--version", "encoder_version", help="Version of the encoder; the highest by default.")
@click.option("--rate", type=FiniteFloatRange(min=0, min_open=True), help="Calls per second, on average, in open loop.")
@click.option(
    "--concurrency", type=click.IntRange(1, 100_000), help="Instead of --rate: callers that each wait for their reply."
)
@click.option("--batch", type=click.IntRange(1, 16_384), default=1, show_default=True, help="Sequences a call.")
@click.option(
    "--duration", type=FiniteFloatRange(min=0, min_open=True), default=10.0, show_default=True, help="Seconds measured."
)
@click.option(
    "--warmup", type=FiniteFloatRange(min=0), default=1.0, show_default=True, help="Seconds of the same load before."
)
@click.option(
    "--timeout",
    type=FiniteFloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Deadline of a call, in seconds.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Same seed, same calls.")
@click.option("--channels", type=click.IntRange(1, 256), default=4, show_default=True, help="Connections to open.")
@click.option(
    "--most-in-flight",
    type=click.IntRange(1, 1_000_000),
    default=10_000,
    show_default=True,
    help="Calls under way at a time; those due beyond it are counted as NOT_SENT.",
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the result to this file as JSON.")
def loadtest(
    server: Server,
    file: Path,
    reading: Reading,
    encoder: str,
    encoder_version: str | None,
    rate: float | None,
    concurrency: int | None,
    batch: int,
    duration: float,
    warmup: float,
    timeout: float,
    seed: int,
    channels: int,
    most_in_flight: int,
    out: Path | None,
) -> None:
    """Measure a server's latency under load.

    Calls arrive as from independent callers (a Poisson process of --rate calls a second), each with --batch sequences
    drawn from --file. A call's latency counts from the moment it was due, so that a server that stalls cannot hide the
    calls it held back. Calls are not repeated: every failure counts. `lag` tells how late the generator itself was.

    Ends with code 0 where some calls succeeded, 1 where none did, 2 for wrong usage.
    """
    if (rate is None) == (concurrency is None):
        raise click.UsageError("give either --rate (open loop: latency) or --concurrency (closed loop: throughput)")
    if rate is not None and rate * (warmup + duration) > MOST_CALLS:
        raise click.UsageError(
            f"{rate:g} calls/s for {warmup + duration:g} s are more than the {MOST_CALLS:,} calls of a test at most; "
            "lower --rate or --duration, or raise --batch"
        )
    if out is not None and not out.parent.is_dir():
        raise click.UsageError(f"the folder of --out does not exist: {out.parent}")
    check_distinct({"--file": file}, {"--out": out})
    sequences = _read(file, reading)
    settings = Settings(
        address=server.address,
        file=str(file),
        population=len(sequences),
        rate=rate,
        concurrency=concurrency,
        batch=batch,
        duration=duration,
        warmup=warmup,
        timeout=timeout,
        seed=seed,
        channels=channels,
        most_in_flight=most_in_flight,
        tls=server.tls is not None,
    )
    try:
        with asyncio.Runner(loop_factory=_uvloop()) as runner:
            result = runner.run(_measure(settings, sequences, Target(server, encoder, encoder_version)))
    except EncodeError as error:
        raise click.ClickException(str(error)) from error
    click.echo(printable(result.table()))
    if out is not None:
        try:
            replace_text(out, json.dumps(result.to_json(), indent=2) + "\n")
        except OSError as error:
            raise click.ClickException(f"cannot write {out}: {error.strerror}") from error
    if not result.figures.succeeded:
        raise click.ClickException("no call succeeded" if result.figures.calls else "no call was due: raise --duration")


async def _measure(settings: Settings, sequences: list[bytes], target: Target) -> Result:
    async with AsyncClient(settings.address, **target.server.client_options) as client:
        encoder = await client.encoder(target.encoder, target.version)
    workload = Workload(
        sequences=sequences,
        batch=settings.batch,
        encoder=encoder.name,
        version=encoder.version,
        timeout=settings.timeout,
        seed=settings.seed,
        metadata=target.server.metadata,
    )
    async with AsyncExitStack() as stack:
        # Every connection of its own: channels share them otherwise.
        credentials = target.server.credentials
        channels = [
            await stack.enter_async_context(open_channel(settings.address, credentials, shared=False))
            for _ in range(settings.channels)
        ]
        await _connect(channels, settings)
        server = await _server(channels[0], settings, target.server.metadata)
        started = datetime.now(UTC)
        recording = await _run(Generator(channels, workload, settings.most_in_flight), settings)
    return Result(
        settings=settings,
        started=started,
        event_loop=type(asyncio.get_running_loop()).__module__.partition(".")[0],
        encoder=encoder,
        server=server,
        figures=recording.figures(settings.warmup, settings.duration),
    )


async def _run(generator: Generator, settings: Settings) -> Recording:
    seconds = settings.warmup + settings.duration
    click.echo(f"running for {seconds:g} s ...", err=True)
    if settings.rate is None:
        assert settings.concurrency is not None
        return await generator.closed_loop(settings.concurrency, seconds)
    return await generator.open_loop(poisson_arrivals(settings.rate, seconds, settings.seed))


async def _connect(channels: list[grpc.aio.Channel], settings: Settings) -> None:
    try:
        async with asyncio.timeout(settings.timeout):
            await asyncio.gather(*(channel.channel_ready() for channel in channels))
    except TimeoutError as error:
        raise EncodeError(
            f"{settings.address} did not accept {settings.channels} connections within {settings.timeout:g} s; "
            "lower --channels, or raise --timeout"
        ) from error


async def _server(channel: grpc.aio.Channel, settings: Settings, metadata: Metadata) -> str | None:
    """Name and version of the server, where it speaks the Open Inference Protocol too."""
    try:
        reply = await GRPCInferenceServiceStub(channel).ServerMetadata(
            inference_pb2.ServerMetadataRequest(), timeout=settings.timeout, metadata=metadata
        )
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return None
        raise call_error(error, settings.address, settings.timeout) from error
    return f"{reply.name} {reply.version}"


def _uvloop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's event loop where it is installed: it spends less time on each call."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _read(path: Path, reading: Reading) -> list[bytes]:
    try:
        with reading.open(path) as file:
            lines = list(islice((line for line in file if line.sequence or line.problem), LARGEST_POPULATION))
    except SequenceFileError as error:
        raise click.ClickException(str(error)) from error
    malformed = [line for line in lines if line.problem is not None]
    if malformed:
        first = f"line {malformed[0].number}: {malformed[0].problem}"
        click.echo(printable(f"{path}: left out {counted(len(malformed), 'malformed record')}: {first}"), err=True)
    sequences = [line.sequence for line in lines if line.problem is None]
    if not sequences:
        raise click.ClickException(f"{path}: holds no sequence")
    return sequences
