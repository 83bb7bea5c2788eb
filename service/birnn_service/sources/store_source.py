"""Bundles in a store, fetched into the cache; served from there while the store cannot be reached."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from birnn_bundle.bundle import MOST_MANIFEST_BYTES
from birnn_bundle.errors import BundleError
from birnn_bundle.files import MOST_SIGNATURE_BYTES, SIGNATURE_FILE
from birnn_bundle.manifest import MANIFEST_FILE, Manifest
from birnn_bundle.quoting import told
from birnn_service.sources.aliases import ALIASES_FILE, MOST_BYTES, read_aliases
from birnn_service.sources.bundle_cache import BundleCache, Fetched, key_of
from birnn_service.sources.holding import Holding, Holdings, Part, holdings_of
from birnn_service.sources.index import INDEX_FILE, read_index
from birnn_service.sources.index import MOST_BYTES as MOST_INDEX_BYTES
from birnn_service.sources.options import StoreOptions
from birnn_service.sources.source import Look, SourceError, check_address, shown_address
from birnn_service.sources.store import MissingObjectError, Store, StoredObject, UnreachableError
from birnn_service.state import Address

T = TypeVar("T")

logger = logging.getLogger(__name__)


class StoreSource:
    """Bundles at `NAME/VERSION/` of a store."""

    # A look is a request for each thousand objects, which stores count and bill.
    poll_seconds = 60.0

    def __init__(self, store: Store, cache: BundleCache, options: StoreOptions) -> None:
        """Fetch from `store` into `cache`."""
        self._store, self._cache, self._options = store, cache, options
        self._bundles: Mapping[Address, Holding] | None = None
        """Those of the latest look; None where the store could not be reached."""
        self._aliases_read: dict[StoredObject, Mapping[str, int]] = {}

    @property
    def name(self) -> str:
        """The URL."""
        return self._store.name

    def look(self) -> Look:
        """See what is there now, or what the cache holds where the store cannot be reached; see `Source.look`."""
        try:
            look, self._bundles = asyncio.run(self._within_limit(self._look(), "to be looked at"))
        except UnreachableError as error:
            self._bundles = None
            return self._look_at_cache(error)
        self._cache.looked(look.bundles, look.aliases)
        return look

    def fetch(self, address: Address) -> Path:
        """Have a bundle in the cache; see `Source.fetch`."""
        check_address(address, self.name)
        known = self._cache.fetched().get(address)
        holding = None if self._bundles is None else self._bundles.get(address)
        # Without the store, what was fetched before has to do.
        if known is not None and (self._bundles is None or (holding and holding.fingerprint == known.fingerprint)):
            path = self._cache.find(known.content)
            if path is not None:
                return path
        if holding is None:
            raise SourceError(f"no encoder {shown_address(address)} in {self.name}, as it was when it was looked at")
        return asyncio.run(self._within_limit(self._fetch(address, holding), "to be fetched"))

    async def _within_limit(self, work: Awaitable[T], what: str) -> T:
        try:
            async with asyncio.timeout(self._options.most_seconds):
                return await work
        except TimeoutError as error:
            raise UnreachableError(
                f"{self.name} took more than {self._options.most_seconds:g} seconds {what} (--source-seconds)"
            ) from error

    async def _look(self) -> tuple[Look, Mapping[Address, Holding]]:
        holdings = await self._holdings()
        aliases, problems = dict(holdings.aliases), {}
        for name, stored in holdings.alias_files.items():
            try:
                aliases[name] = await self._aliases(stored)
            except UnreachableError:
                raise
            except SourceError as error:
                problems[f"{told(name)}/{ALIASES_FILE}"] = str(error)
        self._aliases_read = {stored: aliases[name] for name, stored in holdings.alias_files.items() if name in aliases}
        fingerprints = {address: holding.fingerprint for address, holding in holdings.bundles.items()}
        return Look(fingerprints, aliases, problems), holdings.bundles

    async def _holdings(self) -> Holdings:
        if self._store.lists:
            return holdings_of(await self._store.objects(), self.name)
        try:
            return read_index(await self._read(INDEX_FILE, MOST_INDEX_BYTES), self.name)
        except MissingObjectError as error:
            raise SourceError(
                f"{error}: a web server needs one to say what it holds; write it with `birnn models index FOLDER`"
            ) from error

    async def _aliases(self, stored: StoredObject) -> Mapping[str, int]:
        known = self._aliases_read.get(stored) if stored.etag else None
        return read_aliases(await self._read(stored.path, MOST_BYTES, stored.etag)) if known is None else known

    def _look_at_cache(self, error: UnreachableError) -> Look:
        """What the cache holds of the latest look that worked.

        Raises:
            UnreachableError: Nothing.
        """
        fetched = self._cache.fetched()
        if not fetched:
            raise error
        bundles = {address: entry.fingerprint for address, entry in fetched.items()}
        stale = f"{error}; using the {len(fetched)} bundles of it in the cache"
        return Look(bundles, self._cache.aliases(), stale=stale)

    async def _fetch(self, address: Address, holding: Holding) -> Path:
        place = "/".join(address)
        raw = await self._read_part(place, MANIFEST_FILE, holding.parts[MANIFEST_FILE], MOST_MANIFEST_BYTES)
        signature = None
        if (part := holding.parts.get(SIGNATURE_FILE)) is not None:
            signature = await self._read_part(place, SIGNATURE_FILE, part, MOST_SIGNATURE_BYTES)
        try:
            manifest = Manifest.from_json(raw)
        except BundleError as error:
            raise SourceError(f"{shown_address(address)} in {self.name}: {error}") from error
        if (manifest.name, str(manifest.version)) != address:
            raise SourceError(
                f"{shown_address(address)} in {self.name} has a manifest that names {manifest.name}/{manifest.version}"
            )
        key = key_of(raw, signature)
        path = self._cache.find(key)
        if path is None:
            parts = self._parts(address, holding, manifest)
            with self._cache.unfinished() as folder:
                (folder / MANIFEST_FILE).write_bytes(raw)
                if signature is not None:
                    (folder / SIGNATURE_FILE).write_bytes(signature)
                await self._download(place, parts, folder)
                self._cache.keep(folder, key)
            path = self._cache.find(key)
            if path is None:
                raise SourceError(f"{shown_address(address)} of {self.name} has vanished from the cache; try again")
            logger.info("fetched %s from %s", shown_address(address), self.name)
        name, version = address
        self._cache.remember(Fetched(name=name, version=version, fingerprint=holding.fingerprint, content=key))
        return path

    def _parts(self, address: Address, holding: Holding, manifest: Manifest) -> dict[str, Part]:
        """The files of a bundle other than the manifest and its signature, with their digests.

        Raises:
            SourceError: The store holds others, or they are too large together.
        """
        place = f"{shown_address(address)} in {self.name}"
        if holding.complete:
            listed = {*manifest.files, MANIFEST_FILE}
            if missing := sorted(listed - holding.parts.keys()):
                raise SourceError(f"{place} lacks {told(missing[0])}; copy the bundle again or export it anew")
            if more := sorted(holding.parts.keys() - listed - {SIGNATURE_FILE}):
                raise SourceError(f"{place} holds {told(more[0])}, which is not listed in the manifest; remove it")
        parts = {file: replace(holding.parts.get(file, Part()), digest=sha) for file, sha in manifest.files.items()}
        size = sum(part.size or 0 for part in parts.values())
        if size > self._options.max_bundle_bytes:
            raise SourceError(f"{place} has {size >> 20} MiB, at most {self._most}")
        return parts

    @property
    def _most(self) -> str:
        return f"{self._options.max_bundle_bytes >> 20} MiB are allowed (--max-bundle-mib)"

    async def _download(self, place: str, parts: Mapping[str, Part], folder: Path) -> None:
        """Write the files of a bundle into a folder, each of which must match its digest."""
        left = self._options.max_bundle_bytes
        for file, part in parts.items():
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = sha256()
            most = left if part.size is None else min(left, part.size)
            hint = "its size in the list of objects" if part.size is not None else f"of a bundle, {self._most}"
            with target.open("xb") as output:
                async for piece in self._store.chunks(f"{place}/{file}", most, part.etag, hint):
                    digest.update(piece)
                    output.write(piece)
                    left -= len(piece)
                output.flush()
                os.fsync(output.fileno())
            self._check(f"{place}/{file}", digest.hexdigest(), part, "its manifest")

    async def _read_part(self, place: str, file: str, part: Part, limit: int) -> bytes:
        content = await self._read(f"{place}/{file}", limit, part.etag)
        self._check(f"{place}/{file}", sha256(content).hexdigest(), part, INDEX_FILE)
        return content

    def _check(self, path: str, found: str, part: Part, witness: str) -> None:
        if part.digest and found != part.digest:
            raise SourceError(
                f"{told(path)} in {self.name} is not what {witness} says (sha256 {found[:12]}..., expected "
                f"{part.digest[:12]}...); copy the bundle there again"
            )

    async def _read(self, path: str, limit: int, etag: str = "") -> bytes:
        return b"".join([piece async for piece in self._store.chunks(path, limit, etag)])
