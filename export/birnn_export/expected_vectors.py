"""Vectors that a model's own code made of some sequences: the proof that a recurrence is all there was to it.

Weights do not show what a model does around its recurrence: a projection, a normalization, another pooling.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.manifest import Pooling
from birnn_bundle.ragged import RaggedBatch
from birnn_export.encoders import SequenceEncoder
from birnn_export.training.checkpoint import LoadedCheckpoint
from birnn_export.verification import reference

# Of vectors made in float32, on whatever device, as a share of the largest number in them.
TOLERANCE = 1e-4


class ExpectationError(Exception):
    """A file of expected vectors cannot be used, or the encoder makes others; says which row, and by how much."""


@dataclass(frozen=True, slots=True, eq=False)
class ExpectedVectors:
    """What a model is known to make of sequences.

    Attributes:
        source: For messages.
        sequences: n texts.
        vectors: float64 [n, D].
    """

    source: str
    sequences: list[str]
    vectors: NDArray[np.float64]


def read_expected(path: Path) -> ExpectedVectors:
    """Read an .npz with `sequences`, an array of n strings, and `vectors` [n, D].

    Raises ExpectationError where it cannot be read or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            sequences, vectors = arrays["sequences"], arrays["vectors"]
    # TypeError: an .npy, which is no context.
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise ExpectationError(
            f"{path}: is not np.savez({path.name!r}, sequences=np.array([...texts]), vectors=...) ({error})"
        ) from error
    if sequences.dtype.kind not in "US" or sequences.ndim != 1 or len(sequences) == 0:
        raise ExpectationError(f"{path}: `sequences` is {sequences.dtype} {list(sequences.shape)}, not texts [n]")
    if vectors.dtype.kind != "f" or vectors.ndim != 2 or len(vectors) != len(sequences):
        raise ExpectationError(
            f"{path}: `vectors` is {vectors.dtype} {list(vectors.shape)}, not floats [{len(sequences)}, D]"
        )
    if not np.isfinite(vectors).all():
        raise ExpectationError(f"{path}: `vectors` holds NaN or infinity")
    try:
        texts = [one.decode() if isinstance(one, bytes) else str(one) for one in sequences.tolist()]
    except UnicodeDecodeError as error:
        raise ExpectationError(f"{path}: `sequences` holds bytes that are not UTF-8 ({error})") from error
    return ExpectedVectors(path.name, texts, vectors.astype(np.float64))


def compare_with_expected(loaded: LoadedCheckpoint, expected: ExpectedVectors, tolerance: float = TOLERANCE) -> float:
    """Largest absolute difference between what the encoder makes, in float64, and what is expected.

    Raises ExpectationError where it is above `tolerance` of the largest expected number, or a sequence cannot be
    tokenized; names another pooling if that one agrees.
    """
    if loaded.config.inputs == "features":
        raise ExpectationError(f"{expected.source}: holds texts, and the encoder reads float features")
    tokenized = loaded.tokenizer.tokenize([text.encode() for text in expected.sequences], loaded.max_length)
    if tokenized.errors:
        first = tokenized.errors[0]
        raise ExpectationError(
            f"{expected.source}: row {first.index}, {expected.sequences[first.index]!r}: {first.reason}"
        )
    error, row = _largest_error(loaded.encoder, tokenized.batch, expected)
    allowed = tolerance * float(np.abs(expected.vectors).max(initial=0.0))
    if error <= allowed:
        return error
    others = [one for one in get_args(Pooling) if one != loaded.config.pooling]
    agreeing = [
        one
        for one in others
        if _largest_error(_with_pooling(loaded.encoder, one), tokenized.batch, expected)[0] <= allowed
    ]
    width = (
        ""
        if np.isfinite(error)
        else f": it makes {loaded.config.dimension} floats, {expected.vectors.shape[1]} are expected"
    )
    advice = (
        f"--pooling {agreeing[0]} agrees"
        if agreeing
        else "the model does something before, behind or beside its recurrence, or cuts texts in another way; see the "
        "lines above for what was not used"
    )
    raise ExpectationError(
        f"{expected.source}: row {row}, {expected.sequences[row]!r}, is off by {error:.2g} (allowed: {allowed:.2g})"
        f"{width}; {advice}"
    )


def _largest_error(encoder: SequenceEncoder, batch: RaggedBatch, expected: ExpectedVectors) -> tuple[float, int]:
    """The largest absolute difference, and its row; infinity for vectors of another width."""
    found = reference(encoder, batch).pooled
    if found.shape != expected.vectors.shape:
        return np.inf, 0
    errors = np.abs(found - expected.vectors).max(axis=1)
    return float(errors.max()), int(errors.argmax())


def _with_pooling(encoder: SequenceEncoder, pooling: Pooling) -> SequenceEncoder:
    """The same weights with another pooling, which has none."""
    other = SequenceEncoder(replace(encoder.config, pooling=pooling))
    other.load_state_dict(encoder.state_dict())
    return other.eval()
