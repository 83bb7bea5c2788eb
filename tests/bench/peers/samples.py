from bench.loads import Load, Sample
from bench.peers.records import Phase, Record
from bench.peers.server import Setting

BULK, LONE = Load("bulk", 32, 8), Load("lone", 1, 1)


def sample(rate: float, p50: float = 0.01, p99: float = 0.02, batch: int = 1) -> Sample:
    return Sample(100, 2.0, rate / batch, rate, p50, p99)


def record(
    server: str,
    rate: float | None,
    *,
    number: int = 1,
    load: Load = BULK,
    phase: Phase = "round",
    settings: dict[str, Setting] | None = None,
    facts: dict[str, float] | None = None,
    p99: float = 0.02,
) -> Record:
    found = None if rate is None else sample(rate, p99=p99, batch=load.batch)
    error = "it broke" if rate is None else None
    return Record(
        phase, number, server, load, "perf_analyzer", settings or {}, found, error, f"start {server}", facts or {}
    )
