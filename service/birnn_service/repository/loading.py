"""From the folder of a bundle to an encoder that is proven to be right on this machine's engine."""

import logging
from dataclasses import replace
from pathlib import Path

from birnn_bundle.bundle import Bundle
from birnn_bundle.errors import BundleError
from birnn_bundle.quoting import one_line, without_paths
from birnn_native.library import NativeUnavailableError, instruction_sets
from birnn_service.catalog import next_instance
from birnn_service.engine.engine import Engine, Output
from birnn_service.engine.gate import Ceiling
from birnn_service.engine.gpu_memory import GpuMemory
from birnn_service.engine.loading import load_engine
from birnn_service.errors import EngineError, StartupError
from birnn_service.queueing.lane import Lane
from birnn_service.queueing.profile_cache import ProfileCache, default_folder
from birnn_service.repository.served_encoder import ServedEncoder
from birnn_service.settings import Settings
from birnn_service.sources.source import SourceError
from birnn_service.state import Address
from birnn_service.trust import read_trust

logger = logging.getLogger(__name__)


def load_encoder(path: Path, address: Address, settings: Settings, gpu_memory: GpuMemory) -> ServedEncoder:
    """Read, load, prove and measure the bundle of a version; on a GPU it takes its memory of `gpu_memory`.

    Raises:
        BundleError: It is no good, or of another name or version.
        StartupError: No engine can serve it as the settings ask, or none gives the golden vectors.
    """
    bundle = Bundle.load(path, max_bytes=settings.max_bundle_mib << 20, trust=read_trust(settings.trust))
    manifest = bundle.manifest
    if address != (manifest.name, str(manifest.version)):
        raise BundleError(f"{path}: the manifest names {manifest.name}/{manifest.version}; rename the folder")
    proven = load_engine(
        bundle,
        settings.device,
        engine=settings.engine,
        precision=settings.precision,
        slots=settings.slots,
        gpu_memory=gpu_memory,
        ceiling=Ceiling(settings.max_tolerance, settings.min_cosine),
    )
    engine = proven.engine
    profiles = ProfileCache(settings.cache_dir or default_folder())
    widths = {Output.POOLED: manifest.dimension, Output.TOKENS: manifest.token_dimension}
    try:
        lanes = {output: _lane(bundle, engine, output, width, profiles) for output, width in widths.items()}
    except BaseException:
        engine.close()
        raise
    cost = lanes[Output.POOLED].cost
    logger.info(
        "encoder %s: %s, %s in %s on %s (%s); golden vectors agree to %.1e; "
        "a lone sequence of 48 tokens takes about %.2g ms",
        bundle.label,
        manifest.architecture,
        engine.info.engine,
        engine.info.precision,
        engine.info.device,
        one_line(proven.choice),
        max(proven.report.pooled, proven.report.tokens),
        1000 * cost.seconds(1, 48),
    )
    # The engine has its own copy of the weights.
    return ServedEncoder(
        replace(bundle, files={}), engine, lanes, proven.report.limits, next_instance(), proven.is_fallback
    )


def reason_of(error: BaseException, path: Path | None, label: str) -> tuple[str, bool]:
    """Why a bundle is not served, without paths of this machine, and whether that is an error that is known."""
    expected = isinstance(error, BundleError | StartupError | EngineError | SourceError)
    reason = str(error) if expected else f"cannot be loaded: {type(error).__name__}: {error}"
    if path is not None:
        reason = reason.replace(f"{path}: ", "").replace(str(path), label)
    return one_line(without_paths(reason), most=500), expected


def warn_without_kernels() -> None:
    """Say loudly, and once, that CPUs could do more."""
    try:
        instruction_sets()
    except NativeUnavailableError as error:
        logger.warning("%s; until then onnxruntime runs the encoders, which is slower", error)


def _lane(bundle: Bundle, engine: Engine, output: Output, width: int, profiles: ProfileCache) -> Lane:
    slots = engine.info.run_slots
    return Lane(
        bundle.manifest.name,
        engine,
        output,
        width,
        profiles.profile(bundle, engine, output),
        profiles.profile(bundle, engine, output, slots) if slots > 1 else None,
        version=str(bundle.manifest.version),
    )
