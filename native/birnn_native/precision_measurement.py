"""What each reduced precision of the kernels costs an encoder, measured as the native engine computes it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np

from birnn_bundle.agreement import Pair, agreement
from birnn_bundle.golden import Golden
from birnn_bundle.precisions import (
    MIN_COSINES,
    REDUCED,
    Agreement,
    PrecisionRecord,
    Quality,
    ReducedPrecision,
    record_of,
)
from birnn_bundle.quality_set import QualitySet, explained
from birnn_bundle.ragged import RaggedBatch
from birnn_native.kernel import Floats, Kernel, Pooling
from birnn_native.library import precisions
from birnn_native.recurrent_graph import RecurrentGraph

# Sequences that are compared at a time: encodings of tokens take memory.
CHUNK = 256


@dataclass(frozen=True, slots=True)
class Material:
    """What to measure with.

    Attributes:
        golden: Golden sequences with their encodings in float64.
        others: Further sequences; compared with the kernels in float32, whose own error is ten thousand times smaller.
        quality: Sequences with a quantity to explain.
        min_cosines: Least cosines that the author allows.
    """

    golden: Golden
    others: RaggedBatch | None = None
    quality: QualitySet | None = None
    min_cosines: Mapping[ReducedPrecision, float] = field(default_factory=MIN_COSINES.copy)


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found.

    Attributes:
        records: Of each precision that could be measured.
        problems: Why others could not be, by precision.
    """

    records: dict[ReducedPrecision, PrecisionRecord]
    problems: dict[ReducedPrecision, str]


def measure_precisions(graph: RecurrentGraph, pooling: Pooling, material: Material) -> Measured:
    """Measure all reduced precisions that the kernels compute in on this machine.

    Args:
        graph: The encoder.
        pooling: How it makes one vector of a sequence.
        material: What to measure with.

    Raises:
        NativeUnavailableError: There are no kernels here.
        ValueError: There is no kernel for the encoder's cell.
    """
    exact = graph.kernel()
    found = Measured({}, {})
    float32 = None if material.quality is None else _quality_of(exact, pooling, material.quality)
    here = precisions()
    for precision in REDUCED:
        if precision == "fp16":
            # Of GPUs only.
            continue
        if precision not in here:
            found.problems[precision] = "this processor lacks the instructions"
            continue
        try:
            kernel = graph.kernel(precision=precision)
        except ValueError as error:
            found.problems[precision] = str(error)
            continue
        golden = _golden_agreement(kernel, pooling, material.golden)
        others = None if material.others is None else _agreement(kernel, exact, pooling, material.others)
        if golden is None or (others is None and material.others is not None):
            found.problems[precision] = "some of its encodings are not finite numbers"
            continue
        quality = None
        if material.quality is not None and float32 is not None:
            quality = Quality(
                data=material.quality.name,
                sequences=len(material.quality.batch),
                float32=float32,
                reduced=_quality_of(kernel, pooling, material.quality),
            )
        found.records[precision] = record_of(
            precision, golden, engine_of(kernel), material.min_cosines[precision], others, quality
        )
    return found


def engine_of(kernel: Kernel) -> str:
    """What computes, as replies name it."""
    return f"native {version('birnn-serving')} {kernel.instruction_set}"


def _golden_agreement(kernel: Kernel, pooling: Pooling, golden: Golden) -> Agreement | None:
    pooled, tokens = (_run(kernel, golden.batch, what) for what in (pooling, Pooling.TOKENS))
    return agreement((pooled, golden.pooled), [(tokens, golden.tokens)])


def _agreement(kernel: Kernel, exact: Kernel, pooling: Pooling, batch: RaggedBatch) -> Agreement | None:
    def tokens() -> Iterator[Pair]:
        for part in _parts(batch):
            yield _run(kernel, part, Pooling.TOKENS), _run(exact, part, Pooling.TOKENS)

    return agreement((_pooled(kernel, pooling, batch), _pooled(exact, pooling, batch)), tokens())


def _quality_of(kernel: Kernel, pooling: Pooling, quality: QualitySet) -> float:
    return explained(_pooled(kernel, pooling, quality.batch), quality.targets)


def _pooled(kernel: Kernel, pooling: Pooling, batch: RaggedBatch) -> Floats:
    return np.concatenate([_run(kernel, part, pooling) for part in _parts(batch)])


def _parts(batch: RaggedBatch) -> Iterator[RaggedBatch]:
    return (batch.between(start, min(start + CHUNK, len(batch))) for start in range(0, len(batch), CHUNK))


def _run(kernel: Kernel, batch: RaggedBatch, pooling: Pooling) -> Floats:
    return kernel.run(batch.values, batch.offsets, pooling)
