"""The encoders that are served: found in the models folder, loaded, proven, and looked up by name and version."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from birnn_bundle.bundle import Bundle
from birnn_bundle.errors import BundleError, is_refusal
from birnn_bundle.manifest import Manifest
from birnn_bundle.quoting import one_line, told, without_paths
from birnn_bundle.tokenizer import Tokenizer
from birnn_native.library import NativeUnavailableError, instruction_sets
from birnn_service.catalog import Encoders
from birnn_service.engine.engine import Engine, EngineInfo, Output
from birnn_service.engine.gate import Ceiling, Limits
from birnn_service.engine.loading import load_engine
from birnn_service.errors import EngineError, StartupError
from birnn_service.metrics import Metrics
from birnn_service.queueing.lane import Lane
from birnn_service.queueing.profile_cache import ProfileCache, default_folder
from birnn_service.settings import Settings
from birnn_service.sources.opening import open_source
from birnn_service.sources.source import SourceError, shown_address
from birnn_service.state import Address

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ServedEncoder:
    """One version of one encoder, proven and ready."""

    bundle: Bundle
    engine: Engine
    lanes: dict[Output, Lane]
    limits: Limits

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self.bundle.manifest

    @property
    def tokenizer(self) -> Tokenizer:
        """What reads its sequences."""
        return self.bundle.tokenizer

    @property
    def info(self) -> EngineInfo:
        """What runs it."""
        return self.engine.info

    @property
    def last_success(self) -> float:
        """When a batch last ended well, on the dispatcher's clock."""
        return max(lane.last_success for lane in self.lanes.values())


def load_encoders(settings: Settings, metrics: Metrics) -> Encoders[ServedEncoder]:
    """Load and prove every bundle of the source; a broken one is reported and the others are served.

    Raises:
        StartupError: There is no bundle, none could be loaded, or a device was asked for that does not work.
    """
    served: list[ServedEncoder] = []
    broken: dict[tuple[str, str], str] = {}
    source = open_source(settings.models)
    try:
        look = source.look()
    except SourceError as error:
        raise StartupError(str(error)) from error
    for place, problem in look.problems.items():
        logger.error("%s in %s is ignored: %s", place, source.name, one_line(problem))
    for address in sorted(look.bundles):
        path = None
        try:
            path = source.fetch(address)
            encoder = _load(path, address, settings)
        except BaseException as error:  # whatever hostile content makes of the libraries that read it
            if not is_refusal(error):
                raise
            name, version = map(told, address)
            broken[name, version] = _report(path, shown_address(address), error)
            metrics.encoder_ready.labels(name, version).set(0)
            continue
        served.append(encoder)
        _publish(encoder, metrics)
    if not served:
        reasons = "; ".join(f"{name}/{version}: {reason}" for (name, version), reason in broken.items())
        raise StartupError(f"none of the encoders in {source.name} could be loaded: {reasons}")
    if settings.engine == "auto" and any(encoder.info.device == "cpu" for encoder in served):
        _warn_without_kernels()
    return Encoders(served, broken)


def _report(path: Path | None, label: str, error: BaseException) -> str:
    """Log why a bundle is not served; returns the same for callers, who learn nothing of this machine's folders."""
    expected = isinstance(error, BundleError | StartupError | EngineError | SourceError)
    reason = str(error) if expected else f"cannot be loaded: {type(error).__name__}: {error}"
    logger.error("encoder %s is not served: %s", label, one_line(reason), exc_info=None if expected else error)
    if path is not None:
        reason = reason.replace(f"{path}: ", "").replace(str(path), label)
    return one_line(without_paths(reason), most=500)


def _warn_without_kernels() -> None:
    """Say loudly, and once, that CPUs could do more."""
    try:
        instruction_sets()
    except NativeUnavailableError as error:
        logger.warning("%s; until then onnxruntime runs the encoders, which is slower", error)


def _load(path: Path, address: Address, settings: Settings) -> ServedEncoder:
    bundle = Bundle.load(path, max_bytes=settings.max_bundle_mib << 20)
    manifest = bundle.manifest
    if address != (manifest.name, str(manifest.version)):
        raise BundleError(f"{path}: the manifest names {manifest.name}/{manifest.version}; rename the folder")
    proven = load_engine(
        bundle,
        settings.device,
        engine=settings.engine,
        precision=settings.precision,
        slots=settings.slots,
        gpu_memory_mib=settings.gpu_memory_mib,
        ceiling=Ceiling(settings.max_tolerance, settings.min_cosine),
    )
    engine = proven.engine
    profiles = ProfileCache(settings.cache_dir or default_folder())
    widths = {Output.POOLED: manifest.dimension, Output.TOKENS: manifest.token_dimension}
    lanes = {output: _lane(bundle, engine, output, width, profiles) for output, width in widths.items()}
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
    return ServedEncoder(replace(bundle, files={}), engine, lanes, proven.report.limits)


def _lane(bundle: Bundle, engine: Engine, output: Output, width: int, profiles: ProfileCache) -> Lane:
    slots = engine.info.run_slots
    return Lane(
        bundle.manifest.name,
        engine,
        output,
        width,
        profiles.profile(bundle, engine, output),
        profiles.profile(bundle, engine, output, slots) if slots > 1 else None,
    )


def _publish(encoder: ServedEncoder, metrics: Metrics) -> None:
    manifest, info = encoder.manifest, encoder.engine.info
    metrics.encoder_ready.labels(manifest.name, str(manifest.version)).set(1)
    metrics.encoder_info.labels(
        manifest.name,
        str(manifest.version),
        manifest.architecture,
        str(manifest.dimension),
        manifest.pooling,
        info.engine,
        info.device,
        info.precision,
    ).set(1)
