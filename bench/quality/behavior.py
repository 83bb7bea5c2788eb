"""What an encoder does beside predicting: agreement between spellings of a molecule, and its cost to serve."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.quality.encoders import ROWS, Encoder, encode
from birnn_export.training.spellings import random_spellings

REPEATS = 5


@dataclass(frozen=True)
class Invariance:
    """Cosines between vectors of two random spellings.

    Attributes:
        same: Mean cosine of two spellings of one molecule.
        same_p5: Cosine that 95% of these pairs exceed.
        different: Mean cosine of spellings of two molecules.
        found: Share of molecules whose other spelling is the nearest among those of all molecules.
    """

    same: float
    same_p5: float
    different: float
    found: float


def invariance(encoder: Encoder, smiles: Sequence[str]) -> Invariance:
    """Compare two random spellings of each of `smiles`, which are different molecules."""
    spellings = random_spellings(smiles, 2, workers=1)
    first, second = (_normalized(encode(encoder, [pair[one] for pair in spellings])) for one in (0, 1))
    cosine = first @ second.T
    same = np.diagonal(cosine)
    others = cosine[~np.eye(len(cosine), dtype=bool)]
    found = float((cosine.argmax(axis=1) == np.arange(len(cosine))).mean())
    return Invariance(float(same.mean()), float(np.percentile(same, 5)), float(others.mean()), found)


def sequences_per_second(encoder: Encoder, smiles: Sequence[str]) -> float:
    """Sequences a second on one thread, tokenizing included: the median of a few passes over `smiles`.

    Batches hold sequences of like length, as the server's do under load.
    """
    encode(encoder, smiles[:ROWS])
    rates = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        encode(encoder, smiles)
        rates.append(len(smiles) / (time.perf_counter() - began))
    return statistics.median(rates)


def _normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    normalized: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normalized
