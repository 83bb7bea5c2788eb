"""How sure a share is that was measured in windows of one test."""

from collections.abc import Sequence

import numpy as np
from scipy import special


def bounds(windows: Sequence[tuple[int, int]], confidence: float) -> tuple[float, float]:
    """One-sided bounds of a share: each holds with `confidence`.

    Calls that wait in the same queue are slow together, so a binomial bound would promise too much. This is that of
    Korn and Graubard ("Confidence intervals for proportions with small expected number of positive counts estimated
    from survey data", 1998): the exact binomial bound (Clopper and Pearson) of as many independent calls as would vary
    between windows as much as the windows do, reduced further for the small number of windows.

    Args:
        windows: Of each window how many calls count, and how many there are.
        confidence: Between 0 and 1, such as 0.95.

    Returns:
        The lower and the upper bound.
    """
    counted, calls = (
        (np.array(column, dtype=np.float64) for column in zip(*windows, strict=True)) if windows else (0, 0)
    )
    total, all_calls = float(np.sum(counted)), float(np.sum(calls))
    if not all_calls:
        return 0.0, 1.0
    share = total / all_calls
    effective = _effective(np.atleast_1d(counted), np.atleast_1d(calls), share, confidence)
    lower = float(special.betaincinv(share * effective, effective * (1 - share) + 1, 1 - confidence)) if total else 0.0
    upper = (
        float(special.betaincinv(share * effective + 1, effective * (1 - share), confidence))
        if total < all_calls
        else 1.0
    )
    return lower, upper


def _effective(
    counted: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    calls: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    share: float,
    confidence: float,
) -> float:
    """As how many independent calls these are worth."""
    number, total = len(calls), float(calls.sum())
    if number < 2 or share in (0.0, 1.0):
        return total
    # The variance of a ratio of sums over windows.
    variance = number / (number - 1) * float(np.square(counted - share * calls).sum()) / total**2
    worth = share * (1 - share) / variance if variance else total
    few = float(special.stdtrit(total - 1, confidence) / special.stdtrit(number - 1, confidence)) ** 2
    return min(total, worth * few)
