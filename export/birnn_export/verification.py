"""Proof that an exported encoder computes what PyTorch computes, whatever stands beside or behind a sequence.

The reference is the encoder in float64, each sequence alone and without padding, so that it cannot share a mistake
about lengths with the graphs. What has to agree with it is in `birnn_export.engine_errors`.

How closely depends on the encoder: a recurrence with large weights lets rounding errors grow with each step, and then
PyTorch's own float32 is as far off as any other. So where no tolerance is given, `FLOAT32_MARGIN` times the largest
error of PyTorch in float32 on the same sequences is allowed, but never less than `TOLERANCE` nor more than
`LARGEST_TOLERANCE`.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from birnn_export.engine_errors import (
    OUTPUTS,
    PROVIDER,
    Deviation,
    Engine,
    Output,
    VerificationError,
    dense,
    deviations,
    native_engine,
    onnxruntime_engine,
    reference_of,
    row_errors,
    runs_of,
)
from birnn_export.id_source import IdSource, Source
from birnn_export.recurrent_weights import refuse_non_finite

TOLERANCE = 1e-5
LARGEST_TOLERANCE = 1e-3
FLOAT32_MARGIN = 4
# Errors this many times larger than PyTorch's own in float32 are not rounding errors.
ROUNDING = 100
# Above it nothing is left of an encoding.
MOST_TOLERANCE = 0.1
# Rows and steps of the cases; longer ones than the encoder accepts are cut to its longest.
ROWS = (1, 2, 3, 16, 32)
STEPS = (1, 2, 7, 48, 24)
ROWS_OF_LONGEST = (1, 4)


@dataclass(frozen=True, slots=True)
class Proof:
    """What was verified.

    Attributes:
        tolerance: Largest absolute error that was allowed.
        verification: The errors that were measured, and of what.
    """

    tolerance: float
    verification: Verification


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Errors by sequence: lengths int64 [n], and largest absolute errors float64 [n]."""

    lengths: NDArray[np.int64]
    errors: NDArray[np.float64]

    def largest(self, longest: int | None = None) -> float:
        """The largest error, of sequences up to a length."""
        errors = self.errors if longest is None else self.errors[self.lengths <= longest]
        return float(errors.max(initial=0.0))


def verify_graphs(
    encoder: SequenceEncoder,
    pooled_path: Path,
    tokens_path: Path,
    *,
    max_length: int,
    source: Source,
    golden: Golden | None = None,
    tolerance: float | None = None,
) -> Proof:
    """Run both graphs over a grid of (B, T) with mixed lengths, and over the golden sequences.

    Args:
        encoder: The encoder that the graphs were built from.
        pooled_path: The graph with output `pooled`.
        tokens_path: The graph with output `tokens`.
        max_length: The longest sequence of the grid, in tokens.
        source: Where the tokens of the grid come from.
        golden: Further sequences with their reference.
        tolerance: Largest absolute difference allowed; None for what float32 can do (see above).

    Raises:
        WeightsError: A weight of the encoder is not finite.
        VerificationError: A graph cannot be loaded or run, gives another shape, or an engine is further off than
            allowed.
    """
    for name, tensor in encoder.state_dict().items():
        refuse_non_finite(name, tensor.numpy(force=True))
    cases = [(reference(encoder, batch), "") for batch in grid(source, max_length)]
    if golden is not None:
        cases.append((golden, "golden sequences, "))
    own = _in_float32(encoder, [case for case, _ in cases])
    allowed = allowed_error(own.largest()) if tolerance is None else tolerance
    runs = [run for case, name in cases for run in runs_of(case, name, source)]
    plain = [run for run in runs if run.plain]

    paths: dict[Output, Path] = {"pooled": pooled_path, "tokens": tokens_path}
    engines = {output: onnxruntime_engine(encoder.config, path) for output, path in paths.items()}
    native = native_engine(encoder.config, pooled_path)
    found: list[Deviation] = []
    for output in OUTPUTS:
        found += deviations(engines[output], output, runs)
        if native is not None:
            found += deviations(native, output, plain)
    if wrong := next((one for one in found if not one.errors.max() <= allowed), None):
        advice = _advice(_rows(found), own, tolerance, isinstance(source, IdSource))
        raise VerificationError(f"{_disagreement(encoder, wrong, allowed)}. {advice}")

    def largest(engine: Engine, output: Output) -> float:
        return max(float(one.errors.max()) for one in found if (one.engine, one.output) == (engine, output))

    return Proof(
        allowed,
        Verification(
            max_error_pooled=largest(engines["pooled"], "pooled"),
            max_error_tokens=largest(engines["tokens"], "tokens"),
            cases=2 * len(runs),
            torch=torch.__version__,
            onnxruntime=ort.__version__,
            provider=PROVIDER,
            max_error_float32=own.largest(),
            max_error_native=None if native is None else max(largest(native, output) for output in OUTPUTS),
        ),
    )


def allowed_error(own: float) -> float:
    """What is allowed where PyTorch in float32 is itself off by `own`; two digits, rounded up."""
    largest = min(LARGEST_TOLERANCE, max(TOLERANCE, FLOAT32_MARGIN * own))
    return min(LARGEST_TOLERANCE, _rounded_up(largest, 2))


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


def _in_float32(encoder: SequenceEncoder, cases: Sequence[Golden]) -> _Rows:
    """How far PyTorch itself is off in float32, each sequence alone and all of a case in one batch."""
    lengths, errors = [], []
    for case in cases:
        steps = int(case.batch.lengths.max())
        for found in (reference(encoder, case.batch, torch.float32), _in_one_batch(encoder, case.batch)):
            for output in OUTPUTS:
                lengths.append(case.batch.lengths)
                errors.append(row_errors(dense(found, output, steps), dense(case, output, steps), output))
    return _Rows(np.concatenate(lengths), np.concatenate(errors))


def _in_one_batch(encoder: SequenceEncoder, batch: RaggedBatch) -> Golden:
    """Encodings of `batch` by PyTorch as the encoder stands, in float32."""
    lengths = torch.from_numpy(batch.lengths)
    values = torch.from_numpy(batch.padded(PAD_ID).swapaxes(0, 1).copy())
    encoder = copy.deepcopy(encoder).eval()
    with torch.inference_mode():
        outputs, final = encoder.run(values if batch.features else values.long(), lengths)
        pooled = encoder.pool(outputs, final, lengths)
    tokens = outputs.numpy()[np.arange(outputs.shape[1]) < batch.lengths[:, None]]
    return Golden(batch, pooled.double().numpy(), tokens.astype(np.float64))


def _rows(found: Sequence[Deviation]) -> _Rows:
    return _Rows(
        np.concatenate([one.run.expected.batch.lengths for one in found]),
        np.concatenate([one.errors for one in found]),
    )


def _disagreement(encoder: SequenceEncoder, wrong: Deviation, allowed: float) -> str:
    """Where a run is off most, and how far float32 itself is there."""
    run, output = wrong.run, wrong.output
    values, expected = wrong.engine.compute(run, output), reference_of(run, output)
    difference = np.nan_to_num(np.abs(values - expected), nan=np.inf)
    place = np.unravel_index(difference.argmax(), difference.shape)
    *step, row, dimension = map(int, place)
    length = int(run.expected.batch.lengths[row])
    at = f"step {step[0]}{' (padding)' if step[0] >= length else ''}, " if step else ""
    in_float32 = dense(reference(encoder, run.expected.batch, torch.float32), output, len(run.inputs))
    return (
        f"{wrong.engine.name}: disagrees with PyTorch in float64: {run.label}: row {run.first_row + row} of length "
        f"{length}, {at}dimension {dimension}: expected {expected[place]:.8g}, got {values[place]:.8g}, off by "
        f"{difference[place]:.2g} (tolerance {allowed:g}; PyTorch in float32 is off by "
        f"{np.abs(in_float32 - expected)[place]:.2g} there and by up to {np.abs(in_float32 - expected).max():.2g} in "
        "this run)"
    )


def _advice(found: _Rows, own: _Rows, tolerance: float | None, texts: bool) -> str:
    """What to do about errors that are too large."""
    largest = found.largest()
    if not largest <= ROUNDING * own.largest():
        return "That is more than rounding: the graph or the engine is wrong. Please report it"
    advice = [
        f"This recurrence lets rounding errors grow: over all runs up to {largest:.2g} here, {own.largest():.2g} in "
        "PyTorch's own float32"
    ]
    if longest := _longest_that_agrees(found, own, tolerance):
        advice.append(
            f"Up to {longest} tokens all agree: where sequences are no longer, add --max-length {longest} or less"
        )
    if texts:
        advice.append("--sequences FILE verifies with real sequences, which mostly stir it up less than random ids")
    # Where float32 overflows, no tolerance helps.
    if math.isfinite(2 * largest) and (enough := _rounded_up(2 * largest, 1)) <= MOST_TOLERANCE:
        above = f", which a server must be told to allow, too: it is above {LARGEST_TOLERANCE:g}"
        advice.append(
            f"--tolerance {enough:g} accepts errors of that size{above if enough > LARGEST_TOLERANCE else ''}"
        )
    return ". ".join(advice)


def _longest_that_agrees(found: _Rows, own: _Rows, tolerance: float | None) -> int:
    """The length up to which all sequences would pass if there were no longer ones; 0 if there is none."""
    agreeing = 0
    for length in np.unique(found.lengths).tolist():
        allowed = allowed_error(own.largest(length)) if tolerance is None else tolerance
        if not found.largest(length) <= allowed:
            break
        agreeing = length
    return agreeing


def _rounded_up(value: float, digits: int) -> float:
    unit = 10.0 ** (math.floor(math.log10(value)) + 1 - digits)
    # What is a round number already stays one, whatever the division says in its last bit.
    return float(f"{math.ceil(round(value / unit, 6)) * unit:.{digits - 1}e}")
