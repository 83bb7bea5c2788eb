"""What is seen of a server during a run besides its replies: its counters, and what its parts cost."""

import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from itertools import count, islice

import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from bench.loads import Load
from bench.peers.server import Command
from birnn.openinference import inference_pb2 as pb
from birnn_bundle.bundle import Bundle
from birnn_service.engine.engine import Engine, Output
from birnn_service.engine.loading import load_engine
from birnn_service.protocols.protobuf import head_of

# Of each part by itself.
ALONE_SECONDS = 0.3
MICROSECONDS = 1e6


def own_counters(command: Command) -> dict[str, float]:
    """Counters and sums of our own server; none of another one."""
    if command.metrics is None:
        return {}
    with urllib.request.urlopen(command.metrics, timeout=10) as reply:
        text = reply.read().decode()
    totals: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith(("_total", "_sum", "_count")):
                totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
    return totals


def own_shares(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """Share of computed cells that were padding, and of sequences answered by an equal one in flight."""
    if not after:
        return {}

    def risen(name: str) -> float:
        return after.get(f"birnn_{name}_total", 0.0) - before.get(f"birnn_{name}_total", 0.0)

    tokens, padded = risen("tokens"), risen("padded_tokens")
    sequences, shared = risen("sequences"), risen("shared_sequences")
    return {
        "padding": padded / (tokens + padded) if tokens else 0.0,
        "shared": shared / (sequences + shared) if sequences else 0.0,
    }


def rows_of_batches(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Sequences in a batch of our server on average; 0 where none ran."""
    rows, batches = (
        after.get(f"birnn_batch_sequences_{what}", 0.0) - before.get(f"birnn_batch_sequences_{what}", 0.0)
        for what in ("sum", "count")
    )
    return rows / batches if batches else 0.0


class PartsAlone:
    """What tokenizing, the engine and a reply over gRPC cost by themselves, in CPU time of this process."""

    def __init__(self, bundle: Bundle, sequences: Sequence[str]) -> None:
        self._bundle = bundle
        self._sequences = [sequence.encode() for sequence in sequences]
        self._engines: dict[str, Engine] = {}

    def costs(self, load: Load, rows: float, precision: str) -> dict[str, float]:
        """CPU microseconds of a call: `tokenize_us`, `engine_us` in batches of `rows` as they come, `reply_us`."""
        assert self._bundle.tokenizer is not None
        tokenizer, most = self._bundle.tokenizer, self._bundle.manifest.max_length
        calls = [
            self._sequences[at : at + load.batch]
            for at in range(0, min(1024, len(self._sequences)) - load.batch + 1, load.batch)
        ]
        tokenize = cpu_seconds(lambda number: tokenizer.tokenize(calls[number % len(calls)], most))
        size = max(1, round(rows))
        batch = tokenizer.tokenize(self._sequences, most).batch
        batches = [batch.between(at, at + size) for at in islice(range(0, len(batch) - size + 1, size), 64)]
        engine = self._engine(precision)
        run = cpu_seconds(lambda number: engine.run(batches[number % len(batches)], Output.POOLED))
        vectors = np.ones((load.batch, self._bundle.manifest.dimension), dtype=np.float32)
        reply = cpu_seconds(lambda number: write_reply(vectors))
        return {
            "tokenize_us": MICROSECONDS * tokenize,
            "engine_us": MICROSECONDS * run * load.batch / size,
            "reply_us": MICROSECONDS * reply,
        }

    def _engine(self, precision: str) -> Engine:
        if precision not in self._engines:
            loaded = load_engine(self._bundle, "cpu", engine="auto", precision=precision)  # type: ignore[arg-type]
            self._engines[precision] = loaded.engine
        return self._engines[precision]


def write_reply(vectors: NDArray[np.float32]) -> bytes:
    """A ModelInferResponse, written as the server writes it (`birnn_service.protocols.protobuf.with_numbers`)."""
    output = pb.ModelInferResponse.InferOutputTensor(name="embedding", datatype="FP32", shape=vectors.shape)
    reply = pb.ModelInferResponse(model_name="model", model_version="1", outputs=[output])
    head = head_of(pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER, vectors.nbytes)
    return b"".join([head, vectors.data, reply.SerializeToString()])


def cpu_seconds(work: Callable[[int], object]) -> float:
    """CPU seconds of this process for each call of `work`, which is given the call's number."""
    work(0)
    begin, start = time.perf_counter(), time.process_time()
    for number in count(1):
        work(number)
        if time.perf_counter() >= begin + ALONE_SECONDS:
            break
    return (time.process_time() - start) / number
