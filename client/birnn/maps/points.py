"""Reads the points of a map from a .parquet file of encodings, with the values that color them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from birnn_bundle.sequences import SequenceFile, SequenceFileError

EMBEDDING, LINE, SEQUENCE = "embedding", "line", "sequence"
RDKIT = "rdkit:"
"""Prefix of a color that is computed from the sequence. A name in `rdkit.Chem.Descriptors` follows it."""


class MapError(Exception):
    """A map cannot be drawn. The message says why and what to do."""


@dataclass(frozen=True)
class Points:
    """The points of a map.

    Attributes:
        vectors: float32 [n, dimension].
        sequences: The encoded sequences, [n].
        color: Name of the quantity that colors the points. Empty for no color.
        values: Text or number that colors each point, [n]. None for a point without a value.
        rows: Number of rows in the file.
        without_vector: Number of chosen rows that have no vector.
    """

    vectors: NDArray[np.float32]
    sequences: list[str]
    color: str
    values: list[Any]
    rows: int
    without_vector: int


def read_points(path: Path, color: str, table: Path | None, limit: int, seed: int) -> Points:
    """Read at most `limit` rows of a file. If it has more, the rows are chosen at random and stay in order.

    Args:
        path: A .parquet file as `birnn encode --out FILE.parquet` writes it. Any file with a column `embedding` of
            equally long lists of floats works.
        color: A column of the file or of `table`, `rdkit:NAME` for a descriptor of the sequence, or empty.
        table: A .csv file with a header. The column `line` of `path` gives the line of each record.
        limit: Maximum number of points.
        seed: Seed of the random choice.

    Raises:
        MapError: A file cannot be read, lacks a column, or holds fewer than two vectors.
    """
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise MapError(f"{path}: cannot be read as .parquet ({error})") from error
    names = file.schema_arrow.names
    if EMBEDDING not in names:
        raise MapError(f"{path}: has no column {EMBEDDING!r}; `birnn encode --out {path}` writes one")
    of_table = _column(table, color) if table is not None else None
    if color and of_table is None and not color.startswith(RDKIT) and color not in names:
        raise MapError(f"{path}: has no column {color!r} to color by; there are {', '.join(names)}")
    wanted = [name for name in dict.fromkeys((EMBEDDING, LINE, SEQUENCE, color)) if name in names]
    rows = file.metadata.num_rows
    taken = _take(file, wanted, _sample(rows, limit, seed))
    filled = [row for row, vector in enumerate(taken[EMBEDDING]) if vector is not None]
    if len(filled) < 2:
        raise MapError(f"{path}: has {len(filled)} rows with a vector; a map needs at least two")
    vectors = _matrix(path, [taken[EMBEDDING][row] for row in filled])
    sequences = [str(taken[SEQUENCE][row]) if SEQUENCE in taken else f"row {row + 1}" for row in filled]
    if not color:
        values: list[Any] = [None] * len(filled)
    elif of_table is not None:
        if LINE not in taken:
            raise MapError(f"{path}: has no column {LINE!r}, so its rows cannot be found in {table}")
        values = [of_table.get(taken[LINE][row]) for row in filled]
    elif color.startswith(RDKIT):
        values = _descriptor(color.removeprefix(RDKIT), sequences)
    else:
        values = [taken[color][row] for row in filled]
    label = color.removeprefix(RDKIT)
    return Points(vectors, sequences, label, values, rows, len(taken[EMBEDDING]) - len(filled))


def _sample(rows: int, limit: int, seed: int) -> NDArray[np.int64]:
    if rows <= limit:
        return np.arange(rows)
    return np.sort(np.random.default_rng(seed).choice(rows, limit, replace=False))


def _take(file: Any, columns: Sequence[str], rows: NDArray[np.int64]) -> dict[str, list[Any]]:
    """Return the values of `columns` at `rows`, which must ascend. The file is read in bounded memory."""
    taken: dict[str, list[Any]] = {name: [] for name in columns}
    first = 0
    for batch in file.iter_batches(columns=list(columns)):
        begin, end = np.searchsorted(rows, [first, first + len(batch)])
        chosen = batch.take(pyarrow.array(rows[begin:end] - first))
        for name in columns:
            taken[name].extend(chosen.column(name).to_pylist())
        first += len(batch)
    return taken


def _matrix(path: Path, vectors: list[Any]) -> NDArray[np.float32]:
    try:
        matrix = np.array(vectors, np.float32)
    except (TypeError, ValueError):
        matrix = np.empty(0, np.float32)
    if matrix.ndim != 2:
        raise MapError(f"{path}: a map needs one vector a row, all of one length; encode without --tokens")
    if not np.isfinite(matrix).all():
        raise MapError(f"{path}: holds values that are not finite")
    return matrix


def _column(table: Path, name: str) -> dict[int, str]:
    """Map the line on which each record ends to the record's field in the column `name`."""
    try:
        with SequenceFile(table, column=name, header=True) as file:
            return {line.number: line.sequence.decode(errors="replace") for line in file}
    except SequenceFileError as error:
        raise MapError(str(error)) from error


def _descriptor(name: str, sequences: Sequence[str]) -> list[Any]:
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import Descriptors
    except ModuleNotFoundError as error:
        raise MapError(f"{RDKIT}{name} needs RDKit: pip install rdkit") from error
    function = dict(Descriptors.descList).get(name)
    if function is None:
        raise MapError(f"RDKit has no descriptor {name!r}; MolLogP, MolWt and TPSA are some that it has")
    rdBase.DisableLog("rdApp.*")
    molecules = map(Chem.MolFromSmiles, sequences)
    return [None if molecule is None else function(molecule) for molecule in molecules]
