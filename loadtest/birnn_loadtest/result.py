"""The result of a load test: as JSON, with all that is needed to repeat it, and as a table."""

import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

import grpc
import numpy as np

from birnn import EncoderInfo
from birnn_bundle.numerals import counted
from birnn_loadtest.recording import HISTOGRAM_EDGES, NOT_SENT, OK, Figures, Spread

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for. Times are in seconds.

    Attributes:
        address: The server.
        file: Where the sequences came from.
        population: How many sequences it gave.
        rate: Calls per second in open loop; None in closed loop.
        concurrency: Callers in closed loop; None in open loop.
        batch: Sequences a call.
        duration: Measured time.
        warmup: Time before it, under the same load but not measured.
        timeout: Deadline of a call.
        seed: Decides arrivals and sequences.
        channels: Connections to the server.
        most_in_flight: Bound on the calls under way.
        tls: Whether connections use TLS.
    """

    address: str
    file: str
    population: int
    rate: float | None
    concurrency: int | None
    batch: int
    duration: float
    warmup: float
    timeout: float
    seed: int
    channels: int
    most_in_flight: int
    tls: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """A load test that has run.

    Attributes:
        settings: What was asked for.
        started: When.
        event_loop: Module of the event loop that sent the calls, such as "uvloop".
        encoder: The encoder that answered.
        server: Name and version of the server; None where it does not say.
        figures: What came out.
    """

    settings: Settings
    started: datetime
    event_loop: str
    encoder: EncoderInfo
    server: str | None
    figures: Figures

    def to_json(self) -> dict[str, Any]:
        """The result as JSON data; times in seconds, rates per second."""
        figures = self.figures
        return {
            "schema_version": SCHEMA_VERSION,
            "started": self.started.isoformat(timespec="seconds"),
            "settings": asdict(self.settings),
            "client": {
                "birnn_serving": version("birnn-serving"),
                "grpcio": grpc.__version__,
                "python": platform.python_version(),
                "event_loop": self.event_loop,
                "machine": platform.machine(),
            },
            "server": self.server,
            "encoder": asdict(self.encoder),
            "offered": {"calls": figures.offered_calls, "sequences": figures.offered_sequences},
            "achieved": {"calls": figures.achieved_calls, "sequences": figures.achieved_sequences},
            "seconds": figures.seconds,
            "calls": {"due": figures.calls, "codes": figures.codes},
            "sequences": {"due": figures.sequences, "errors": figures.item_errors},
            "latency": _json(figures.latency),
            "latency_all": _json(figures.latency_all),
            "service_time": _json(figures.service_time),
            "lag": _json(figures.lag),
            "generator_was_late": figures.generator_was_late,
            "histogram": _histogram_json(figures),
        }

    def table(self) -> str:
        """The result for reading."""
        return "\n".join(f"{name:<13}{text}".rstrip() for name, text in self._lines())

    def _lines(self) -> Iterator[tuple[str, str]]:
        settings, figures, encoder = self.settings, self.figures, self.encoder
        yield (
            "encoder",
            f"{encoder.name} version {encoder.version}: {encoder.architecture}, {encoder.dimension} floats, "
            f"{encoder.engine} on {encoder.device} in {encoder.precision}; {self.server or 'server unknown'}",
        )
        load = f"{settings.rate:g} calls/s" if settings.rate is not None else f"{settings.concurrency} callers in turn"
        yield (
            "load",
            f"{load} of {counted(settings.batch, 'sequence')} for {settings.duration:g} s after {settings.warmup:g} s "
            f"of warm-up, seed {settings.seed}, {settings.channels} connections, {self.event_loop}",
        )
        yield "offered", _rates(figures.offered_calls, figures.offered_sequences)
        yield "achieved", _rates(figures.achieved_calls, figures.achieved_sequences)
        codes = ", ".join(f"{count} {code}" for code, count in figures.codes.items()) or "none"
        yield "calls", f"{figures.calls} due: {codes}"
        if figures.item_errors:
            yield "sequences", f"{figures.item_errors} of {figures.sequences} could not be encoded"
        yield "", "".join(f"{name:>10}" for name in ("p50", "p90", "p95", "p99", "p99.9", "max", "ms"))
        yield "latency", _milliseconds(figures.latency)
        if figures.succeeded < figures.calls - figures.codes.get(NOT_SENT, 0):
            yield "with errors", _milliseconds(figures.latency_all)
        if settings.rate is not None:
            yield "lag", _milliseconds(figures.lag)
        yield from (("note", note) for note in self._notes())

    def _notes(self) -> Iterator[str]:
        figures = self.figures
        if self.settings.concurrency is not None:
            yield "callers that wait for their replies hide how long others would have waited; use --rate for latency"
        if figures.generator_was_late:
            yield (
                "the generator itself was late (see lag): the latency is partly this machine's; "
                "lower --rate, or raise --batch"
            )
        if figures.latency is not None and figures.succeeded < 0.99 * figures.calls:
            failed = ", ".join(code for code in figures.codes if code != OK)
            yield f"the latency is that of the calls that ended OK; {failed} left the others out"


def _json(spread: Spread | None) -> dict[str, float] | None:
    if spread is None:
        return None
    return {"count": spread.count, "mean": spread.mean, **spread.percentiles, "max": spread.maximum}


def _histogram_json(figures: Figures) -> dict[str, list[float] | list[int]]:
    """Counts between consecutive edges, in seconds, without the empty buckets at both ends."""
    filled = np.flatnonzero(figures.histogram)
    if not len(filled):
        return {"edges": [], "counts": []}
    first, last = int(filled[0]), int(filled[-1]) + 1
    return {
        "edges": HISTOGRAM_EDGES[first : last + 1].tolist(),
        "counts": figures.histogram[first:last].tolist(),
    }


def _rates(calls: float, sequences: float) -> str:
    return f"{calls:,.1f} calls/s, {sequences:,.0f} sequences/s"


def _milliseconds(spread: Spread | None) -> str:
    if spread is None:
        return f"{'-':>10}"
    return "".join(f"{1000 * seconds:>10.2f}" for seconds in (*spread.percentiles.values(), spread.maximum))
