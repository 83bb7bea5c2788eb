"""What vectors have to beat: fingerprints, descriptors and mere counts of tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import Descriptors, rdFingerprintGenerator

from birnn_bundle.smiles import split

Vectors = NDArray[np.float32]

FINGERPRINT_BITS = 2048
_LARGEST = 1e6


def ecfp4_counts(smiles: Sequence[str]) -> Vectors:
    """Morgan counts of radius 2, folded to `FINGERPRINT_BITS`."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=FINGERPRINT_BITS)
    return np.stack([generator.GetCountFingerprintAsNumPy(Chem.MolFromSmiles(one)) for one in smiles]).astype(
        np.float32
    )


def rdkit_descriptors(smiles: Sequence[str]) -> Vectors:
    """All of RDKit's descriptors; undefined ones are 0, and the few that explode are cut at a million."""
    rdBase.DisableLog("rdApp.*")
    calculate: Any = partial(Descriptors.CalcMolDescriptors, missingVal=0.0, silent=True)
    values = np.array([list(calculate(Chem.MolFromSmiles(one)).values()) for one in smiles], np.float64)
    return np.nan_to_num(values).clip(-_LARGEST, _LARGEST).astype(np.float32)


def token_counts(smiles: Sequence[str]) -> Vectors:
    """How often each token of the SMILES grammar occurs."""
    counts = [Counter(split(one)) for one in smiles]
    vocabulary = sorted(set().union(*counts))
    return np.array([[one[token] for token in vocabulary] for one in counts], np.float32)


SPARSE = frozenset({"ECFP4 counts"})
"""Baselines that are not standardized."""

BASELINES = {
    "ECFP4 counts": ecfp4_counts,
    "RDKit descriptors": rdkit_descriptors,
    "token counts": token_counts,
}
