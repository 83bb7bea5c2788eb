"""Sequences with a measured quantity, and how much of it simple models on frozen encodings explain."""

import importlib.util
import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.numerals import counted, is_number
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.sequences import TABLES, SequenceFileError, TextSource, kind_of, layout_of, read_records
from birnn_bundle.tokenizer import Tokenizer

FOLDS = 5
LEAST_ROWS = 10 * FOLDS
# The penalty is chosen among these, by leaving one out of the training folds.
PENALTIES = (1e1, 1e2, 1e3, 1e4, 1e5)


class QualityError(Exception):
    """A quality set cannot be used; the message says which, and why."""


@dataclass(frozen=True, slots=True, eq=False)
class QualitySet:
    """Sequences with a quantity.

    Attributes:
        name: File and column, for reports.
        batch: The n sequences.
        targets: The quantity of each, float64 [n], not all the same.
        left_out: Rows of the file without a number, or with a sequence that the tokenizer cannot read.
    """

    name: str
    batch: RaggedBatch
    targets: NDArray[np.float64]
    left_out: int


def read_quality_set(entry: str, tokenizer: Tokenizer, max_length: int) -> QualitySet:
    """The rows of `FILE:COLUMN:TARGET`, columns by name, or numbered from 1 without a header; too long ones are cut.

    Raises:
        QualityError: It is no such table, fewer than `LEAST_ROWS` rows can be used, all targets are the same, or
            scikit-learn is not installed.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise QualityError("a quality set needs scikit-learn: pip install 'birnn-serving[sklearn]'")
    file, *columns = entry.rsplit(":", 2)
    path = Path(file)
    if len(columns) != 2:
        raise QualityError(f"{entry!r} is not FILE:COLUMN:TARGET")
    try:
        rows = _rows(path, columns)
    except SequenceFileError as error:
        raise QualityError(str(error)) from error
    targets = np.array([_number(target) for _, target in rows], dtype=np.float64)
    numbered = np.flatnonzero(np.isfinite(targets))
    tokenized = tokenizer.tokenize([rows[row][0] for row in numbered], max_length, truncate=True)
    targets = targets[numbered][tokenized.rows]
    if len(targets) < LEAST_ROWS:
        raise QualityError(
            f"{path}: {len(targets)} of {counted(len(rows), 'row')} have a readable sequence and a number; "
            f"{LEAST_ROWS} at least are needed"
        )
    if (targets == targets[0]).all():
        raise QualityError(f"{path}: all numbers in column {columns[1]!r} are the same; there is nothing to explain")
    return QualitySet(f"{path.name}:{columns[1]}", tokenized.batch, targets, len(rows) - len(targets))


def explained(encodings: NDArray[np.float32], targets: NDArray[np.float64]) -> float:
    """Mean r2 over five folds of a ridge regression on standardized encodings [n, D]; the folds are always the same."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model: Any = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    return float(cross_val_score(model, encodings.astype(np.float64), targets, cv=folds, scoring="r2").mean())


def _rows(path: Path, columns: list[str]) -> list[tuple[bytes, str]]:
    """Sequence and number of each record; those of malformed ones are empty."""
    kind = kind_of(path)
    if kind not in TABLES:
        raise QualityError(f"{path}: a {kind} file has no columns to take sequences and numbers from")
    with closing(TextSource(path)) as source:
        layout = layout_of(kind, header=not all(map(is_number, columns)))
        return [
            (source.to_bytes(record.fields[0]).strip(), record.fields[1])
            for record in read_records(source, layout, columns)
        ]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
