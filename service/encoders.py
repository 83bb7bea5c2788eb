"""The encoders that are served: found in the models folder, loaded, proven, and looked up by name and version."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bundle.bundle import Bundle
from bundle.errors import BundleError
from bundle.manifest import MANIFEST_FILE, Manifest
from service.batcher.lane import Lane
from service.batcher.profile_cache import ProfileCache, default_folder
from service.engine.engine import Engine, Output
from service.engine.loading import load_engine
from service.errors import StartupError, UnavailableError, UnknownEncoderError
from service.metrics import Metrics
from service.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ServedEncoder:
    """One version of one encoder, proven and ready."""

    bundle: Bundle
    engine: Engine
    lanes: dict[Output, Lane]

    @property
    def manifest(self) -> Manifest:
        """What the bundle says about itself."""
        return self.bundle.manifest

    @property
    def last_success(self) -> float:
        """When a batch last ended well, on the batcher's clock."""
        return max(lane.last_success for lane in self.lanes.values())


class Encoders:
    """All versions of all encoders; the ones that could not be loaded are remembered with the reason."""

    def __init__(self) -> None:
        self._served: dict[str, dict[int, ServedEncoder]] = {}
        self._broken: dict[str, dict[int, str]] = {}

    def add(self, encoder: ServedEncoder) -> None:
        """Serve one more."""
        self._served.setdefault(encoder.manifest.name, {})[encoder.manifest.version] = encoder

    def add_broken(self, name: str, version: int, reason: str) -> None:
        """Remember why a version is not served."""
        self._broken.setdefault(name, {})[version] = reason

    def __iter__(self) -> Iterator[ServedEncoder]:
        for name in sorted(self._served):
            yield from (self._served[name][version] for version in sorted(self._served[name]))

    @property
    def broken(self) -> dict[str, str]:
        """Label `name/version` of every version that is not served, and why."""
        return {
            f"{name}/{version}": reason
            for name, versions in sorted(self._broken.items())
            for version, reason in sorted(versions.items())
        }

    def find(self, name: str, version: str) -> ServedEncoder:
        """Look up an encoder.

        Args:
            name: Its name; may be empty where exactly one encoder is served.
            version: Its version; empty for the highest one served.

        Raises:
            UnknownEncoderError: There is none of that name or version; lists what is served.
            UnavailableError: It is there, but could not be loaded; says why.
        """
        if not name and len(self._served) == 1:
            name = next(iter(self._served))
        versions = self._served.get(name, {})
        broken = self._broken.get(name, {})
        if not versions and not broken:
            raise UnknownEncoderError(f"no encoder {name!r}; served are: {self._names()}")
        if not version:
            if not versions:
                raise UnavailableError(f"encoder {name!r} could not be loaded: {broken[max(broken)]}")
            return versions[max(versions)]
        number = int(version) if version.isdecimal() and len(version) < 10 else -1
        if number in versions:
            return versions[number]
        if number in broken:
            raise UnavailableError(f"version {version} of encoder {name!r} could not be loaded: {broken[number]}")
        known = ", ".join(map(str, sorted(versions))) or "none"
        raise UnknownEncoderError(f"encoder {name!r} has no version {version!r}; served are: {known}")

    def versions(self, name: str) -> list[int]:
        """Versions served of one encoder, ascending."""
        return sorted(self._served.get(name, {}))

    def _names(self) -> str:
        return ", ".join(sorted(self._served)) or "none"


def find_bundles(models: Path) -> list[Path]:
    """Folders NAME/VERSION below `models` that hold a manifest.

    Raises:
        StartupError: There is none.
    """
    if not models.is_dir():
        raise StartupError(f"the models folder {models} does not exist; give one with --models")
    paths = sorted(manifest.parent for manifest in models.glob(f"[!.]*/[!.]*/{MANIFEST_FILE}"))
    if not paths:
        raise StartupError(
            f"no encoder in {models}: expected {models}/NAME/VERSION/{MANIFEST_FILE}, as `birnn export` writes them"
        )
    return paths


def load_encoders(settings: Settings, metrics: Metrics) -> Encoders:
    """Load and prove every bundle of the models folder; a broken one is reported and the others are served.

    Raises:
        StartupError: There is no bundle, none could be loaded, or a device was asked for that does not work.
    """
    encoders = Encoders()
    for path in find_bundles(settings.models):
        label = f"{path.parent.name}/{path.name}"
        try:
            encoder = _load(path, settings)
        except (BundleError, StartupError) as error:
            logger.error("encoder %s is not served: %s", label, error)
            version = int(path.name) if path.name.isdecimal() else 0
            encoders.add_broken(path.parent.name, version, str(error))
            metrics.encoder_ready.labels(path.parent.name, path.name).set(0)
            continue
        encoders.add(encoder)
        _publish(encoder, metrics)
    if not list(encoders):
        reasons = "; ".join(f"{label}: {reason}" for label, reason in encoders.broken.items())
        raise StartupError(f"none of the encoders in {settings.models} could be loaded: {reasons}")
    return encoders


def _load(path: Path, settings: Settings) -> ServedEncoder:
    bundle = Bundle.load(path)
    manifest = bundle.manifest
    if (path.parent.name, path.name) != (manifest.name, str(manifest.version)):
        raise BundleError(f"{path}: the manifest names {manifest.name}/{manifest.version}; rename the folder")
    proven = load_engine(
        bundle,
        settings.device,
        engine=settings.engine,
        precision=settings.precision,
        slots=settings.slots,
        gpu_memory_mib=settings.gpu_memory_mib,
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
        proven.choice,
        max(proven.report.pooled, proven.report.tokens),
        1000 * cost.seconds(1, 48),
    )
    return ServedEncoder(bundle, engine, lanes)


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
