"""The golden gate: an engine serves a bundle only after it reproduces the bundle's golden encodings."""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_service.engine.engine import Engine, Output
from birnn_service.errors import EngineError, StartupError

logger = logging.getLogger(__name__)

# What an export allows in float32 unless it is told otherwise: the rounding of sums over many steps.
FLOAT32_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What this server allows any bundle, whatever its manifest allows itself.

    Attributes:
        max_tolerance: Largest absolute error in float32. Half precision is off by more in single values, and is held to
            the cosine instead.
        min_cosine: Least cosine of an encoding to its reference, in any precision.
    """

    max_tolerance: float = 1e-3
    min_cosine: float = 0.9999


@dataclass(frozen=True, slots=True)
class Limits:
    """How far an engine may be off.

    Attributes:
        tolerance: Largest absolute error.
        min_cosine: Least cosine of an encoding to its reference.
        least_norm: Encodings of a lesser norm have no cosine to speak of: rounding alone can turn them.
    """

    tolerance: float
    min_cosine: float
    least_norm: float = 0.0


@dataclass(frozen=True, slots=True)
class GateReport:
    """Largest absolute errors against the float64 reference over all golden sequences, batched and alone.

    `cosine` is the least cosine of any encoding to its reference, `limits` what was allowed.
    """

    pooled: float
    tokens: float
    cosine: float
    limits: Limits


def pass_gate(bundle: Bundle, engine: Engine, ceiling: Ceiling | None = None) -> GateReport:
    """Compare `engine` with the golden encodings of `bundle`: all in one batch, and each alone on all slots of a run.

    Raises:
        StartupError: The engine fails, or an encoding is further off than manifest and ceiling allow at the engine's
            precision, or not a number; says which.
    """
    limits = limits_of(bundle, engine, ceiling or Ceiling())
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
        cosines += [_check_cosine(bundle, limits, output, found, reference) for found in (batched, alone)]
    return GateReport(errors[Output.POOLED], errors[Output.TOKENS], min(cosines), limits)


def limits_of(bundle: Bundle, engine: Engine, ceiling: Ceiling) -> Limits:
    """How far the engine may be off at its precision; what the manifest grants beyond the ceiling is cut, and logged.

    Raises:
        StartupError: The manifest does not allow the precision.
    """
    precision, manifest = engine.info.precision, bundle.manifest
    if precision == "float32":
        if manifest.tolerance > ceiling.max_tolerance:
            logger.warning(
                "%s allows itself errors of %g; this server allows %g (--max-tolerance)",
                *(bundle.label, manifest.tolerance, ceiling.max_tolerance),
            )
        # An error of the usual tolerance in each of D values turns a vector of a lesser norm further than the cosine.
        width = max(manifest.dimension, manifest.token_dimension)
        least_norm = FLOAT32_TOLERANCE * np.sqrt(width / (2 * (1 - ceiling.min_cosine)))
        return Limits(min(manifest.tolerance, ceiling.max_tolerance), ceiling.min_cosine, float(least_norm))
    reduced = manifest.reduced_precision
    if reduced is None:
        raise StartupError(f"{bundle.label}: its manifest does not allow {precision}; serve it with --precision fp32")
    if reduced.min_cosine < ceiling.min_cosine:
        logger.warning(
            "%s allows itself a cosine of %g in %s; this server allows %g (--min-cosine)",
            *(bundle.label, reduced.min_cosine, precision, ceiling.min_cosine),
        )
    return Limits(reduced.tolerance, max(reduced.min_cosine, ceiling.min_cosine))


def fault_of(limits: Limits, found: NDArray[np.float32], expected: NDArray[np.float64]) -> str | None:
    """What is wrong with encodings [n, D], or None where they are within the limits."""
    error = float(np.abs(found - expected).max())
    # Written so that NaN fails.
    if not error <= limits.tolerance:
        return f"off by {error:g}, {limits.tolerance:g} at most allowed"
    cosine = least_cosine(limits, found, expected)
    return f"a cosine of {cosine:.6f}, {limits.min_cosine:g} at least allowed" if cosine < limits.min_cosine else None


def least_cosine(limits: Limits, found: NDArray[np.float32], expected: NDArray[np.float64]) -> float:
    """Least cosine of a row of `found` to the same of `expected`; references of almost no length do not count."""
    values = found.astype(np.float64)
    lengths = np.linalg.norm(expected, axis=1)
    norms = np.linalg.norm(values, axis=1) * lengths
    counted = (lengths > limits.least_norm) & (norms > 0)
    return float(((values * expected).sum(axis=1)[counted] / norms[counted]).min(initial=1.0))


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


def _check_cosine(
    bundle: Bundle, limits: Limits, output: Output, found: NDArray[np.float32], expected: NDArray[np.float64]
) -> float:
    least = least_cosine(limits, found, expected)
    if least < limits.min_cosine:
        raise StartupError(
            f"{bundle.label}: a {output.value} encoding has a cosine of {least:.6f} to the golden one, "
            f"{limits.min_cosine:g} at least expected; nothing is served from it at this precision"
        )
    return least
