"""Proof that exported graphs compute what PyTorch computes, whatever stands beside or behind a sequence.

The reference is the encoder in float64, each sequence alone and without padding, so that it cannot share a mistake
about lengths with the graphs. The graphs run in float32 on onnxruntime's CPU provider: each sequence alone; all of a
case in one batch padded with `PAD_ID`; and in one batch with further steps and random ids as padding.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from bundle.golden import Golden
from bundle.manifest import Verification
from bundle.ragged import RaggedBatch
from bundle.tokenizer import PAD_ID
from export.encoders import SequenceEncoder
from export.golden_sequences import random_ids
from export.recurrent_weights import refuse_non_finite

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
        ids: The same rows padded, int32 [T, B].
    """

    label: str
    first_row: int
    expected: Golden
    ids: NDArray[np.int32]


def verify_graphs(
    encoder: SequenceEncoder,
    pooled_path: Path,
    tokens_path: Path,
    *,
    max_length: int,
    golden: Golden | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Verification:
    """Run both graphs over a grid of (B, T) with mixed lengths, and over the golden sequences.

    Args:
        encoder: The encoder that the graphs were built from.
        pooled_path: The graph with output `pooled`.
        tokens_path: The graph with output `tokens`.
        max_length: The longest sequence of the grid, in tokens.
        golden: Further sequences with their reference.
        tolerance: Largest absolute difference allowed.
        seed: Of the ids and lengths.

    Raises:
        WeightsError: A weight of the encoder is not finite.
        VerificationError: A graph cannot be loaded or run, gives another shape, or is further off than `tolerance`.
    """
    for name, tensor in encoder.state_dict().items():
        refuse_non_finite(name, tensor.numpy(force=True))
    vocab_size = encoder.config.vocab_size
    cases = [reference(encoder, batch) for batch in grid(vocab_size, max_length, seed)]
    runs = [run for case in cases for run in _runs(case, "", vocab_size, seed)]
    if golden is not None:
        runs += _runs(golden, "golden sequences, ", vocab_size, seed)
    return Verification(
        max_error_pooled=_largest_error(pooled_path, "pooled", runs, tolerance),
        max_error_tokens=_largest_error(tokens_path, "tokens", runs, tolerance),
        cases=2 * len(runs),
        torch=torch.__version__,
        onnxruntime=ort.__version__,
        provider=PROVIDER,
    )


def reference(encoder: SequenceEncoder, batch: RaggedBatch) -> Golden:
    """Encodings of `batch` by `encoder` in float64, each sequence alone and without padding."""
    exact = copy.deepcopy(encoder).double().cpu().eval()
    pooled, tokens = [], []
    with torch.inference_mode():
        for row in range(len(batch)):
            ids = torch.from_numpy(batch.row(row)).long()[None]
            lengths = torch.tensor([ids.shape[1]])
            outputs, final = exact.run(ids, lengths)
            pooled.append(exact.pool(outputs, final, lengths)[0].numpy())
            tokens.append(outputs[0].numpy())
    return Golden(batch, np.stack(pooled), np.concatenate(tokens))


def grid(vocab_size: int, max_length: int, seed: int) -> Iterator[RaggedBatch]:
    """Batches of mixed lengths, a single token and the longest of each batch always among them."""
    random = np.random.default_rng(seed)
    shapes = [(rows, min(steps, max_length)) for rows, steps in zip(ROWS, STEPS, strict=True)]
    shapes += [(rows, max_length) for rows in ROWS_OF_LONGEST]
    for rows, steps in shapes:
        lengths = random.integers(1, steps, rows, endpoint=True)
        lengths[0] = 1
        lengths[-1] = steps
        random.shuffle(lengths)
        yield RaggedBatch.from_lists([random_ids(random, vocab_size, int(length)) for length in lengths])


def _runs(case: Golden, name: str, vocab_size: int, seed: int) -> Iterator[Run]:
    """Every arrangement of the rows of a case."""
    batch = case.batch
    steps = int(batch.lengths.max())
    name += f"B={len(batch)}, T={steps}"
    yield Run(f"{name}, in one batch", 0, case, batch.padded(PAD_ID))
    with_junk = batch.padded(PAD_ID, steps + FURTHER_STEPS)
    junk = np.random.default_rng(seed).integers(0, vocab_size, with_junk.shape, dtype=np.int32)
    is_padding = np.arange(len(with_junk))[:, None] >= batch.lengths
    yield Run(f"{name}, in one batch with random ids as padding", 0, case, np.where(is_padding, junk, with_junk))
    for row in range(len(batch)):
        begin, end = batch.offsets[row : row + 2]
        alone = Golden(batch.take(np.array([row])), case.pooled[row : row + 1], case.tokens[begin:end])
        yield Run(f"{name}, each row alone", row, alone, alone.batch.padded(PAD_ID))


def _largest_error(path: Path, output: GraphOutput, runs: list[Run], tolerance: float) -> float:
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
            (found,) = session.run([output], {"ids": run.ids, "lengths": lengths})
        except Exception as error:
            raise VerificationError(f"{path.name}, {run.label}: onnxruntime cannot run it: {error}") from error
        largest = max(largest, _error(path.name, output, run, found, tolerance))
    return largest


def _error(graph: str, output: GraphOutput, run: Run, found: NDArray[np.float32], tolerance: float) -> float:
    """Largest absolute error of one run. Raises VerificationError where it is above `tolerance`, or not a number."""
    expected = run.expected.pooled if output == "pooled" else _dense(run.expected, len(run.ids))
    if found.shape != expected.shape:
        raise VerificationError(f"{graph}, {run.label}: {output} has shape {found.shape}, {expected.shape} expected")
    difference = np.abs(found - expected)
    # Written so that NaN is refused.
    if not (difference <= tolerance).all():
        place = np.unravel_index(np.nan_to_num(difference, nan=np.inf).argmax(), difference.shape)
        *step, row, dimension = map(int, place)
        length = int(run.expected.batch.lengths[row])
        at = f"step {step[0] + 1}{' (padding)' if step[0] >= length else ''}, " if step else ""
        raise VerificationError(
            f"{graph} disagrees with PyTorch in float64: {run.label}: row {run.first_row + row} of length {length}, "
            f"{at}dimension {dimension}: expected {expected[place]:.8g}, got {found[place]:.8g} "
            f"(off by {difference[place]:.2g}, tolerance {tolerance:g})"
        )
    return float(difference.max())


def _dense(expected: Golden, steps: int) -> NDArray[np.float64]:
    """Per-token reference with zeros beyond each length, [T, B, 2H]."""
    batch = expected.batch
    dense = np.zeros((len(batch), steps, expected.tokens.shape[1]))
    dense[np.arange(steps) < batch.lengths[:, None]] = expected.tokens
    return dense.transpose(1, 0, 2)
