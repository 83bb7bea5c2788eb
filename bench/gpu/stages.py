"""What is measured on a GPU, most valuable first. Each stage says what it found as soon as it has found it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.gpu.engines import PRECISIONS, Device, mixed_lengths, open_engine, random_batch, until
from birnn_bundle.bundle import Bundle
from birnn_bundle.onnxruntime import ort
from birnn_bundle.ragged import RaggedBatch
from birnn_service.engine.cuda_engine import MAX_CELLS, SLOTS, provider_options
from birnn_service.engine.cuda_runtime import device_memory
from birnn_service.engine.engine import Engine, Output
from birnn_service.engine.gpu_memory import GpuMemory
from birnn_service.engine.loading import WARM_UP_SECONDS
from birnn_service.engine.memory_need import MemoryNeed
from birnn_service.engine.onnx_session import CPU, CUDA, input_name, open_session
from birnn_service.engine.stored_graph import stored_graph
from birnn_service.errors import StartupError
from birnn_service.memory import resident_memory
from birnn_service.queueing.cost import measure

Found = dict[str, Any]
# Rows that are run alone, too.
ALONE = 200
BATCH = 512
# A rehearsal is to end, and a CPU takes as long for each row.
ROWS = {"cuda": (1, 8, 64, 256, 512, 1024), "cpu": (1, 8, 64)}
STEPS = (8, 48, 128, 512)
IN_FLIGHT = (1, 2, 4)
REPEATS = 3
# Batches between two looks at the memory.
LOOK = 50


@dataclass(frozen=True, slots=True)
class Plan:
    """What a stage is told.

    Attributes:
        bundle: The encoder.
        device: `cuda`, or `cpu` for a rehearsal.
        seconds: Time for the stage.
        count: Sequences that are compared, and batches over which memory is watched.
        sequences: File of SMILES to ask a server for.
        out: Folder for what a stage leaves behind.
    """

    bundle: Path
    device: Device
    seconds: float
    count: int
    sequences: Path
    out: Path

    @property
    def end(self) -> float:
        """When the stage should be done, if it begins now."""
        return time.monotonic() + self.seconds


def correctness(plan: Plan) -> Iterator[Found]:
    """Errors against float64 PyTorch over mixed lengths, batched and alone, in float32 (no TF32) and half precision."""
    from bench.gpu.reference import float64_vectors

    bundle = Bundle.load(plan.bundle)
    longest = min(512, bundle.manifest.max_length)
    batch = random_batch(bundle, mixed_lengths(plan.count, longest, seed=1), seed=2)
    begun = time.monotonic()
    expected = float64_vectors(bundle, batch)
    yield {"sequences": len(batch), "tokens": batch.tokens, "reference_seconds": time.monotonic() - begun}
    for precision in PRECISIONS:
        begun = time.monotonic()
        try:
            engine, report = open_engine(bundle, plan.device, precision)
        except StartupError as error:
            yield {"precision": precision, "error": str(error)}
            continue
        yield {
            "precision": precision,
            "engine": engine.info.label,
            "placement": engine.placement(),
            "load_seconds": time.monotonic() - begun,
            "golden": asdict(report),
        }
        batched = _vectors(engine, batch, BATCH)
        order = np.random.default_rng(3).permutation(len(batch))
        shuffled = np.empty_like(batched)
        shuffled[order] = _vectors(engine, batch.take(order), BATCH)
        alone = _vectors(engine, batch.between(0, min(ALONE, len(batch))), 1)
        yield {
            "precision": precision,
            **_compare(batched, expected),
            "alone": _compare(alone, expected[: len(alone)]),
            "alone_against_batched": float(np.abs(alone - batched[: len(alone)]).max()),
            "in_other_company": float(np.abs(shuffled - batched).max()),
            "equal_bits_in_other_company": float((shuffled == batched).all(axis=1).mean()),
        }
        engine.close()


def sweep(plan: Plan) -> Iterator[Found]:
    """Seconds of batches of the engine by rows and steps, with padding, in flight, and of a bare session beside it."""
    bundle, end = Bundle.load(plan.bundle), plan.end
    shapes = _shapes(bundle, plan.device)
    for share, precision in enumerate(PRECISIONS, start=1):
        try:
            engine, _ = open_engine(bundle, plan.device, precision)
        except StartupError as error:
            yield {"precision": precision, "error": str(error)}
            continue
        # The second half of the time is for the second precision.
        stop = end - plan.seconds * (1 - share / len(PRECISIONS))
        for number in until(stop, len(shapes)):
            rows, steps = shapes[number]
            took = measure(engine, Output.POOLED, rows, steps)
            yield _speed("engine", precision, rows, steps, took)
        yield from _padding(bundle, engine, precision)
        yield from _in_flight(bundle, engine, precision)
        engine.close()
    yield from _bare(bundle, plan.device, shapes, end)


def torch_beside(plan: Plan) -> Iterator[Found]:
    """The same shapes in torch.nn on the same device, recurrence alone, packed sequences."""
    import torch

    from bench.gpu.reference import TorchEncoder

    bundle, end = Bundle.load(plan.bundle), plan.end
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    shapes = _shapes(bundle, plan.device)
    for dtype in (torch.float32, torch.float16):
        if dtype is torch.float16 and plan.device == "cpu":
            continue
        encoder = TorchEncoder(bundle).to(plan.device, dtype)
        for number in until(end, len(shapes)):
            rows, steps = shapes[number]
            inputs = encoder.packed(random_batch(bundle, np.full(rows, steps), seed=4))

            def run() -> None:
                with torch.inference_mode():
                    encoder.recur(inputs)  # noqa: B023
                if plan.device == "cuda":
                    torch.cuda.synchronize()

            yield _speed("torch", str(dtype), rows, steps, _fastest(run))


def memory(plan: Plan) -> Iterator[Found]:
    """Memory before and after loading, and over batches of varied shapes, beside what was predicted."""
    bundle, end = Bundle.load(plan.bundle), plan.end
    need = MemoryNeed.of(bundle.manifest, stored_graph(bundle, Output.POOLED), SLOTS, MAX_CELLS)
    if plan.device == "cuda":
        ort.preload_dlls()
    yield {"before": _used(plan.device), "least": need.least, "most": need.most, "weights": need.weights}
    engine, _ = open_engine(bundle, plan.device, "fp32", GpuMemory())
    yield {"loaded": _used(plan.device)}
    begun = time.monotonic()
    warm, shapes = engine.warm_up(WARM_UP_SECONDS if plan.device == "cuda" else 1.0)
    yield {"warm": warm, "shapes": shapes, "seconds": time.monotonic() - begun, "used": _used(plan.device)}
    random = np.random.default_rng(5)
    longest = min(512, bundle.manifest.max_length)
    for number in until(end, plan.count):
        most, rows = random.integers(1, [longest, BATCH], endpoint=True)
        lengths = random.integers(1, most, rows, endpoint=True)
        output = Output.TOKENS if number % 4 == 3 else Output.POOLED
        engine.run(random_batch(bundle, lengths, seed=number), output)
        if number % LOOK == LOOK - 1:
            yield {"batches": number + 1, "used": _used(plan.device)}
    engine.close()
    del engine
    yield {"closed": _used(plan.device)}


def _shapes(bundle: Bundle, device: Device) -> list[tuple[int, int]]:
    """Rows and steps of the batches that are timed, the smallest first."""
    return [(rows, steps) for rows in ROWS[device] for steps in STEPS if steps <= bundle.manifest.max_length]


def _vectors(engine: Engine, batch: RaggedBatch, rows: int) -> NDArray[np.float32]:
    """Vectors [n, D], computed `rows` at a time."""
    parts = [batch.between(start, min(start + rows, len(batch))) for start in range(0, len(batch), rows)]
    return np.concatenate([engine.run(part, Output.POOLED) for part in parts])


def _compare(found: NDArray[np.float32], expected: NDArray[np.float64]) -> Found:
    values = found.astype(np.float64)
    norms = np.linalg.norm(values, axis=1) * np.linalg.norm(expected, axis=1)
    cosine = float(((values * expected).sum(axis=1) / norms).min())
    return {"error": float(np.abs(found - expected).max()), "cosine": cosine}


def _padding(bundle: Bundle, engine: Engine, precision: str) -> Iterator[Found]:
    """Whether steps that are padding for all rows but one cost anything."""
    longest = min(256, bundle.manifest.max_length)
    for what, lengths in {"equal": [longest] * 256, "one long": [8] * 255 + [longest], "short": [8] * 256}.items():
        batch = random_batch(bundle, np.array(lengths), seed=6)
        took = _fastest(lambda: engine.run(batch, Output.POOLED))  # noqa: B023
        yield {"what": f"padding, {what}", "precision": precision, "rows": 256, "steps": longest, "seconds": took}


def _in_flight(bundle: Bundle, engine: Engine, precision: str) -> Iterator[Found]:
    """Throughput with several batches at the same time."""
    batch = random_batch(bundle, np.full(256, min(48, bundle.manifest.max_length)), seed=7)
    for threads in IN_FLIGHT:
        runs = 4 * threads
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda _: engine.run(batch, Output.POOLED), range(threads)))
            begun = time.perf_counter()
            list(pool.map(lambda _: engine.run(batch, Output.POOLED), range(runs)))
            took = (time.perf_counter() - begun) / runs
        yield {**_speed("in flight", precision, 256, int(batch.lengths[0]), took), "threads": threads}


def _bare(bundle: Bundle, device: Device, shapes: list[tuple[int, int]], end: float) -> Iterator[Found]:
    """`session.run` of the stored graph on numpy arrays, as a user of onnxruntime would write it."""
    graph = stored_graph(bundle, Output.POOLED)
    provider, options = (CUDA, provider_options(8 << 30)) if device == "cuda" else (CPU, {})
    session = open_session(graph.model.SerializeToString(), graph.label, provider, options, weights=graph.weights)
    for number in until(end, len(shapes)):
        rows, steps = shapes[number]
        batch = random_batch(bundle, np.full(rows, steps), seed=8)
        feeds = {input_name(session): batch.padded(), "lengths": batch.lengths.astype(np.int32)}
        took = _fastest(lambda: session.run(["pooled"], feeds))  # noqa: B023
        yield _speed("session.run", "fp32", rows, steps, took)


def _fastest(run: Callable[[], object]) -> float:
    run()
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return min(times)


def _speed(what: str, precision: str, rows: int, steps: int, seconds: float) -> Found:
    return {
        "what": what,
        "precision": precision,
        "rows": rows,
        "steps": steps,
        "seconds": seconds,
        "microseconds_per_step": 1e6 * seconds / steps,
        "sequences_per_second": rows / seconds,
    }


def _used(device: Device) -> int:
    """Bytes in use: on the GPU by all programs, on a CPU by this one."""
    if device == "cpu":
        return resident_memory()
    free, total = device_memory()
    return total - free
