"""A folder of this machine, read where it lies."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from birnn_bundle.bundle import MOST_MANIFEST_BYTES
from birnn_bundle.errors import BundleError
from birnn_bundle.files import MOST_FOLDERS, read_file
from birnn_bundle.manifest import MANIFEST_FILE, Manifest
from birnn_bundle.quoting import told
from birnn_service.sources.aliases import ALIASES_FILE, MOST_BYTES, read_aliases
from birnn_service.sources.source import (
    MOST_BUNDLES,
    MOST_FILES,
    Fingerprint,
    Look,
    SourceError,
    check_address,
    shown_address,
)
from birnn_service.state import Address


class FolderSource:
    """Bundles in `NAME/VERSION/` of a folder; or one bundle that the folder itself is, as KServe mounts it."""

    poll_seconds = 5.0

    def __init__(self, folder: Path) -> None:
        """Read from `folder`, which need not exist yet."""
        self._folder = folder

    @property
    def name(self) -> str:
        """The folder."""
        return str(self._folder)

    def look(self) -> Look:
        """See what is there now; see `Source.look`."""
        if not self._folder.is_dir():
            raise SourceError(f"the models folder {self._folder} does not exist; give one with --models")
        try:
            if self.is_bundle:
                return Look({self._own_address(): fingerprint(self._folder)})
            bundles = {address: fingerprint(self._path(address)) for address in self._found()}
        except OSError as error:
            raise SourceError(f"cannot read the models folder {self._folder}: {error}") from error
        if not bundles:
            raise SourceError(f"no encoder in {self._folder}: {self._expectation()}")
        return Look(bundles, *self._aliases({name for name, _ in bundles}))

    def fetch(self, address: Address) -> Path:
        """The bundle's folder; see `Source.fetch`."""
        check_address(address, self.name)
        path = self._folder if self.is_bundle else self._path(address)
        if not _is_bundle(path):
            raise SourceError(f"no encoder {shown_address(address)} in {self.name}")
        return path

    @property
    def is_bundle(self) -> bool:
        """Whether the folder itself is a bundle."""
        return (self._folder / MANIFEST_FILE).exists()

    def _path(self, address: Address) -> Path:
        return self._folder.joinpath(*address)

    def _own_address(self) -> Address:
        """Name and version of the bundle that the folder itself is: those of its manifest, as no folder is named so."""
        try:
            manifest = Manifest.from_json(read_file(self._folder, MANIFEST_FILE, MOST_MANIFEST_BYTES))
        except BundleError as error:
            raise SourceError(f"cannot serve the bundle {self._folder}: {error}") from error
        return manifest.name, str(manifest.version)

    def _found(self) -> Iterator[Address]:
        found = sorted(filter(_is_bundle, self._folder.glob("[!.]*/[!.]*")))
        if len(found) > MOST_BUNDLES:
            raise SourceError(f"{self._folder} holds {len(found)} bundles, {MOST_BUNDLES} at most expected")
        return ((path.parent.name, path.name) for path in found)

    def _aliases(self, names: set[str]) -> tuple[Mapping[str, Mapping[str, int]], Mapping[str, str]]:
        """Aliases of the encoders, and problems of the files that hold them."""
        aliases, problems = {}, {}
        for name in sorted(names):
            if not (self._folder / name / ALIASES_FILE).exists():
                continue
            try:
                aliases[name] = read_aliases(read_file(self._folder / name, ALIASES_FILE, MOST_BYTES))
            except (BundleError, SourceError) as error:
                problems[f"{told(name)}/{ALIASES_FILE}"] = str(error)
        return aliases, problems

    def _expectation(self) -> str:
        """What a folder without bundles should have been."""
        if any(self._folder.glob(f"[!.]*/{MANIFEST_FILE}")):
            above = self._folder.resolve().parent
            return f"it is the folder of one encoder's versions; give the folder above: --models {above}"
        return f"expected {self._folder}/NAME/VERSION/{MANIFEST_FILE}, as `birnn export` writes them"


def _is_bundle(folder: Path) -> bool:
    """Whether a folder holds a manifest, as far as one can see: one that may not be read is no reason to unload it."""
    try:
        return (folder / MANIFEST_FILE).exists()
    except PermissionError:
        return True


def fingerprint(folder: Path) -> Fingerprint:
    """Of all files of a bundle: their paths, sizes, times and inodes.

    A file that vanishes meanwhile changes it, too. Of a folder with too many files or folders, which `Bundle.load`
    refuses, it holds the first ones.
    """
    found: list[tuple[str, int, int, int, int]] = []
    for count, (place, folders, names) in enumerate(os.walk(folder)):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            try:
                state = os.stat(path)
            except OSError:
                found.append((path, 0, 0, 0, 0))
            else:
                # The time of the last change of the inode, too: the other one can be set back.
                found.append((path, state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino))
        if len(found) > MOST_FILES or count > MOST_FOLDERS:
            break
    return tuple(found[:MOST_FILES])
