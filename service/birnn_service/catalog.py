"""What is served: encoders by name and version, wherever their engines run. It changes while calls are under way."""

import asyncio
import enum
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from birnn_bundle.manifest import Manifest
from birnn_bundle.numerals import read_version
from birnn_bundle.quoting import shown
from birnn_bundle.tokenizer import Tokenizer
from birnn_service.engine.engine import EngineInfo, Output
from birnn_service.errors import BrokenEncoderError, LoadingError, ServiceError, UnknownEncoderError
from birnn_service.state import Address

# Most encoders or versions that a message names.
MOST_LISTED = 20

next_instance = itertools.count(1).__next__
"""A number for each load of a version in this process."""


class State(enum.StrEnum):
    """What a version is, by the names of Triton's index."""

    READY = "READY"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Status:
    """The outcome of loading a version that was found.

    Attributes:
        state: What it is.
        reason: Why it is not served; of one that is served, why its newer files are not.
        broken: Whether its files were tried and found bad.
    """

    state: State
    reason: str = ""
    broken: bool = False


class Encoder(Protocol):
    """One version of one encoder: all that is needed to take requests for it and to describe it."""

    @property
    def instance(self) -> int:
        """Tells this load from every other of this server, of the same name and version too."""

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
S = TypeVar("S", bound=Encoder)


def label_of(encoder: Encoder) -> str:
    """Name and version, for messages: `smiles/1`."""
    return f"{encoder.manifest.name}/{encoder.manifest.version}"


def address_of(encoder: Encoder) -> Address:
    """Name and version, by which callers know an encoder."""
    return encoder.manifest.name, str(encoder.manifest.version)


def width_of(encoder: Encoder, output: Output) -> int:
    """Floats of one vector of an output."""
    return encoder.manifest.dimension if output is Output.POOLED else encoder.manifest.token_dimension


class Encoders(Generic[E]):
    """All versions of all encoders, as those who answer calls see them: on the event loop, where it also changes.

    A call finds an encoder and holds it until its end. So it ends with the version with which it began, and an
    encoder is unloaded only when nothing uses it any more.
    """

    def __init__(
        self,
        served: Iterable[E] = (),
        broken: Mapping[Address, str] | None = None,
        candidates: Collection[Address] = (),
    ) -> None:
        """Begin with some encoders.

        Args:
            served: Those that are served.
            broken: By the names of their folders, NAME and VERSION, why others are not.
            candidates: Versions that only calls which name them get.
        """
        self._candidates = {(name, int(version)) for name, version in candidates}
        self._served: dict[str, dict[int, E]] = {}
        # Those that no new call finds, but earlier ones use, included.
        self._instances: dict[int, E] = {}
        self._users: dict[int, int] = {}
        self._unused: dict[int, asyncio.Event] = {}
        for encoder in served:
            self._served.setdefault(encoder.manifest.name, {})[encoder.manifest.version] = encoder
            self._instances[encoder.instance] = encoder
        self._aliases: Mapping[str, Mapping[str, int]] = {}
        self._statuses: dict[str, dict[str, Status]] = {}
        for (name, version), reason in (broken or {}).items():
            status = Status(State.UNAVAILABLE, reason, broken=True)
            self._statuses.setdefault(name, {})[version] = status

    def __iter__(self) -> Iterator[E]:
        return iter([versions[version] for _, versions in sorted(self._served.items()) for version in sorted(versions)])

    @property
    def aliases(self) -> Mapping[str, Mapping[str, int]]:
        """By name of an encoder: other names of its versions."""
        return self._aliases

    @property
    def statuses(self) -> dict[Address, Status]:
        """What there is to say of versions that are not served, and of newer files of those that are."""
        return {
            (name, version): status
            for name, versions in sorted(self._statuses.items())
            for version, status in sorted(versions.items())
        }

    @property
    def broken(self) -> dict[Address, str]:
        """Name and version of everything that is not served because it is broken, and why."""
        return {
            address: status.reason
            for address, status in self.statuses.items()
            if status.broken and read_version(address[1]) not in self._served.get(address[0], {})
        }

    def find(self, name: str, version: str = "") -> E:
        """Look up an encoder.

        Args:
            name: Its name; may be empty where exactly one encoder is served. NAME@VERSION says both.
            version: Its version or an alias of it; empty for the highest one served.

        Raises:
            UnknownEncoderError: There is none of that name or version, or it is not served on purpose; lists what is.
            LoadingError: It is about to be served.
            BrokenEncoderError: It is there, but could not be loaded; says why.
        """
        if not version and "@" in name:
            name, _, version = name.partition("@")
        if not name and len(self._served) == 1:
            name = next(iter(self._served))
        versions = self._served.get(name, {})
        others = self._statuses.get(name, {})
        if not versions and not others:
            raise UnknownEncoderError(f"no encoder {shown(name)}; served are: {_listed(sorted(self._served))}")
        if not version:
            if ready := [number for number, encoder in versions.items() if not self.is_candidate(encoder)]:
                return versions[max(ready)]
            if versions:
                known = _listed(sorted(versions))
                raise UnknownEncoderError(f"encoder {shown(name)} has candidates only (--shadow); name one: {known}")
            latest = max(others, key=lambda text: (read_version(text) or 0, text))
            raise _absence(f"encoder {shown(name)}", others[latest])
        means = self._aliases.get(name, {}).get(version)
        number = read_version(version) if means is None else means
        if number in versions:
            return versions[number]
        aliased = "" if means is None else f"{name}@{version} is version {means}; "
        version = version if means is None else str(means)
        if version in others:
            raise _absence(f"{aliased}version {version} of encoder {shown(name)}", others[version])
        known = _listed([*sorted(versions), *sorted(self._aliases.get(name, {}))])
        raise UnknownEncoderError(
            f"{aliased}encoder {shown(name)} has no version {shown(version)}; served are: {known}"
        )

    def is_candidate(self, encoder: Encoder) -> bool:
        """Whether only calls that name its version get an encoder."""
        return (encoder.manifest.name, encoder.manifest.version) in self._candidates

    def versions(self, name: str) -> list[int]:
        """Versions served of one encoder, ascending."""
        return sorted(self._served.get(name, {}))

    def instance(self, number: int) -> E:
        """An encoder by the number of its instance, for calls that found it earlier.

        Raises:
            UnknownEncoderError: It has been unloaded.
        """
        try:
            return self._instances[number]
        except KeyError:
            raise UnknownEncoderError("the encoder has been unloaded meanwhile; retry") from None

    def hold(self, encoder: Encoder) -> None:
        """Note that a call uses an encoder."""
        self._users[encoder.instance] = self._users.get(encoder.instance, 0) + 1

    def release(self, encoder: Encoder) -> None:
        """Note that a call that used an encoder has ended."""
        number = encoder.instance
        left = self._users[number] - 1
        if left:
            self._users[number] = left
            return
        del self._users[number]
        if number in self._unused:
            self._unused.pop(number).set()

    @contextmanager
    def using(self, encoder: Encoder) -> Iterator[None]:
        """Hold an encoder meanwhile."""
        self.hold(encoder)
        try:
            yield
        finally:
            self.release(encoder)

    async def until_unused(self, encoder: Encoder) -> None:
        """Wait until no call uses an encoder."""
        while encoder.instance in self._users:
            await self._unused.setdefault(encoder.instance, asyncio.Event()).wait()


class Catalog(Encoders[S], Generic[S]):
    """The encoders of a process, for those who change what is served; each change is seen whole or not at all."""

    def put(self, encoder: S) -> S | None:
        """Let new calls find an encoder; returns the one of the same name and version that they found until now."""
        versions = self._served.setdefault(encoder.manifest.name, {})
        replaced = versions.get(encoder.manifest.version)
        versions[encoder.manifest.version] = encoder
        self._instances[encoder.instance] = encoder
        return replaced

    def take_out(self, encoder: S) -> bool:
        """Let no new call find an encoder; those that have found it go on.

        Returns:
            Whether new calls found it until now, and none in its place.
        """
        name, version = encoder.manifest.name, encoder.manifest.version
        if self._served.get(name, {}).get(version) is not encoder:
            return False
        del self._served[name][version]
        if not self._served[name]:
            del self._served[name]
        return True

    def forget(self, encoder: S) -> None:
        """An encoder that was taken out, and that nothing uses, is unloaded."""
        self._instances.pop(encoder.instance, None)

    def note(self, statuses: Mapping[Address, Status], aliases: Mapping[str, Mapping[str, int]]) -> None:
        """Set the state of all versions that were found and are not served, and the aliases."""
        by_name: dict[str, dict[str, Status]] = {}
        for (name, version), status in statuses.items():
            by_name.setdefault(name, {})[version] = status
        self._statuses, self._aliases = by_name, aliases


def _absence(what: str, status: Status) -> ServiceError:
    """Why a version that is known cannot be had."""
    if status.state is State.LOADING:
        return LoadingError(f"{what} is being loaded; retry")
    if status.broken:
        return BrokenEncoderError(f"{what} could not be loaded: {status.reason}")
    return UnknownEncoderError(f"{what} is not served: {status.reason}")


def _listed(known: Sequence[str | int]) -> str:
    """Names or versions for a message, of bounded length."""
    more = f" and {len(known) - MOST_LISTED} more" if len(known) > MOST_LISTED else ""
    return (", ".join(map(str, known[:MOST_LISTED])) or "none") + more
