"""How far engines are off: the exported graphs on onnxruntime, and the native kernels where they are built.

onnxruntime runs each sequence alone and in batches, and pads a batch twice: with `PAD_ID`, and with further steps and
random ids; the native kernels, which pad nothing, run the batches only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import NDArray

from birnn_bundle.golden import Golden
from birnn_bundle.onnxruntime import ort
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.tokenizer import PAD_ID
from birnn_export.encoders import EncoderConfig
from birnn_export.id_source import Source
from birnn_native.kernel import POOLINGS, Pooling
from birnn_native.library import NativeUnavailableError
from birnn_native.recurrent_graph import UnsupportedGraphError, read_graph

PROVIDER = "CPUExecutionProvider"
FURTHER_STEPS = 5

Output = Literal["pooled", "tokens"]
OUTPUTS: tuple[Output, ...] = get_args(Output)


class VerificationError(Exception):
    """A graph disagrees with PyTorch, or cannot run; says in which case, row and dimension."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Sequences that an engine runs in one batch.

    Attributes:
        label: Which case it belongs to, and how its rows are arranged.
        first_row: Number of its first row within the case.
        expected: The rows and their reference.
        inputs: The same rows padded: ids int32 [T, B], or features float32 [T, B, F].
        plain: Whether it is all rows of a case, padded to the longest with `PAD_ID`.
    """

    label: str
    first_row: int
    expected: Golden
    inputs: NDArray[Any]
    plain: bool = False


Compute = Callable[[Run, Output], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """Something that computes encodings.

    Attributes:
        name: For messages.
        compute: One output of a run: pooled [B, D], or tokens [T, B, 2H] with zeros beyond each length.
    """

    name: str
    compute: Compute


@dataclass(frozen=True, slots=True, eq=False)
class Deviation:
    """How far one output of one run is off.

    Attributes:
        engine: What ran it.
        output: Which output.
        run: Which run.
        errors: Largest absolute error of each row, float64 [B]; infinity where there is a NaN.
    """

    engine: Engine
    output: Output
    run: Run
    errors: NDArray[np.float64]


def runs_of(case: Golden, name: str, source: Source) -> Iterator[Run]:
    """Every arrangement of the rows of a case."""
    batch = case.batch
    steps = int(batch.lengths.max())
    name += f"B={len(batch)}, T={steps}"
    yield Run(f"{name}, in one batch", 0, case, batch.padded(PAD_ID), plain=True)
    with_junk = batch.padded(PAD_ID, steps + FURTHER_STEPS)
    is_padding = np.arange(len(with_junk))[:, None] >= batch.lengths
    with_junk[is_padding] = source.junk(with_junk.shape)[is_padding]
    yield Run(f"{name}, in one batch with random ids as padding", 0, case, with_junk)
    for row in range(len(batch)):
        begin, end = batch.offsets[row : row + 2]
        alone = Golden(batch.take(np.array([row])), case.pooled[row : row + 1], case.tokens[begin:end])
        yield Run(f"{name}, each row alone", row, alone, alone.batch.padded(PAD_ID))


def deviations(engine: Engine, output: Output, runs: Iterable[Run]) -> Iterator[Deviation]:
    """How far an engine is off in each run. Raises VerificationError where it cannot run or gives another shape."""
    for run in runs:
        found, expected = engine.compute(run, output), reference_of(run, output)
        if found.shape != expected.shape:
            raise VerificationError(
                f"{engine.name}, {run.label}: {output} has shape {list(found.shape)}, {list(expected.shape)} expected"
            )
        yield Deviation(engine, output, run, row_errors(found, expected, output))


def row_errors(found: NDArray[Any], expected: NDArray[np.float64], output: Output) -> NDArray[np.float64]:
    """Largest absolute error of each row, [B]; infinity where there is a NaN."""
    difference = np.nan_to_num(np.abs(found - expected), nan=np.inf)
    errors: NDArray[np.float64] = difference.max(axis=1 if output == "pooled" else (0, 2))
    return errors


def reference_of(run: Run, output: Output) -> NDArray[np.float64]:
    """What an engine should give."""
    return dense(run.expected, output, len(run.inputs))


def dense(golden: Golden, output: Output, steps: int) -> NDArray[np.float64]:
    """Pooled encodings [B, D], or those of tokens [T, B, 2H] with zeros beyond each length."""
    return golden.pooled if output == "pooled" else _padded(golden.batch, golden.tokens, steps)


def onnxruntime_engine(config: EncoderConfig, path: Path) -> Engine:
    """onnxruntime on its CPU provider, running one exported graph. Raises VerificationError where it cannot load it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(path, options, providers=[PROVIDER])
    except Exception as error:  # onnxruntime raises a dozen types of its own
        raise VerificationError(f"{path.name}: onnxruntime cannot load it: {error}") from error

    def compute(run: Run, output: Output) -> NDArray[np.float32]:
        lengths = run.expected.batch.lengths.astype(np.int32)
        try:
            (found,) = session.run([output], {config.inputs: run.inputs, "lengths": lengths})
        except Exception as error:
            raise VerificationError(f"{path.name}, {run.label}: onnxruntime cannot run it: {error}") from error
        values: NDArray[np.float32] = found
        return values

    return Engine(path.name, compute)


def native_engine(config: EncoderConfig, path: Path) -> Engine | None:
    """The native kernels on the weights of a graph; None where they are not built or do not run it: then onnxruntime
    serves it, too."""
    try:
        kernel = read_graph(onnx.load(str(path))).kernel()
    except (NativeUnavailableError, UnsupportedGraphError, ValueError):
        return None
    poolings = {"pooled": POOLINGS[config.pooling], "tokens": Pooling.TOKENS}

    def compute(run: Run, output: Output) -> NDArray[np.float32]:
        batch = run.expected.batch
        found = kernel.run(batch.values, batch.offsets, poolings[output])
        return found if output == "pooled" else _padded(batch, found, len(run.inputs))

    return Engine(f"the native kernels ({kernel.instruction_set})", compute)


def _padded(batch: RaggedBatch, tokens: NDArray[Any], steps: int) -> NDArray[Any]:
    """Values of tokens [tokens, D] as [T, B, D], with zeros beyond each length."""
    padded = np.zeros((len(batch), steps, tokens.shape[1]), tokens.dtype)
    padded[np.arange(steps) < batch.lengths[:, None]] = tokens
    return padded.transpose(1, 0, 2)
