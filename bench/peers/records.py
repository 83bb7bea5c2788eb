"""What has been measured so far: a folder of records, to which every run adds, so that a long comparison can be taken
in pieces.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Literal

from bench.loads import Load, Sample
from bench.peers.server import Setting

Phase = Literal["search", "round", "sweep"]


@dataclass(frozen=True, slots=True)
class Record:
    """One load on one server, measured once.

    Attributes:
        phase: What for: the search for settings, the comparison, or the sweep over concurrencies.
        round: Rounds are what is compared: within one, the machine is the same for all.
        server: Name of the server.
        load: What was put on it.
        generator: By which load generator.
        settings: Those of the server.
        sample: What was seen; None where the run failed.
        error: Why it failed.
        command: How the server was started.
        facts: `server_cores`, `client_cores` and `other_cores`, CPU seconds a second that the server, the load
            generators and other programs took meanwhile; `server_us`, CPU microseconds of the server for a call. From
            our own server `padding`, share of cells computed for nothing, `shared`, share of sequences answered by an
            equal one in flight, `batch_rows`, sequences in a batch, and of the parts of a call `reply_us`,
            `tokenize_us` and `engine_us` (see `bench.peers.costs`).
        started: When.
    """

    phase: Phase
    round: int
    server: str
    load: Load
    generator: str
    settings: dict[str, Setting]
    sample: Sample | None
    error: str | None = None
    command: str = ""
    facts: dict[str, float] = field(default_factory=dict)
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Record":
        """Read what `dataclasses.asdict` gave."""
        sample = values["sample"]
        return cls(**{**values, "load": Load(**values["load"]), "sample": Sample(**sample) if sample else None})


class Records:
    """The records of a report folder, in `records.jsonl`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "records.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, record: Record) -> None:
        """Append a record."""
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(record)) + "\n")

    def all(self) -> list[Record]:
        """Everything measured so far."""
        if not self._file.exists():
            return []
        return [Record.from_json(json.loads(line)) for line in self._file.read_text().splitlines()]

    def next_round(self) -> int:
        """Number of a round that has no records yet."""
        return max((record.round for record in self.all() if record.phase == "round"), default=0) + 1


def best_settings(records: Iterable[Record]) -> dict[str, dict[str, dict[str, Setting]]]:
    """For each server and load, the settings of the search with the most sequences per second; later records win ties.

    With one call in flight, that is the shortest mean latency.
    """
    best: dict[str, dict[str, Record]] = {}
    for record in records:
        if record.phase != "search" or record.sample is None:
            continue
        known = best.setdefault(record.server, {}).get(record.load.name)
        if (
            known is None
            or known.sample is None
            or record.sample.sequences_per_second >= known.sample.sequences_per_second
        ):
            best[record.server][record.load.name] = record
    return {server: {load: found.settings for load, found in loads.items()} for server, loads in best.items()}


def medians(samples: Iterable[Sample]) -> Sample | None:
    """The median of each figure over rounds; None where there is no sample."""
    taken = list(samples)
    if not taken:
        return None
    figures = [asdict(sample) for sample in taken]
    values = {name: median(figure[name] for figure in figures) for name in figures[0]}
    return Sample(**{**values, "calls": sum(sample.calls for sample in taken)})


@dataclass(frozen=True, slots=True)
class Ratios:
    """Ours over theirs, the median of the ratios of each round in which both were measured.

    Attributes:
        rounds: How many such rounds there were.
        throughput: Above 1: we do more.
        p50, p99: Below 1: we answer sooner.
    """

    rounds: int
    throughput: float
    p50: float
    p99: float


def ratios(ours: dict[int, Sample], theirs: dict[int, Sample]) -> Ratios | None:
    """Compare samples by round; None where no round has both."""
    pairs = [(ours[number], theirs[number]) for number in sorted(ours.keys() & theirs.keys())]
    if not pairs:
        return None
    return Ratios(
        len(pairs),
        median(one.sequences_per_second / other.sequences_per_second for one, other in pairs),
        median(one.p50 / other.p50 for one, other in pairs),
        median(one.p99 / other.p99 for one, other in pairs),
    )
