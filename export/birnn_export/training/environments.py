"""What surrounds each atom: the ECFP environments at the tokens that write atoms, computed once and cached.

An environment is an atom with its neighbors up to a radius in bonds, as in a Morgan fingerprint (Rogers and Hahn,
2010). Telling it teaches an encoder local chemistry (compare the contextual property of GROVER, Rong et al., 2020).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import rdFingerprintGenerator

from birnn_bundle.smiles import split
from birnn_export.training.cache import Arrays, cached
from birnn_export.training.parallel import map_chunks

RADII = (1, 2)

CLASSES = (1023, 4095)
"""Most frequent environments of each radius that are told apart."""

_VERSION = "2"
_ATOM = re.compile(r"\[|[A-Za-z*]")


def atom_environments(
    smiles: Sequence[str], workers: int | None = None, cache: Path | None = None
) -> NDArray[np.uint32]:
    """Environments at each token of `smiles`, one after another: uint32 [tokens, len(RADII)], 0 where no atom stands.

    Zero too for atoms without neighbors, and all over a SMILES of which RDKit drops atoms (explicit hydrogens) or that
    it cannot read. Takes about 0.3 ms a SMILES on each of `workers` processes (default: one a core). With a folder
    `cache` the answer is kept there.
    """
    request = (f"{_VERSION} {RADII} {rdBase.rdkitVersion}", *smiles)
    return cached(cache, "environments", request, partial(_compute, smiles, workers))["environments"]


def _compute(smiles: Sequence[str], workers: int | None) -> Arrays:
    return {"environments": np.concatenate(map_chunks(_environments, smiles, workers, "environments"))}


def classify(environments: NDArray[np.uint32], frequent_in: NDArray[np.uint32]) -> NDArray[np.uint16]:
    """Number the environments: 1 for the most frequent of its radius in `frequent_in`, 0 for rare ones and no atom.

    Of radius r the first `CLASSES[r]` have numbers of their own.
    """
    numbered = np.zeros(environments.shape, np.uint16)
    for column, classes in enumerate(CLASSES):
        values, counts = np.unique(frequent_in[:, column], return_counts=True)
        counts, values = counts[values != 0], values[values != 0]
        known = values[np.argsort(-counts, kind="stable")[:classes]]
        if not len(known):
            continue
        order = np.argsort(known)
        place = np.searchsorted(known[order], environments[:, column]).clip(max=len(known) - 1)
        found = known[order][place] == environments[:, column]
        numbered[found, column] = 1 + order[place[found]]
    return numbered


def _environments(smiles: Sequence[str]) -> NDArray[np.uint32]:
    rdBase.DisableLog("rdApp.*")
    return np.concatenate([_of_one(one) for one in smiles])


def _of_one(smiles: str) -> NDArray[np.uint32]:
    tokens = split(smiles)
    environments = np.zeros((len(tokens), len(RADII)), np.uint32)
    atoms = [place for place, token in enumerate(tokens) if _ATOM.match(token)]
    molecule = Chem.MolFromSmiles(smiles)
    # RDKit numbers atoms in the order in which they are written.
    if molecule is None or molecule.GetNumAtoms() != len(atoms):
        return environments
    output = rdFingerprintGenerator.AdditionalOutput()
    output.AllocateBitInfoMap()
    _morgan().GetSparseCountFingerprint(molecule, additionalOutput=output)
    for identifier, places in output.GetBitInfoMap().items():
        for atom, radius in places:
            if radius in RADII:
                environments[atoms[atom], RADII.index(radius)] = identifier
    return environments


@once
def _morgan() -> Any:
    # Environments that hold the same bonds as another count too: every atom has one of each radius.
    return rdFingerprintGenerator.GetMorganGenerator(radius=max(RADII), includeRedundantEnvironments=True)
