"""The golden gate: an engine serves a bundle only after it reproduces the bundle's golden encodings."""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_bundle.precisions import MIN_COSINES, PrecisionRecord
from birnn_service.engine.engine import PRECISION_NAMES, Engine, Output
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
        min_cosine: Least cosine of an encoding to its reference, in any precision; by default that of
            `birnn_bundle.precisions.MIN_COSINES`, and of bf16 in float32.
    """

    max_tolerance: float = 1e-3
    min_cosine: float | None = None

    def least(self, precision: str) -> float:
        """Least cosine in a precision, by the name that engines give it."""
        if self.min_cosine is not None:
            return self.min_cosine
        return MIN_COSINES["int8" if precision == "int8" else "bf16"]


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
        least_norm = FLOAT32_TOLERANCE * np.sqrt(width / (2 * (1 - ceiling.least(precision))))
        return Limits(min(manifest.tolerance, ceiling.max_tolerance), ceiling.least(precision), float(least_norm))
    record = allowed_record(bundle, precision)
    if record.min_cosine < ceiling.least(precision):
        logger.warning(
            "%s allows itself a cosine of %g in %s; this server allows %g (--min-cosine)",
            *(bundle.label, record.min_cosine, precision, ceiling.least(precision)),
        )
    return Limits(record.tolerance, max(record.min_cosine, ceiling.least(precision)))


def allowed_record(bundle: Bundle, precision: str) -> PrecisionRecord:
    """What the manifest says of a reduced precision that it allows.

    Args:
        bundle: The bundle.
        precision: As engines name it: `bfloat16`.

    Raises:
        StartupError: The precision was not measured, or was found to be further off than allowed; says what to do.
    """
    name = next(name for name, long in PRECISION_NAMES.items() if long == precision)
    record = {str(key): value for key, value in bundle.manifest.records.items()}.get(name)
    if record is None:
        # fp16 is measured by the export only.
        command = "birnn export" if name == "fp16" else "birnn models measure BUNDLE"
        raise StartupError(
            f"{bundle.label}: its manifest does not allow {precision}, which was not measured: measure it with "
            f"`{command}`, or serve it with --precision fp32"
        )
    if record.refusal:
        raise StartupError(
            f"{bundle.label}: its manifest does not allow {precision}: {record.refusal}; serve it with --precision fp32"
        )
    return record


def fault_of(limits: Limits, found: NDArray[np.float32], expected: NDArray[np.float64]) -> str | None:
    """What is wrong with encodings [n, D], or None where they are within the limits."""
    error = float(np.abs(found - expected).max())
    # Written so that NaN fails.
    if not error <= limits.tolerance:
        return f"off by {error:g}, {limits.tolerance:g} at most allowed"
    cosine = least_cosine(limits, found, expected)
    return f"a cosine of {cosine:.6f}, {limits.min_cosine:g} at least allowed" if cosine < limits.min_cosine else None


def drift_of(limits: Limits, found: NDArray[np.float32], expected: NDArray[np.float64]) -> float:
    """How far encodings [n, D] are off, as a share of what the limits allow: above 1 they have a fault."""
    error = float(np.abs(found - expected).max()) / limits.tolerance
    turned = (1.0 - least_cosine(limits, found, expected)) / (1.0 - limits.min_cosine)
    return float("inf") if np.isnan(error) else max(error, turned)


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
