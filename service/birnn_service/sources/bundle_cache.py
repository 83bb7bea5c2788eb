"""Fetched bundles, kept on disk for the next start and for when their store cannot be reached.

    bundles/SOURCE/look.json            the URL, and the aliases of the latest look
    bundles/SOURCE/fetched/NAME@VERSION.json   which content of a bundle was fetched
    bundles/SOURCE/contents/DIGEST/     the files of a bundle, all of them

SOURCE is a digest of the URL, DIGEST one of the manifest and the signature. A content appears under its name when it is
whole, so several processes can share a cache, and one that was killed leaves nothing that would be used.
"""

import logging
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from birnn_bundle.atomic_file import removed_on_signals, replace_text
from birnn_bundle.bundle import MOST_MANIFEST_BYTES, read_signature
from birnn_bundle.errors import BundleError
from birnn_bundle.files import SIGNATURE_FILE, check_listed, read_file, read_files
from birnn_bundle.manifest import MANIFEST_FILE, Manifest
from birnn_bundle.quoting import one_line
from birnn_service.sources.holding import StoreFingerprint
from birnn_service.sources.options import StoreOptions
from birnn_service.sources.source import SourceError
from birnn_service.state import Address

logger = logging.getLogger(__name__)

# Contents that the store no longer holds: the ones used last are kept, so that going back to one is quick.
MOST_OLD = 3
# An unfinished folder older than this, and than twice the time that a fetch may take, belongs to no running fetch.
LEFTOVER_SECONDS = 3600.0


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Fetched(_Model):
    """Which content of a bundle is in the cache.

    Attributes:
        name: Of the bundle.
        version: Of the bundle.
        fingerprint: What the store said of it when it was fetched.
        content: Its key.
    """

    schema_version: Literal[1] = 1
    name: str
    version: str
    fingerprint: StoreFingerprint
    content: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @property
    def address(self) -> Address:
        """Name and version."""
        return self.name, self.version


class _Looked(_Model):
    schema_version: Literal[1] = 1
    source: str
    aliases: dict[str, dict[str, int]]


class BundleCache:
    """The bundles that were fetched from one source."""

    def __init__(self, source: str, folder: Path, options: StoreOptions) -> None:
        """Keep bundles of `source` below `folder`; nothing is written yet."""
        self._source, self._options = source, options
        self._folder = folder / "bundles" / sha256(source.encode()).hexdigest()[:32]

    def fetched(self) -> dict[Address, Fetched]:
        """What was fetched of the bundles that the latest look has seen; damaged entries are left out."""
        found: dict[Address, Fetched] = {}
        for path in sorted((self._folder / "fetched").glob("*.json")):
            try:
                entry = Fetched.model_validate_json(path.read_bytes())
            except (OSError, ValidationError) as error:
                logger.info("ignoring %s in the cache: %s", path, one_line(str(error)))
                continue
            if path == self._entry(entry.address):
                found[entry.address] = entry
        return found

    def aliases(self) -> Mapping[str, Mapping[str, int]]:
        """The aliases of the latest look."""
        try:
            return _Looked.model_validate_json((self._folder / "look.json").read_bytes()).aliases
        except (OSError, ValidationError) as error:
            logger.info("no aliases in the cache of %s: %s", self._source, one_line(str(error)))
            return {}

    def find(self, content: str) -> Path | None:
        """The folder of a content, once every file of it matches its digest; one that is damaged is removed."""
        folder = self._content(content)
        if not folder.is_dir():
            return None
        try:
            manifest = read_file(folder, MANIFEST_FILE, MOST_MANIFEST_BYTES)
            if key_of(manifest, read_signature(folder)) != content:
                raise BundleError(f"{MANIFEST_FILE} or {SIGNATURE_FILE} was changed")
            files = Manifest.from_json(manifest).files
            read_files(folder, files, self._options.max_bundle_bytes)
            check_listed(folder, {*files, MANIFEST_FILE, SIGNATURE_FILE})
        except (BundleError, OSError) as error:
            logger.warning("%s in the cache is damaged and fetched again: %s", folder, one_line(str(error)))
            shutil.rmtree(folder, ignore_errors=True)
            return None
        with suppress(OSError):  # a cache that is read only serves as well
            os.utime(folder)
        return folder

    @contextmanager
    def unfinished(self) -> Iterator[Path]:
        """A new folder to put a bundle's files in; it is gone at the end, unless `keep` has taken it.

        Raises:
            SourceError: It cannot be written.
        """
        folder = self._folder / f".unfinished-{os.getpid()}-{secrets.token_hex(4)}"
        with self._writing(), removed_on_signals(folder):
            self._remove_leftovers()
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                folder.mkdir()
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def keep(self, unfinished: Path, content: str) -> None:
        """Give a whole bundle, its bytes on disk, its place. Another process may have been quicker with the same."""
        folder = self._content(content)
        folder.parent.mkdir(exist_ok=True)
        if self.find(content) is None:
            try:
                unfinished.rename(folder)
            except OSError:
                if self.find(content) is None:
                    raise

    def remember(self, entry: Fetched) -> None:
        """Note which content a bundle has.

        Raises:
            SourceError: It cannot be written.
        """
        with self._writing():
            path = self._entry(entry.address)
            path.parent.mkdir(exist_ok=True)
            replace_text(path, entry.model_dump_json() + "\n")

    def looked(self, bundles: Collection[Address], aliases: Mapping[str, Mapping[str, int]]) -> None:
        """Note what a look has seen: forget other bundles, and remove all old contents but the last few used.

        A cache that cannot be written keeps nothing, and the log says so.
        """
        looked = _Looked(source=self._source, aliases={name: dict(known) for name, known in aliases.items()})
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_text(self._folder / "look.json", looked.model_dump_json() + "\n")
            fetched = self.fetched()
            for address in fetched.keys() - set(bundles):
                self._entry(address).unlink(missing_ok=True)
            self._remove_old({entry.content for address, entry in fetched.items() if address in bundles})
        except OSError as error:
            logger.warning("the cache %s cannot be written: %s", self._folder, error)

    def _remove_old(self, current: Collection[str]) -> None:
        old = [folder for folder in (self._folder / "contents").glob("*") if folder.name not in current]
        for folder in sorted(old, key=_last_used, reverse=True)[MOST_OLD:]:
            logger.info("removing %s from the cache, which %s no longer holds", folder.name[:12], self._source)
            shutil.rmtree(folder, ignore_errors=True)

    def _remove_leftovers(self) -> None:
        oldest = time.time() - max(LEFTOVER_SECONDS, 2 * self._options.most_seconds)
        for folder in self._folder.glob(".unfinished-*"):
            if _last_used(folder) < oldest:
                logger.info("removing %s, which a fetch that was killed has left", folder)
                shutil.rmtree(folder, ignore_errors=True)

    def _content(self, content: str) -> Path:
        return self._folder / "contents" / content

    def _entry(self, address: Address) -> Path:
        # Both are those of a manifest by now, so neither holds what means something to a file system.
        name, version = address
        return self._folder / "fetched" / f"{name}@{version}.json"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SourceError(
                f"cannot write to the cache {self._folder}: {error.strerror or error}; --cache-dir gives another folder"
            ) from error


def key_of(manifest: bytes, signature: bytes | None) -> str:
    """By which a content is known: the manifest holds the digests of all other files but the signature."""
    return sha256(sha256(manifest).digest() + (b"" if signature is None else b"signature" + signature)).hexdigest()


def _last_used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0
