"""Engines by themselves, on one core: ours, a bare `session.run` and PyTorch, on the lengths of real sequences."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bench.contestant import ROUNDING_FLOAT32, ROUNDING_REDUCED, Contestant, WorkerContestant
from bench.encoders import random_encoder
from bench.libraries.library import Worker
from birnn_bundle.bundle import Bundle
from birnn_bundle.manifest import Manifest
from birnn_bundle.onnxruntime import ort
from birnn_bundle.ragged import RaggedBatch
from birnn_service.engine.engine import Engine, EngineName, Output, Precision
from birnn_service.engine.loading import load_engine
from birnn_service.errors import StartupError

# Number of waiting sequences among which a busy server chooses those that run together.
WINDOW = 1024
# Tokens of the sequences of a batch of equal lengths, and of a lone one: about the mean of SMILES.
STEPS = 48
# Of a library in a round, which runs a lone sequence over and over.
LONE_SECONDS = 0.005
BARE = "session.run, equal lengths"
ENGINES: list[tuple[EngineName, Precision]] = [
    ("onnxruntime", "fp32"),
    ("native", "fp32"),
    ("native", "bf16"),
    ("native", "int8"),
]


@dataclass(frozen=True, slots=True)
class Contest:
    """Batches and lengths of one encoder, and who runs them.

    Attributes:
        bundle: The encoder.
        batch: Real sequences, in arrival order.
        engines: Ours, by name.
        session: The pooled graph by itself, on one thread.
        encoder: The PyTorch module.
        workers: Other libraries that run it.
    """

    bundle: Bundle
    batch: RaggedBatch
    engines: dict[str, Engine]
    session: ort.InferenceSession
    encoder: torch.nn.Module
    workers: Sequence[Worker] = ()

    @classmethod
    def prepare(
        cls, bundle: Bundle, batch: RaggedBatch, engines: dict[str, Engine], workers: Sequence[Worker] = ()
    ) -> "Contest":
        """Load what is not ours."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        graph = bundle.path / bundle.manifest.graphs.pooled
        session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        encoder, _ = random_encoder(bundle.manifest.architecture, bundle.manifest.layers)
        return cls(bundle, batch, engines, session, encoder, workers)

    def contestants(self, rows: int) -> list[Contestant]:
        """Everyone who runs batches of `rows`."""
        arrival = split(self.batch, np.arange(len(self.batch)), rows)
        grouped = split(self.batch, group_by_length(self.batch.lengths, WINDOW), rows)
        found = []
        for name, engine in self.engines.items():
            pads = not engine.info.packed
            rounding = ROUNDING_FLOAT32 if name.endswith(" fp32") else ROUNDING_REDUCED
            run = _engine_run(engine, arrival)
            found.append(Contestant(f"{name}, arrival order", run, arrival, pads, rounding))
            run = _engine_run(engine, grouped)
            found.append(Contestant(f"{name}, grouped by length", run, grouped, pads, rounding))
        equal = self._equal(rows)
        found.append(Contestant(BARE, self._bare_run(equal), equal, True))
        found.append(Contestant("PyTorch, packed, arrival order", self._torch_run(arrival), arrival, False))
        for worker in self.workers:
            name, pads = worker.library.label, worker.library.pads
            found.append(WorkerContestant.of(f"{name}, equal lengths", worker, equal, pads, equal=True))
            found.append(WorkerContestant.of(f"{name}, arrival order", worker, arrival, pads))
            found.append(WorkerContestant.of(f"{name}, grouped by length", worker, grouped, pads))
        return found

    def careless(self, rows: int) -> list[Contestant]:
        """Runs rows of several lengths as if they had one: the vectors are wrong, but the mistake is easily made."""
        arrival = split(self.batch, np.arange(len(self.batch)), rows)
        return [
            WorkerContestant.of(f"{worker.library.label}, one pass over padding", worker, arrival, True, equal=True)
            for worker in self.workers
            if worker.library.careless
        ]

    def _equal(self, rows: int) -> list[RaggedBatch]:
        return [equal_lengths(rows, STEPS, self.bundle.manifest.vocab_size, seed) for seed in range(8)]

    def _bare_run(self, batches: Sequence[RaggedBatch]) -> Callable[[int], object]:
        feeds = [{"ids": batch.padded(), "lengths": batch.lengths.astype(np.int32)} for batch in batches]
        return lambda number: self.session.run(["pooled"], feeds[number])

    def _torch_run(self, batches: Sequence[RaggedBatch]) -> Callable[[int], object]:
        inputs = [
            (torch.from_numpy(batch.padded().T.astype(np.int64)), torch.from_numpy(batch.lengths)) for batch in batches
        ]

        def run(number: int) -> object:
            with torch.inference_mode():
                return self.encoder(*inputs[number])

        return run


def load_engines(bundle: Bundle, slots: int = 1) -> tuple[dict[str, Engine], dict[str, str]]:
    """Our engines for a bundle on the CPU, proven by the golden gate, and why the others cannot run."""
    engines: dict[str, Engine] = {}
    missing: dict[str, str] = {}
    for name, precision in ENGINES:
        label = f"{name} {precision}"
        try:
            engines[label] = load_engine(bundle, "cpu", engine=name, precision=precision, slots=slots).engine
        except StartupError as error:
            missing[label] = str(error)
    return engines, missing


def run_contest(contest: Contest, rows: int, *, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Let everyone run batches of `rows`, in turn, `rounds` times for `seconds` each; medians."""
    contestants = contest.contestants(rows)
    flops = flops_per_token(contest.bundle.manifest)
    for contestant in contestants:
        contestant.run(0)
    for number in range(rounds):
        for contestant in contestants if number % 2 else reversed(contestants):
            contestant.measure(seconds)
    return [
        {
            "contestant": contestant.name,
            "batch": rows,
            "sequences_per_second": contestant.tokens_per_second / contestant.mean_length,
            "tokens_per_second": contestant.tokens_per_second,
            "gflops": contestant.tokens_per_second * flops / 1e9,
        }
        for contestant in contestants
    ]


def lone_latencies(contest: Contest, *, repeats: int) -> dict[str, float]:
    """Median seconds of a lone sequence of `STEPS` tokens, by contestant; taken in turn."""
    single = [equal_lengths(1, STEPS, contest.bundle.manifest.vocab_size, 0)]
    runs = {name: _engine_run(engine, single) for name, engine in contest.engines.items()}
    runs["session.run"] = contest._bare_run(single)
    runs["PyTorch"] = contest._torch_run(single)
    return _in_turn(runs, repeats) | lone_latencies_of_libraries(contest, repeats=repeats)


def lone_latencies_of_libraries(contest: Contest, *, repeats: int) -> dict[str, float]:
    """The same of other libraries, which keep the time themselves."""
    single = [equal_lengths(1, STEPS, contest.bundle.manifest.vocab_size, 0)]
    found = {}
    for worker in contest.workers:
        contestant = WorkerContestant.of(worker.library.label, worker, single, False, equal=True)
        for _ in range(repeats):
            contestant.measure(LONE_SECONDS)
        found[worker.library.label] = STEPS / contestant.tokens_per_second
    return found


def lone_latencies_on_two_cores(bundle: Bundle, *, repeats: int) -> dict[str, float]:
    """The same of the engines that walk both directions of a lone sequence at the same time, on two cores."""
    single = equal_lengths(1, STEPS, bundle.manifest.vocab_size, 0)
    engines, _ = load_engines(bundle, slots=2)

    def pair_run(engine: Engine) -> Callable[[int], object]:
        return lambda number: engine.run(single, Output.POOLED, 2)

    runs = {name: pair_run(engine) for name, engine in engines.items() if engine.info.run_slots >= 2}
    return _in_turn(runs, repeats) if runs else {}


def flops_per_token(manifest: Manifest) -> float:
    """Floating point operations of one token, 2 for a multiply-add, of all gates, layers and directions.

    What an engine saves by folding the embedding into a table counts as done, so that rates compare.
    """
    gates = len(manifest.cell.gates)
    sizes = zip(manifest.input_sizes, manifest.layer_sizes, strict=True)
    return float(sum(2 * 2 * gates * hidden * (size + hidden) for size, hidden in sizes))


def group_by_length(lengths: NDArray[np.int64], window: int) -> NDArray[np.intp]:
    """An order in which each `window` of sequences is sorted by length."""
    blocks = [np.arange(start, min(start + window, len(lengths))) for start in range(0, len(lengths), window)]
    return np.concatenate([block[np.argsort(lengths[block], kind="stable")] for block in blocks])


def split(batch: RaggedBatch, order: NDArray[np.intp], rows: int) -> list[RaggedBatch]:
    """Whole batches of `rows`, in `order` within each and shuffled among each other by a fixed seed."""
    batches = [batch.take(order[start : start + rows]) for start in range(0, len(order) - rows + 1, rows)]
    # Otherwise a round of short sequences would follow one of long ones.
    return [batches[number] for number in np.random.default_rng(0).permutation(len(batches)).tolist()]


def equal_lengths(rows: int, steps: int, vocabulary: int, seed: int) -> RaggedBatch:
    """Random ids, every sequence of `steps` tokens."""
    ids = np.random.default_rng(seed).integers(0, vocabulary, rows * steps, dtype=np.int32)
    return RaggedBatch(ids, np.arange(0, rows * steps + 1, steps, dtype=np.int64))


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """This thread, and those that it starts, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _engine_run(engine: Engine, batches: Sequence[RaggedBatch]) -> Callable[[int], object]:
    return lambda number: engine.run(batches[number], Output.POOLED)


def _in_turn(runs: dict[str, Callable[[int], object]], repeats: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            # One that does not count after the others have had the caches.
            run(0)
            start = time.perf_counter()
            run(0)
            times[name].append(time.perf_counter() - start)
    return {name: median(found) for name, found in times.items()}
