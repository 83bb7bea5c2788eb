"""What is served: encoders by name and version, wherever their engines run."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from birnn_bundle.manifest import Manifest
from birnn_bundle.numerals import read_version
from birnn_bundle.quoting import shown
from birnn_bundle.tokenizer import Tokenizer
from birnn_service.engine.engine import EngineInfo, Output
from birnn_service.errors import BrokenEncoderError, UnknownEncoderError
from birnn_service.state import Address

# Most encoders or versions that a message names.
MOST_LISTED = 20


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


def address_of(encoder: Encoder) -> Address:
    """Name and version, by which an encoder is known everywhere."""
    return encoder.manifest.name, str(encoder.manifest.version)


def width_of(encoder: Encoder, output: Output) -> int:
    """Floats of one vector of an output."""
    return encoder.manifest.dimension if output is Output.POOLED else encoder.manifest.token_dimension


class Encoders(Generic[E]):
    """All versions of all encoders; the ones that could not be loaded are remembered with the reason."""

    def __init__(self, served: Iterable[E], broken: Mapping[Address, str]) -> None:
        """Serve `served`; `broken` says by the names of their folders, NAME and VERSION, why others are not."""
        self._served: dict[str, dict[int, E]] = {}
        for encoder in served:
            self._served.setdefault(encoder.manifest.name, {})[encoder.manifest.version] = encoder
        self._broken: dict[str, dict[str, str]] = {}
        for (name, version), reason in broken.items():
            self._broken.setdefault(name, {})[version] = reason

    def __iter__(self) -> Iterator[E]:
        for name in sorted(self._served):
            yield from (self._served[name][version] for version in sorted(self._served[name]))

    @property
    def broken(self) -> dict[Address, str]:
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
            BrokenEncoderError: It is there, but could not be loaded; says why.
        """
        if not name and len(self._served) == 1:
            name = next(iter(self._served))
        versions = self._served.get(name, {})
        broken = self._broken.get(name, {})
        if not versions and not broken:
            raise UnknownEncoderError(f"no encoder {shown(name)}; served are: {_listed(sorted(self._served))}")
        if not version:
            if not versions:
                latest = max(broken, key=lambda text: (read_version(text) or 0, text))
                raise BrokenEncoderError(f"encoder {shown(name)} could not be loaded: {broken[latest]}")
            return versions[max(versions)]
        number = read_version(version)
        if number in versions:
            return versions[number]
        if version in broken:
            raise BrokenEncoderError(
                f"version {version} of encoder {shown(name)} could not be loaded: {broken[version]}"
            )
        known = _listed(sorted(versions))
        raise UnknownEncoderError(f"encoder {shown(name)} has no version {shown(version)}; served are: {known}")

    def versions(self, name: str) -> list[int]:
        """Versions served of one encoder, ascending."""
        return sorted(self._served.get(name, {}))


def _listed(known: Sequence[str | int]) -> str:
    """Names or versions for a message, of bounded length."""
    more = f" and {len(known) - MOST_LISTED} more" if len(known) > MOST_LISTED else ""
    return (", ".join(map(str, known[:MOST_LISTED])) or "none") + more
