"""Molecules as regression targets: fast RDKit descriptors and folded ECFP4 bits, computed once and cached.

The descriptors are the 43 of `rdMolDescriptors.Properties` (which hold five of the seven that CDDD regresses: logP,
MR, HBA, HBD, TPSA) and the other two of CDDD's: Balaban's J and the number of valence electrons. Fingerprints are
Morgan bits of radius 2 folded to `FINGERPRINT_BITS`.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import Descriptors, GraphDescriptors, rdFingerprintGenerator, rdMolDescriptors
from tqdm import tqdm

FINGERPRINT_BITS = 1024
FINGERPRINT_RADIUS = 2
DESCRIPTOR_NAMES: tuple[str, ...] = (
    *rdMolDescriptors.Properties.GetAvailableProperties(),
    "BalabanJ",
    "NumValenceElectrons",
)

# RDKit types these two as untyped functions.
_balaban_j: Callable[[Any], float] = GraphDescriptors.BalabanJ
_valence_electrons: Callable[[Any], float] = Descriptors.NumValenceElectrons

_CHUNK = 500
_VERSION = "1"


@dataclass(frozen=True)
class Molecules:
    """What RDKit said about n SMILES.

    usable: bool [n], false for SMILES that RDKit cannot read and for excluded molecules. excluded: how many of those
    were excluded. descriptors: float32 [n, len(DESCRIPTOR_NAMES)]. fingerprints: uint8 [n, FINGERPRINT_BITS / 8],
    packed bits. Rows that are not usable are zero.
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
    cache_file: Path | None = None,
) -> Molecules:
    """Descriptors and fingerprints of `smiles`, leaving out the canonical SMILES in `excluded`.

    Takes about 2 ms a molecule on each of `workers` processes (default: one a core). With a `cache_file` (.npz) the
    answer is kept there and read back when the same molecules are asked for again.
    """
    digest = _digest(smiles, excluded)
    if cache_file is not None and (cached := _load(cache_file, digest)) is not None:
        return cached
    molecules = _compute(smiles, excluded, workers or os.cpu_count() or 1)
    if cache_file is not None:
        _save(cache_file, digest, molecules)
    return molecules


def _compute(smiles: Sequence[str], excluded: frozenset[str], workers: int) -> Molecules:
    chunks = [smiles[start : start + _CHUNK] for start in range(0, len(smiles), _CHUNK)]
    describe = partial(_describe_chunk, excluded=excluded)
    parts: list[_Chunk] = []
    with tqdm(total=len(smiles), desc="descriptors", unit="molecule", mininterval=1.0) as bar:
        for part in _each(describe, chunks, min(workers, len(chunks))):
            parts.append(part)
            bar.update(len(part[0]))
    state = np.concatenate([part[0] for part in parts])
    return Molecules(
        usable=state == _USABLE,
        excluded=int((state == _EXCLUDED).sum()),
        descriptors=np.concatenate([part[1] for part in parts]),
        fingerprints=np.concatenate([part[2] for part in parts]),
    )


_Chunk = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]
_USABLE, _UNREADABLE, _EXCLUDED = 1, 0, 2


def _each(describe: partial[_Chunk], chunks: list[Sequence[str]], workers: int) -> Iterator[_Chunk]:
    if workers <= 1:
        yield from map(describe, chunks)
        return
    # Spawned, not forked: the parent may hold torch's threads.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(describe, chunks)


def _describe_chunk(smiles: Sequence[str], excluded: frozenset[str]) -> _Chunk:
    rdBase.DisableLog("rdApp.*")
    state = np.zeros(len(smiles), np.uint8)
    descriptors = np.zeros((len(smiles), len(DESCRIPTOR_NAMES)), np.float32)
    fingerprints = np.zeros((len(smiles), FINGERPRINT_BITS // 8), np.uint8)
    for row, one in enumerate(smiles):
        molecule = Chem.MolFromSmiles(one)
        if molecule is None or molecule.GetNumAtoms() == 0:
            continue
        if excluded and Chem.MolToSmiles(molecule) in excluded:
            state[row] = _EXCLUDED
            continue
        state[row] = _USABLE
        descriptors[row] = _describe(molecule)
        fingerprints[row] = np.packbits(_morgan().GetFingerprintAsNumPy(molecule))
    return state, descriptors, fingerprints


@cache
def _properties() -> Any:
    return rdMolDescriptors.Properties()


@cache
def _morgan() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=FINGERPRINT_RADIUS, fpSize=FINGERPRINT_BITS)


def _describe(molecule: Any) -> list[float]:
    return [
        *_properties().ComputeProperties(molecule),
        _balaban_j(molecule),
        _valence_electrons(molecule),
    ]


def _digest(smiles: Sequence[str], excluded: frozenset[str]) -> str:
    digest = hashlib.sha256(f"{_VERSION} {DESCRIPTOR_NAMES} {FINGERPRINT_BITS} {FINGERPRINT_RADIUS}\n".encode())
    for one in (*smiles, "", *sorted(excluded)):
        digest.update(one.encode() + b"\n")
    return digest.hexdigest()


def _load(path: Path, digest: str) -> Molecules | None:
    """The cached answer, or nothing where there is none for these very molecules."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["digest"]) != digest:
                return None
            return Molecules(file["usable"], int(file["excluded"]), file["descriptors"], file["fingerprints"])
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError):
        return None  # A damaged cache is computed again.


def _save(path: Path, digest: str, molecules: Molecules) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.savez(
            file,
            digest=np.array(digest),
            usable=molecules.usable,
            excluded=np.array(molecules.excluded),
            descriptors=molecules.descriptors,
            fingerprints=molecules.fingerprints,
        )
    os.replace(temporary, path)
