"""Tables of molecules with one measured property, and how they are split into folds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from sklearn.model_selection import KFold, StratifiedKFold

from birnn_bundle.sequences import Layout, SequenceFileError, TextSource, read_records
from birnn_bundle.smiles import split
from birnn_bundle.tokenizer import SequenceError

Task = Literal["regression", "classification"]
Folds = list[tuple[NDArray[np.intp], NDArray[np.intp]]]

FOLDS = 5

# Where the benchmarks lie in a data folder, as `read_table` takes them.
KNOWN = {
    "CDDD lipophilicity": "quality/cddd_lipo.csv:smiles:label:fold",
    "ESOL": "quality/esol.csv:smiles:measured log solubility in mols per litre",
    "Lipophilicity": "quality/lipophilicity.csv:smiles:exp",
}


class TableError(Exception):
    """A table cannot be used; the message says which, and why."""


@dataclass(frozen=True)
class Table:
    """Molecules with one property.

    Attributes:
        name: For reports.
        smiles: n SMILES that RDKit and the tokenizer's grammar can read.
        target: float64 [n]; zeros and ones for classification.
        fold: Number of the fold that each row belongs to, [n]; None to split at random.
        left_out: Rows of the file that could not be used.
    """

    name: str
    smiles: list[str]
    target: NDArray[np.float64]
    fold: NDArray[np.int64] | None
    left_out: int

    @property
    def task(self) -> Task:
        """Classification where all targets are zero or one."""
        return "classification" if set(np.unique(self.target)) <= {0.0, 1.0} else "regression"

    def splits(self, seed: int) -> Folds:
        """Rows to train on and rows to test, for each fold: the file's own, otherwise five at random by `seed`."""
        if self.fold is not None:
            return [
                (np.flatnonzero(self.fold != one), np.flatnonzero(self.fold == one)) for one in np.unique(self.fold)
            ]
        kind = StratifiedKFold if self.task == "classification" else KFold
        return list(kind(FOLDS, shuffle=True, random_state=seed).split(self.smiles, self.target))


def read_table(entry: str, name: str | None = None, folder: Path | None = None) -> Table:
    """Read `FILE.csv:SMILES:TARGET[:FOLD]`, names of columns; `folder` is where a relative FILE lies.

    Raises TableError for a file or column that is not there and for a table with fewer than ten rows per fold.
    """
    file, *columns = entry.split(":")
    if len(columns) not in (2, 3):
        raise TableError(f"{entry!r} is not FILE.csv:SMILES:TARGET or FILE.csv:SMILES:TARGET:FOLD")
    path = Path(file) if folder is None else folder / file
    try:
        rows = _rows(path, columns)
    except SequenceFileError as error:
        raise TableError(str(error)) from error
    rdBase.DisableLog("rdApp.*")
    kept = [row for row in rows if _is_molecule(row[0].strip()) and _is_number(row[1])]
    if len(kept) < 10 * FOLDS:
        raise TableError(f"{path}: {len(kept)} of {len(rows)} rows have a readable SMILES and a number; too few")
    return Table(
        name=name or path.stem,
        smiles=[row[0].strip() for row in kept],
        target=np.array([float(row[1]) for row in kept]),
        fold=np.array([int(float(row[2])) for row in kept]) if len(columns) == 3 else None,
        left_out=len(rows) - len(kept),
    )


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    with closing(TextSource(path)) as source:
        return [record.fields for record in read_records(source, Layout(header=True), columns)]


def _is_molecule(smiles: str) -> bool:
    try:
        split(smiles)
    except SequenceError:
        return False
    molecule = Chem.MolFromSmiles(smiles)
    return molecule is not None and molecule.GetNumAtoms() > 0


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
