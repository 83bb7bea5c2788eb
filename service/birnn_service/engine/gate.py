"""The golden gate: an engine serves a bundle only after it reproduces the bundle's golden encodings."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_service.engine.engine import Engine, Output
from birnn_service.errors import EngineError, StartupError


@dataclass(frozen=True, slots=True)
class GateReport:
    """Largest absolute errors against the float64 reference over all golden sequences, batched and alone.

    `cosine` is the least cosine of any encoding to its reference.
    """

    pooled: float
    tokens: float
    cosine: float


def pass_gate(bundle: Bundle, engine: Engine) -> GateReport:
    """Compare `engine` with the golden encodings of `bundle`: all in one batch, and each alone on all slots of a run.

    Raises:
        StartupError: The engine fails, or an encoding is further off than the manifest allows at the engine's
            precision, or not a number; says which.
    """
    limits = limits_of(bundle, engine)
    golden = bundle.golden
    expected = {Output.POOLED: golden.pooled, Output.TOKENS: golden.tokens}
    errors: dict[Output, float] = {}
    cosines: list[float] = []
    for output, reference in expected.items():
        try:
            batched = engine.run(golden.batch, output)
            alone = np.concatenate(
                [
                    engine.run(golden.batch.take(np.array([row])), output, engine.info.run_slots)
                    for row in range(len(golden.batch))
                ]
            )
        except EngineError as error:
            raise StartupError(f"{bundle.label}: {error}") from error
        errors[output] = max(
            _compare(bundle, limits, f"{output.value} encodings, batched", batched, reference),
            _compare(bundle, limits, f"{output.value} encodings, one by one", alone, reference),
        )
        cosines += [_least_cosine(bundle, limits, output, found, reference) for found in (batched, alone)]
    return GateReport(errors[Output.POOLED], errors[Output.TOKENS], min(cosines))


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest absolute error and least cosine."""

    tolerance: float
    min_cosine: float


def limits_of(bundle: Bundle, engine: Engine) -> Limits:
    """How far the engine may be off at its precision.

    Raises:
        StartupError: The manifest does not allow the precision.
    """
    precision = engine.info.precision
    if precision == "float32":
        # Within the tolerance of float32 every cosine is good, but for vectors that are nearly zero.
        return Limits(bundle.manifest.tolerance, -1.0)
    reduced = bundle.manifest.reduced_precision
    if reduced is None:
        raise StartupError(f"{bundle.label}: its manifest does not allow {precision}; serve it with --precision fp32")
    return Limits(reduced.tolerance, reduced.min_cosine)


def _compare(
    bundle: Bundle, limits: Limits, what: str, found: NDArray[np.float32], expected: NDArray[np.float64]
) -> float:
    if found.shape != expected.shape:
        raise StartupError(f"{bundle.label}: {what} have shape {found.shape}, {expected.shape} expected")
    difference = np.abs(found - expected)
    # Written so that NaN fails.
    if not (difference <= limits.tolerance).all():
        row, column = np.unravel_index(np.nan_to_num(difference, nan=np.inf).argmax(), difference.shape)
        raise StartupError(
            f"{bundle.label}: {what} disagree with the golden ones: row {row}, dimension {column} is "
            f"{found[row, column]:.7g}, {expected[row, column]:.7g} expected "
            f"(tolerance {limits.tolerance:g}). The bundle or this machine's runtime is broken; "
            "nothing is served from it"
        )
    return float(difference.max(initial=0.0))


def _least_cosine(
    bundle: Bundle, limits: Limits, output: Output, found: NDArray[np.float32], expected: NDArray[np.float64]
) -> float:
    """Least cosine of a row of `found` to the same of `expected`; a reference of zeros has none and does not count."""
    values = found.astype(np.float64)
    norms = np.linalg.norm(values, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = (values * expected).sum(axis=1)[norms > 0] / norms[norms > 0]
    least = float(cosines.min(initial=1.0))
    if least < limits.min_cosine:
        raise StartupError(
            f"{bundle.label}: a {output.value} encoding has a cosine of {least:.6f} to the golden one, "
            f"{limits.min_cosine:g} at least expected; nothing is served from it at this precision"
        )
    return least
