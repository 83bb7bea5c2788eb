"""Comparing engines with what a bundle's manifest recorded of reduced precisions."""

from contextlib import suppress

from birnn_bundle.bundle import Bundle
from birnn_bundle.onnxruntime import ort
from birnn_bundle.precisions import MARGIN, ReducedPrecision
from birnn_service.engine.engine import PRECISION_NAMES, Device, Precision
from birnn_service.engine.loading import Proven
from birnn_service.engine.onnx_session import CUDA
from birnn_service.errors import StartupError

# What is recorded as exact may still be off by the rounding of float32.
ROUNDING = 1e-6


def check_recorded(bundle: Bundle, proven: Proven) -> str:
    """Compare the golden errors of an engine with those in the manifest.

    Returns:
        What was recorded, in words; empty where nothing was, as of float32.

    Raises:
        StartupError: The engine is off by more than `birnn_bundle.precisions.MARGIN` times what was recorded.
    """
    info, report = proven.engine.info, proven.report
    record = next(
        (record for name, record in bundle.manifest.records.items() if PRECISION_NAMES[name] == info.precision), None
    )
    if record is None or record.golden is None:
        return ""
    recorded = record.golden
    error, cosine = max(report.pooled, report.tokens), min(recorded.least_cosine, recorded.least_token_cosine)
    told = f"{recorded.max_error:.1e} and least cosine {cosine:.7f} are recorded, by {record.engine}"
    if error > MARGIN * recorded.max_error + ROUNDING or 1 - report.cosine > MARGIN * (1 - cosine) + ROUNDING:
        raise StartupError(
            f"{bundle.label}: {info.precision} on {info.engine} is off by {error:.1e}, least cosine "
            f"{report.cosine:.7f}, but {told}; measure it anew with `birnn models measure`, or use the engine that "
            "measured it"
        )
    return told


def runnable(bundle: Bundle, device: Device) -> dict[ReducedPrecision, bool]:
    """Reduced precisions that the manifest allows, and whether an engine on this machine computes in them."""
    here: set[Precision] = set()
    if device != "cuda":
        with suppress(ImportError):
            # Its packages may be missing.
            from birnn_service.engine.native_engine import native_precisions

            here |= set(native_precisions())
    if device != "cpu" and bundle.manifest.cell.cuda and CUDA in ort.get_available_providers():
        here.add("fp16")
    return {name: name in here for name, record in bundle.manifest.records.items() if not record.refusal}
