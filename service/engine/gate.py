"""The golden gate: an engine serves a bundle only after it reproduces the bundle's golden encodings."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.bundle import Bundle
from service.engine.engine import Engine, Output
from service.errors import StartupError


@dataclass(frozen=True, slots=True)
class GateReport:
    """Largest absolute errors against the float64 reference over all golden sequences, batched and alone."""

    pooled: float
    tokens: float


def pass_gate(bundle: Bundle, engine: Engine) -> GateReport:
    """Compare `engine` with the golden encodings of `bundle`, all in one batch and each alone.

    Raises:
        StartupError: An encoding is further off than the manifest's tolerance, or not a number; says which.
    """
    golden = bundle.golden
    expected = {Output.POOLED: golden.pooled, Output.TOKENS: golden.tokens}
    errors: dict[Output, float] = {}
    for output, reference in expected.items():
        batched = engine.run(golden.batch, output)
        alone = np.concatenate(
            [engine.run(golden.batch.take(np.array([row])), output) for row in range(len(golden.batch))]
        )
        errors[output] = max(
            _compare(bundle, f"{output.value} encodings, batched", batched, reference),
            _compare(bundle, f"{output.value} encodings, one by one", alone, reference),
        )
    return GateReport(errors[Output.POOLED], errors[Output.TOKENS])


def _compare(bundle: Bundle, what: str, found: NDArray[np.float32], expected: NDArray[np.float64]) -> float:
    if found.shape != expected.shape:
        raise StartupError(f"{bundle.label}: {what} have shape {found.shape}, {expected.shape} expected")
    difference = np.abs(found - expected)
    # Written so that NaN fails.
    if not (difference <= bundle.manifest.tolerance).all():
        row, column = np.unravel_index(np.nan_to_num(difference, nan=np.inf).argmax(), difference.shape)
        raise StartupError(
            f"{bundle.label}: {what} disagree with the golden ones: row {row}, dimension {column} is "
            f"{found[row, column]:.7g}, {expected[row, column]:.7g} expected "
            f"(tolerance {bundle.manifest.tolerance:g}). The bundle or this machine's runtime is broken; "
            "nothing is served from it"
        )
    return float(difference.max(initial=0.0))
