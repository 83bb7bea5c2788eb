"""Random spellings: other SMILES of the same molecules, computed once and cached.

A SMILES starts at any atom and takes branches in any order; an encoder that sees several spellings of a molecule learns
the molecule rather than one way of writing it (Bjerrum, 2017; Winter et al., 2019).
"""

from __future__ import annotations

import hashlib
import lzma
import os
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from rdkit import Chem, rdBase

from export.training.parallel import map_chunks

_VERSION = "1"


def random_spellings(
    smiles: Sequence[str], count: int, workers: int | None = None, cache: Path | None = None
) -> list[list[str]]:
    """`count` random SMILES of each of `smiles`, which RDKit must be able to read; the same ones at every call.

    Takes about 0.1 ms a molecule and 0.04 ms a spelling on each of `workers` processes (default: one a core). With a
    folder `cache` the answer is kept there and read back when the same is asked for again.
    """
    file = cache / f"spellings-{_digest(smiles, count)}.xz" if cache is not None else None
    if file is not None and (lines := _load(file, len(smiles) * count)) is not None:
        return [lines[start : start + count] for start in range(0, len(lines), count)]
    parts = map_chunks(partial(_spell_chunk, count=count), smiles, workers, "spellings")
    spellings = list(chain.from_iterable(parts))
    if file is not None:
        _save(file, chain.from_iterable(spellings))
    return spellings


def _spell_chunk(smiles: Sequence[str], count: int) -> list[list[str]]:
    rdBase.DisableLog("rdApp.*")
    return [list(Chem.MolToRandomSmilesVect(Chem.MolFromSmiles(one), count, randomSeed=_seed(one))) for one in smiles]


def _seed(smiles: str) -> int:
    """A seed of its own for each molecule: with one for all, atoms of one position would always come first."""
    return int.from_bytes(hashlib.blake2b(smiles.encode(), digest_size=4).digest(), "big") >> 2


def _digest(smiles: Sequence[str], count: int) -> str:
    digest = hashlib.sha256(f"{_VERSION} {count} {rdBase.rdkitVersion}\n".encode())
    for one in smiles:
        digest.update(one.encode() + b"\n")
    return digest.hexdigest()[:16]


def _load(path: Path, count: int) -> list[str] | None:
    """The cached spellings, or nothing where there are none or not as many as wanted."""
    try:
        lines = lzma.decompress(path.read_bytes()).decode().split("\n")[:-1]
    except (FileNotFoundError, lzma.LZMAError, UnicodeDecodeError):
        return None
    return lines if len(lines) == count else None


def _save(path: Path, spellings: chain[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    content = "".join(f"{one}\n" for one in spellings).encode()
    temporary.write_bytes(lzma.compress(content, preset=0))
    os.replace(temporary, path)
