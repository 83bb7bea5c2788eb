"""Proof that exported graphs compute what PyTorch computes, whatever stands beside or behind a sequence.

The reference is the encoder in float64, each sequence alone and without padding, so that it cannot share a mistake
about lengths with the graphs. The graphs run in float32 on onnxruntime's CPU provider: each sequence alone; all of a
case in one batch padded with `PAD_ID`; and in one batch with further steps and random ids as padding.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from birnn_bundle.golden import Golden
from birnn_bundle.manifest import Verification
from birnn_bundle.onnxruntime import ort
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.tokenizer import PAD_ID
from birnn_export.encoders import SequenceEncoder
from birnn_export.id_source import Source
from birnn_export.recurrent_weights import refuse_non_finite

TOLERANCE = 1e-5
PROVIDER = "CPUExecutionProvider"
# Rows and steps of the cases; longer ones than the encoder accepts are cut to its longest.
ROWS = (1, 2, 3, 16, 32)
STEPS = (1, 2, 7, 48, 24)
ROWS_OF_LONGEST = (1, 4)
FURTHER_STEPS = 5

GraphOutput = Literal["pooled", "tokens"]


class VerificationError(Exception):
    """A graph disagrees with PyTorch, or cannot run; says in which case, row and dimension."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One call of a graph.

    Attributes:
        label: Which case it belongs to, and how its rows are arranged.
        first_row: Number of its first row within the case.
        expected: The rows and their reference.
        inputs: The same rows padded: ids int32 [T, B], or features float32 [T, B, F].
    """

    label: str
    first_row: int
    expected: Golden
    inputs: NDArray[Any]


def verify_graphs(
    encoder: SequenceEncoder,
    pooled_path: Path,
    tokens_path: Path,
    *,
    max_length: int,
    source: Source,
    golden: Golden | None = None,
    tolerance: float = TOLERANCE,
) -> Verification:
    """Run both graphs over a grid of (B, T) with mixed lengths, and over the golden sequences.

    Args:
        encoder: The encoder that the graphs were built from.
        pooled_path: The graph with output `pooled`.
        tokens_path: The graph with output `tokens`.
        max_length: The longest sequence of the grid, in tokens.
        source: Where the tokens of the grid come from.
        golden: Further sequences with their reference.
        tolerance: Largest absolute difference allowed.

    Raises:
        WeightsError: A weight of the encoder is not finite.
        VerificationError: A graph cannot be loaded or run, gives another shape, or is further off than `tolerance`.
    """
    for name, tensor in encoder.state_dict().items():
        refuse_non_finite(name, tensor.numpy(force=True))
    cases = [reference(encoder, batch) for batch in grid(source, max_length)]
    runs = [run for case in cases for run in _runs(case, "", source)]
    if golden is not None:
        runs += _runs(golden, "golden sequences, ", source)
    return Verification(
        max_error_pooled=_largest_error(encoder, pooled_path, "pooled", runs, tolerance),
        max_error_tokens=_largest_error(encoder, tokens_path, "tokens", runs, tolerance),
        cases=2 * len(runs),
        torch=torch.__version__,
        onnxruntime=ort.__version__,
        provider=PROVIDER,
    )


def reference(encoder: SequenceEncoder, batch: RaggedBatch, dtype: torch.dtype = torch.float64) -> Golden:
    """Encodings of `batch` by PyTorch in float64 (or `dtype`), each sequence alone and without padding."""
    exact = copy.deepcopy(encoder).to(device="cpu", dtype=dtype).eval()
    return one_by_one(exact, batch, lambda values: exact.run(values, torch.tensor([values.shape[1]])))


def one_by_one(encoder: SequenceEncoder, batch: RaggedBatch, run: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Golden:
    """Encodings of `batch`, each sequence alone and without padding, pooled as `encoder` does.

    Args:
        encoder: Whose type and pooling these are.
        batch: The sequences.
        run: Per-token outputs [1, T, 2H] and final states [1, 2H] of ids int64 [1, T], or of features [1, T, F].
    """
    dtype = next(encoder.parameters()).dtype
    pooled, tokens = [], []
    with torch.inference_mode():
        for row in range(len(batch)):
            values = torch.from_numpy(batch.row(row))[None]
            outputs, final = run(values.to(dtype) if batch.features else values.long())
            pooled.append(encoder.pool(outputs, final, torch.tensor([values.shape[1]]))[0].double().numpy())
            tokens.append(outputs[0].double().numpy())
    return Golden(batch, np.stack(pooled), np.concatenate(tokens))


def grid(source: Source, max_length: int) -> Iterator[RaggedBatch]:
    """Batches of mixed lengths, a single token and the longest of each batch always among them."""
    shapes = [(rows, min(steps, max_length)) for rows, steps in zip(ROWS, STEPS, strict=True)]
    shapes += [(rows, max_length) for rows in ROWS_OF_LONGEST]
    for rows, steps in shapes:
        lengths = source.random.integers(1, steps, rows, endpoint=True)
        lengths[0] = 1
        lengths[-1] = steps
        source.random.shuffle(lengths)
        yield source.batch(lengths.tolist())


def _runs(case: Golden, name: str, source: Source) -> Iterator[Run]:
    """Every arrangement of the rows of a case."""
    batch = case.batch
    steps = int(batch.lengths.max())
    name += f"B={len(batch)}, T={steps}"
    yield Run(f"{name}, in one batch", 0, case, batch.padded(PAD_ID))
    with_junk = batch.padded(PAD_ID, steps + FURTHER_STEPS)
    is_padding = np.arange(len(with_junk))[:, None] >= batch.lengths
    with_junk[is_padding] = source.junk(with_junk.shape)[is_padding]
    yield Run(f"{name}, in one batch with random ids as padding", 0, case, with_junk)
    for row in range(len(batch)):
        begin, end = batch.offsets[row : row + 2]
        alone = Golden(batch.take(np.array([row])), case.pooled[row : row + 1], case.tokens[begin:end])
        yield Run(f"{name}, each row alone", row, alone, alone.batch.padded(PAD_ID))


def _largest_error(
    encoder: SequenceEncoder, path: Path, output: GraphOutput, runs: list[Run], tolerance: float
) -> float:
    """Largest absolute error of one graph over `runs`. Raises VerificationError; see `verify_graphs`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(path, options, providers=[PROVIDER])
    except Exception as error:  # onnxruntime raises a dozen types of its own
        raise VerificationError(f"{path.name}: onnxruntime cannot load it: {error}") from error
    largest = 0.0
    for run in runs:
        lengths = run.expected.batch.lengths.astype(np.int32)
        try:
            (found,) = session.run([output], {encoder.config.inputs: run.inputs, "lengths": lengths})
        except Exception as error:
            raise VerificationError(f"{path.name}, {run.label}: onnxruntime cannot run it: {error}") from error
        expected = _dense(run.expected, output, len(run.inputs))
        if found.shape != expected.shape:
            raise VerificationError(
                f"{path.name}, {run.label}: {output} has shape {list(found.shape)}, {list(expected.shape)} expected"
            )
        difference = np.abs(found - expected)
        # Written so that NaN is refused.
        if not (difference <= tolerance).all():
            raise VerificationError(f"{path.name}: {_disagreement(encoder, output, run, found, expected, tolerance)}")
        largest = max(largest, float(difference.max()))
    return largest


def _disagreement(
    encoder: SequenceEncoder,
    output: GraphOutput,
    run: Run,
    found: NDArray[np.float32],
    expected: NDArray[np.float64],
    tolerance: float,
) -> str:
    """Where the largest error is, and how far float32 itself is off there, to tell rounding from a wrong graph."""
    difference = np.nan_to_num(np.abs(found - expected), nan=np.inf)
    place = np.unravel_index(difference.argmax(), difference.shape)
    *step, row, dimension = map(int, place)
    length = int(run.expected.batch.lengths[row])
    at = f"step {step[0]}{' (padding)' if step[0] >= length else ''}, " if step else ""
    in_float32 = _dense(reference(encoder, run.expected.batch, torch.float32), output, len(run.inputs))
    return (
        f"disagrees with PyTorch in float64: {run.label}: row {run.first_row + row} of length {length}, {at}"
        f"dimension {dimension}: expected {expected[place]:.8g}, got {found[place]:.8g}, off by "
        f"{difference[place]:.2g} (tolerance {tolerance:g}; PyTorch in float32 is off by "
        f"{np.abs(in_float32 - expected)[place]:.2g} there and by up to {np.abs(in_float32 - expected).max():.2g} in "
        "this run)"
    )


def _dense(expected: Golden, output: GraphOutput, steps: int) -> NDArray[np.float64]:
    """What a graph should give: pooled [B, D], or tokens [T, B, 2H] with zeros beyond each length."""
    if output == "pooled":
        return expected.pooled
    batch = expected.batch
    dense = np.zeros((len(batch), steps, expected.tokens.shape[1]))
    dense[np.arange(steps) < batch.lengths[:, None]] = expected.tokens
    return dense.transpose(1, 0, 2)
