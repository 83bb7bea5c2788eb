"""How far encodings are from their reference: largest errors and least cosines."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.precisions import Agreement

Pair = tuple[NDArray[Any], NDArray[Any]]

# A vector this much shorter than the longest one, once the mean is subtracted, has no direction to compare.
SHORTEST = 1e-6


def agreement(pooled: Pair, tokens: Iterable[Pair]) -> Agreement | None:
    """Compare encodings with their reference.

    Args:
        pooled: Encodings of sequences as found and as expected, both [n, D], n at least 1.
        tokens: Encodings of their tokens, both [tokens, 2H]; in parts, of which one is in memory at a time.

    Returns:
        The worst of all rows; None where something found is not a finite number.
    """
    found, expected = (values.astype(np.float64) for values in pooled)
    if not np.isfinite(found).all():
        return None
    largest, token_cosine = float(np.abs(found - expected).max(initial=0.0)), 1.0
    for part in tokens:
        one, reference = (values.astype(np.float64) for values in part)
        if not np.isfinite(one).all():
            return None
        largest = max(largest, float(np.abs(one - reference).max(initial=0.0)))
        token_cosine = min(token_cosine, least_cosine(one, reference))
    mean = expected.mean(axis=0)
    longest = float(np.linalg.norm(expected, axis=1).max())
    centered = least_cosine(found - mean, expected - mean, SHORTEST * longest) if len(expected) > 1 else None
    return Agreement(
        sequences=len(expected),
        max_error=largest,
        least_cosine=least_cosine(found, expected),
        least_token_cosine=token_cosine,
        least_centered_cosine=centered,
    )


def least_cosine(found: NDArray[np.float64], expected: NDArray[np.float64], shortest: float = 0.0) -> float:
    """Least cosine of a row of `found` to the same of `expected`, both [n, D]; 1 where no row counts.

    Rows count whose `expected` is longer than `shortest`. A vector of zeros in place of such a one has the cosine 0,
    and NaN counts as -1.
    """
    lengths = np.linalg.norm(expected, axis=1)
    counted = lengths > shortest
    products = (found[counted] * expected[counted]).sum(axis=1)
    norms = np.linalg.norm(found[counted], axis=1) * lengths[counted]
    cosines = np.divide(products, norms, out=np.zeros_like(products), where=norms != 0)
    return float(np.clip(np.nan_to_num(cosines, nan=-1.0).min(initial=1.0), -1.0, 1.0))
