"""What was asked for, as it is told in results."""

from dataclasses import dataclass
from typing import Self

from birnn.cli.server_options import Server
from birnn_loadtest.arrivals import Process, Trace
from birnn_loadtest.options import Options


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for. Times are in seconds.

    Attributes:
        address: The server.
        protocol: How it was called.
        tls: Whether connections used TLS.
        encoders: Encoders, with their weights.
        batches: Sequences a call, with their weights.
        files: Where the sequences came from, with how many each gave.
        arrivals: When calls were due, in words; None in a closed loop.
        rate: Calls per second of arrivals at a steady rate; of a search, of its first step; else None.
        in_flight: Callers in a closed loop; None in an open one.
        duration: Measured time.
        warmup: Time before it, under the same load but not measured.
        timeout: Deadline of a call.
        goodput: Limit within which a call counts for the goodput; None for none.
        seed: Decides arrivals and sequences.
        processes: Generator processes.
        connections: Connections of each; None for the protocol's default.
        max_in_flight: Bound on the calls under way in an open loop.
        check: Replies compared.
        tolerance: Largest difference allowed between them, as a share of the largest number of a vector.
        metrics: Where the server's metrics were read; None where they were not.
    """

    address: str
    protocol: str
    tls: bool
    encoders: list[str]
    batches: list[str]
    files: list[str]
    arrivals: str | None
    rate: float | None
    in_flight: int | None
    duration: float
    warmup: float
    timeout: float
    goodput: float | None
    seed: int
    processes: int
    connections: int | None
    max_in_flight: int
    check: int
    tolerance: float
    metrics: str | None

    @classmethod
    def of(
        cls, options: Options, server: Server, files: list[str], arrivals: Process | Trace | None, seconds: float
    ) -> Self:
        """From the command line, with what it leaves open."""
        alone = len(options.batch) == 1
        return cls(
            address=server.address,
            protocol=options.protocol,
            tls=server.tls is not None,
            encoders=list(options.encoder),
            batches=[f"{size}" if alone else f"{size}={weight:g}" for size, weight in options.batch],
            files=files,
            arrivals=None if arrivals is None else str(arrivals),
            rate=arrivals.rate.start if isinstance(arrivals, Process) and arrivals.rate.steady else None,
            in_flight=options.in_flight,
            duration=seconds,
            warmup=options.warmup,
            timeout=options.timeout,
            goodput=options.goodput,
            seed=options.seed,
            processes=options.processes,
            connections=options.connections,
            max_in_flight=options.max_in_flight,
            check=options.check,
            tolerance=options.tolerance,
            metrics=options.metrics,
        )
