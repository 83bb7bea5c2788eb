"""What a store holds, by bundle, as its list of objects or its index says."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from birnn_bundle.manifest import MANIFEST_FILE
from birnn_bundle.quoting import told
from birnn_service.sources.aliases import ALIASES_FILE
from birnn_service.sources.source import MOST_BUNDLES, MOST_FILES, SourceError
from birnn_service.sources.store import StoredObject
from birnn_service.state import Address

StoreFingerprint = tuple[tuple[str, int | None, str, str], ...]
"""Path, size, ETag or time, and digest of each part of a bundle that are known before it is read."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is known of one object of a bundle before it is read.

    Attributes:
        size: In bytes; None where the store does not say.
        etag: The one it must have; empty for any.
        digest: SHA-256 that it must have; empty for any.
        modified: When it was written last, where that is known.
    """

    size: int | None = None
    etag: str = ""
    digest: str = ""
    modified: str = ""


@dataclass(frozen=True, slots=True)
class Holding:
    """One bundle in a store.

    Attributes:
        parts: Its objects by their path in the bundle, ascending.
        complete: Whether `parts` are all of its objects; else the manifest and its signature only.
    """

    parts: Mapping[str, Part]
    complete: bool

    @property
    def fingerprint(self) -> StoreFingerprint:
        """Another one once any part has changed."""
        return tuple((path, part.size, part.etag or part.modified, part.digest) for path, part in self.parts.items())


@dataclass(frozen=True, slots=True)
class Holdings:
    """All bundles of a store.

    Attributes:
        bundles: By name and version, as the paths of the objects are.
        alias_files: Objects that hold aliases, by encoder.
        aliases: Versions by encoder and alias, where the store's index gives them.
    """

    bundles: Mapping[Address, Holding]
    alias_files: Mapping[str, StoredObject] = field(default_factory=dict)
    aliases: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def holdings_of(objects: Iterable[StoredObject], store: str) -> Holdings:
    """Sort the objects of a store by bundle.

    As in a folder, a bundle is what has a manifest at NAME/VERSION/manifest.json, and names that begin with a dot are
    left out, as is everything else.

    Raises:
        SourceError: There is no bundle, or too much of something.
    """
    found: dict[Address, dict[str, Part]] = {}
    alias_files: dict[str, StoredObject] = {}
    depths: set[int] = set()
    for each in sorted(objects, key=lambda each: each.path):
        steps = each.path.split("/")
        if steps[-1] == MANIFEST_FILE:
            depths.add(len(steps))
        if steps[0].startswith(".") or len(steps) < 2 or steps[1].startswith("."):
            continue
        if len(steps) == 2:
            if steps[1] == ALIASES_FILE:
                alias_files[steps[0]] = each
            continue
        parts = found.setdefault((steps[0], steps[1]), {})
        parts["/".join(steps[2:])] = Part(each.size, each.etag, modified=each.modified)
        if len(parts) > MOST_FILES:
            raise SourceError(
                f"{store} holds more than {MOST_FILES} objects under {told('/'.join(steps[:2]))}; is it a bundle?"
            )
    bundles = {address: Holding(parts, True) for address, parts in found.items() if MANIFEST_FILE in parts}
    if len(bundles) > MOST_BUNDLES:
        raise SourceError(f"{store} holds {len(bundles)} bundles, {MOST_BUNDLES} at most expected")
    if not bundles:
        raise SourceError(f"no encoder in {store}: {_expectation(store, depths)}")
    names = {name for name, _ in bundles}
    return Holdings(bundles, {name: each for name, each in alias_files.items() if name in names})


def _expectation(store: str, depths: set[int]) -> str:
    """What a store without bundles should have been; `depths` are those at which it has manifests."""
    if 1 in depths:
        return "it is a bundle; give what is two levels above"
    if 2 in depths:
        return "it holds the versions of one encoder; give what is one level above"
    return f"expected {store}/NAME/VERSION/{MANIFEST_FILE}, as `birnn export` writes them"
