"""What is served: encoders by name and version, wherever their engines run."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from birnn_bundle.manifest import Manifest
from birnn_bundle.tokenizer import Tokenizer
from birnn_service.engine.engine import EngineInfo, Output
from birnn_service.errors import UnavailableError, UnknownEncoderError


class Encoder(Protocol):
    """One version of one encoder: all that is needed to take requests for it and to describe it."""

    @property
    def manifest(self) -> Manifest:
        """What its bundle says about itself."""

    @property
    def tokenizer(self) -> Tokenizer:
        """What reads its sequences."""

    @property
    def info(self) -> EngineInfo:
        """What runs it."""


E = TypeVar("E", bound=Encoder, covariant=True)


def label_of(encoder: Encoder) -> str:
    """Name and version, for messages: `smiles/1`."""
    return f"{encoder.manifest.name}/{encoder.manifest.version}"


def width_of(encoder: Encoder, output: Output) -> int:
    """Floats of one vector of an output."""
    return encoder.manifest.dimension if output is Output.POOLED else encoder.manifest.token_dimension


class Encoders(Generic[E]):
    """All versions of all encoders; the ones that could not be loaded are remembered with the reason."""

    def __init__(self, served: Iterable[E], broken: Mapping[tuple[str, int], str]) -> None:
        """Serve `served`; `broken` says by name and version why others are not."""
        self._served: dict[str, dict[int, E]] = {}
        for encoder in served:
            self._served.setdefault(encoder.manifest.name, {})[encoder.manifest.version] = encoder
        self._broken: dict[str, dict[int, str]] = {}
        for (name, version), reason in broken.items():
            self._broken.setdefault(name, {})[version] = reason

    def __iter__(self) -> Iterator[E]:
        for name in sorted(self._served):
            yield from (self._served[name][version] for version in sorted(self._served[name]))

    @property
    def broken(self) -> dict[tuple[str, int], str]:
        """Name and version of everything that is not served, and why."""
        return {
            (name, version): reason
            for name, versions in sorted(self._broken.items())
            for version, reason in sorted(versions.items())
        }

    def find(self, name: str, version: str) -> E:
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
