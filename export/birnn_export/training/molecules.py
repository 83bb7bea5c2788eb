"""What RDKit says about the molecules of a corpus: descriptors and folded ECFP4 bits, computed once and cached.

Fingerprints are Morgan bits of radius 2 folded to `FINGERPRINT_BITS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import rdFingerprintGenerator

from birnn_export.training.cache import Arrays, cached
from birnn_export.training.descriptors import DESCRIPTOR_NAMES, describe
from birnn_export.training.parallel import map_chunks

FINGERPRINT_BITS = 1024
FINGERPRINT_RADIUS = 2

_DESCRIPTORS = sum(map(len, DESCRIPTOR_NAMES.values()))
_VERSION = "3"


@dataclass(frozen=True)
class Molecules:
    """What RDKit said about n SMILES.

    usable: bool [n], false for SMILES that RDKit cannot read and for excluded molecules. excluded: how many of those
    were excluded. descriptors: float32 [n, F], see `descriptors.columns`. fingerprints: uint8
    [n, FINGERPRINT_BITS / 8], packed bits. Rows that are not usable are zero.
    """

    usable: NDArray[np.bool_]
    excluded: int
    descriptors: NDArray[np.float32]
    fingerprints: NDArray[np.uint8]


def canonical_smiles(smiles: Iterable[str]) -> set[str]:
    """RDKit's canonical SMILES of those that it can read."""
    rdBase.DisableLog("rdApp.*")
    molecules = (Chem.MolFromSmiles(one) for one in smiles)
    return {Chem.MolToSmiles(molecule) for molecule in molecules if molecule is not None}


def describe_molecules(
    smiles: Sequence[str],
    excluded: frozenset[str] = frozenset(),
    workers: int | None = None,
    cache: Path | None = None,
) -> Molecules:
    """Descriptors and fingerprints of `smiles`, leaving out the canonical SMILES in `excluded`.

    Takes about 3 ms a molecule on each of `workers` processes (default: one a core). With a folder `cache` the
    answer is kept there and read back when the same molecules are asked for again.
    """
    request = (
        f"{_VERSION} {DESCRIPTOR_NAMES} {FINGERPRINT_BITS} {FINGERPRINT_RADIUS} {rdBase.rdkitVersion}",
        *smiles,
        "",
        *sorted(excluded),
    )
    arrays = cached(cache, "molecules", request, partial(_compute, smiles, excluded, workers))
    state = arrays["state"]
    return Molecules(state == _USABLE, int((state == _EXCLUDED).sum()), arrays["descriptors"], arrays["fingerprints"])


def _compute(smiles: Sequence[str], excluded: frozenset[str], workers: int | None) -> Arrays:
    parts = map_chunks(partial(_describe_chunk, excluded=excluded), smiles, workers, "descriptors")
    columns = zip(*parts, strict=True)
    return dict(zip(("state", "descriptors", "fingerprints"), map(np.concatenate, columns), strict=True))


_Chunk = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]
_USABLE, _UNREADABLE, _EXCLUDED = 1, 0, 2


def _describe_chunk(smiles: Sequence[str], excluded: frozenset[str]) -> _Chunk:
    rdBase.DisableLog("rdApp.*")
    state = np.zeros(len(smiles), np.uint8)
    descriptors = np.zeros((len(smiles), _DESCRIPTORS), np.float32)
    fingerprints = np.zeros((len(smiles), FINGERPRINT_BITS // 8), np.uint8)
    for row, one in enumerate(smiles):
        molecule = Chem.MolFromSmiles(one)
        if molecule is None or molecule.GetNumAtoms() == 0:
            continue
        if excluded and Chem.MolToSmiles(molecule) in excluded:
            state[row] = _EXCLUDED
            continue
        state[row] = _USABLE
        descriptors[row] = describe(molecule)
        fingerprints[row] = np.packbits(_morgan().GetFingerprintAsNumPy(molecule))
    return state, descriptors, fingerprints


@once
def _morgan() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=FINGERPRINT_RADIUS, fpSize=FINGERPRINT_BITS)
