"""Results as `birnn loadtest --out` writes them, of calls that were drawn rather than sent."""

import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from birnn_loadtest.load_test import Outcome, SloSearch, StepResult
from birnn_loadtest.machine import Machine
from birnn_loadtest.objectives import Objective
from birnn_loadtest.recorder import OK, Recorder, Recording
from birnn_loadtest.result import Result
from birnn_loadtest.search import Capacity
from birnn_loadtest.server_metrics import Buckets, ServerSplit
from birnn_loadtest.settings import Settings
from birnn_loadtest.verdict import Verdict, verdict
from birnn_loadtest.worker import Opened

SLO = SloSearch([Objective("p99", 0.05), Objective("errors", 0.01)], 0.95, 0.05, 1000.0)


def server_split() -> ServerSplit:
    """Of 100 calls: 2 ms in the server, half of which stages explain; 60 batches of 1 to 4 sequences."""
    seconds = {"request": 0.2, "tokenize": 0.02, "queue": 0.03, "compute": 0.05}
    return ServerSplit(
        stages={stage: Buckets({0.001: 50.0, 0.01: 100.0, math.inf: 100.0}, total) for stage, total in seconds.items()},
        batches=Buckets({1.0: 30.0, 2.0: 30.0, 4.0: 60.0, 8.0: 60.0, math.inf: 60.0}, 120.0),
    )


def recording(
    seconds: int = 20, rate: int = 400, scale: float = 0.004, failing: float = 0.0, seed: int = 0, lag: float = 1e-4
) -> Recording:
    """Calls with exponential latency, some of which fail; `scale` is their mean in seconds."""
    random = np.random.default_rng(seed)
    recorder = Recorder(0.0, seconds)
    for due in np.sort(random.uniform(0, seconds, seconds * rate)):
        code = "UNAVAILABLE" if random.uniform() < failing else OK
        recorder.record("smiles x 1", due, due + lag, due + lag + random.exponential(scale), code, 1)
    if failing:
        recorder.note("UNAVAILABLE", "the server is away")
    return recorder.finished(0.2)


def saved(
    what: Recording | None = None, split: ServerSplit | None = None, steps: int = 0, name: str = "smiles"
) -> dict[str, Any]:
    """A result as JSON data. With `steps` it is of a search; `name` stands wherever a text is anybody's choice."""
    what = what or recording()
    outcome = Outcome(datetime(2026, 1, 2, 3, 4, tzinfo=UTC), what, None, split)
    for number in range(steps):
        rate = 100.0 * 2**number
        step = recording(5, int(rate), 0.004 * 1.8**number, seed=number)
        found = verdict(step, SLO.objectives, SLO.confidence)
        if number == 1:
            found = Verdict("generator", f"the generator was late {name}", found.bounds)
        outcome.steps.append(StepResult(rate, step, found, confirming=False))
        outcome.capacity = Capacity(100.0, True, 200.0, "server", f"100 calls/s; {name}")
    settings = Settings(
        name, "encode", False, [name], ["1"], [f"{name}.smi"], "400 calls/s", 400.0, None, 20.0, 1.0, 10.0, 0.01, 0, 1,
        None, 100, 20, 1e-4, None,
    )  # fmt: skip
    machine = Machine(name, 2, "Linux", "3.11", {"grpcio": "1.80"})
    opened = Opened([], name, "uvloop", True)
    result = Result(settings, SLO if steps else None, machine, opened, outcome)
    data: dict[str, Any] = json.loads(json.dumps(result.to_json()))
    data["encoders"] = [{"encoder": name, "version": "1", "text": name}]
    data["failures"] = [name] if what.failed else []
    return data


def written(folder: Path, make: Callable[[], dict[str, Any]] = saved, name: str = "run") -> Path:
    """A result in a file."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(make()))
    return path
