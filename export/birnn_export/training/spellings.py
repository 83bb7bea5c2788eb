"""Random spellings: other SMILES of the same molecules, computed once and cached.

A SMILES starts at any atom and takes branches in any order; an encoder that sees several spellings of a molecule learns
the molecule rather than one way of writing it (Bjerrum, 2017; Winter et al., 2019).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from rdkit import Chem, rdBase

from birnn_export.training.cache import Arrays, cached
from birnn_export.training.parallel import map_chunks

_VERSION = "2"


def random_spellings(
    smiles: Sequence[str], count: int, workers: int | None = None, cache: Path | None = None
) -> list[list[str]]:
    """`count` random SMILES of each of `smiles`, which RDKit must be able to read; the same ones at every call.

    Takes about 0.1 ms a molecule and 0.04 ms a spelling on each of `workers` processes (default: one a core). With a
    folder `cache` the answer is kept there and read back when the same is asked for again.
    """
    request = (f"{_VERSION} {count} {rdBase.rdkitVersion}", *smiles)
    lines = cached(cache, "spellings", request, partial(_compute, smiles, count, workers))["lines"].tobytes().decode()
    spellings = lines.splitlines()
    return [spellings[start : start + count] for start in range(0, len(spellings), count)]


def _compute(smiles: Sequence[str], count: int, workers: int | None) -> Arrays:
    parts = map_chunks(partial(_spell_chunk, count=count), smiles, workers, "spellings")
    lines = "".join(f"{one}\n" for one in chain.from_iterable(chain.from_iterable(parts)))
    return {"lines": np.frombuffer(lines.encode(), np.uint8)}


def _spell_chunk(smiles: Sequence[str], count: int) -> list[list[str]]:
    rdBase.DisableLog("rdApp.*")
    return [list(Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(one), count, randomSeed=_seed(one))) for one in smiles]


def _seed(smiles: str) -> int:
    """A seed of its own for each molecule: with one for all, atoms of one position would always come first."""
    return int.from_bytes(hashlib.blake2b(smiles.encode(), digest_size=4).digest(), "big") >> 2
