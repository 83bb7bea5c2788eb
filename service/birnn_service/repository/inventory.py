"""The inventory: what the source holds, and which of it is wanted."""

import asyncio
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from birnn_bundle.quoting import one_line
from birnn_service.repository.background import NICENESS, in_background
from birnn_service.repository.version import Version
from birnn_service.settings import Settings
from birnn_service.sources.source import Look, Source, SourceError
from birnn_service.state import Address

logger = logging.getLogger(__name__)


class Inventory:
    """All versions that the source was last seen to hold, with what is known of each.

    Attributes:
        versions: By name and version, as their folders are named.
        aliases: By name of an encoder: other names of its versions.
        outage: Why the source could not be seen at the last look; empty if it could.
    """

    def __init__(self, source: Source, settings: Settings) -> None:
        """Begin with nothing seen.

        Args:
            source: Where versions come from.
            settings: Which are wanted.
        """
        self.versions: dict[Address, Version] = {}
        self.aliases: Mapping[str, Mapping[str, int]] = {}
        self.outage = ""
        self._source = source
        self._settings = settings
        self._problems: Mapping[str, str] = {}
        self._candidates = {(name, int(version)) for name, version in settings.candidates}
        # Sources are asked for one bundle at a time.
        self._fetching = asyncio.Lock()

    @property
    def source_name(self) -> str:
        """The source, for messages."""
        return self._source.name

    @property
    def poll_seconds(self) -> float:
        """Pause between two looks; 0 to look only when ordered."""
        asked = self._settings.models_poll
        return self._source.poll_seconds if asked is None else asked

    async def first_look(self) -> None:
        """See what there is at the start, if need be as it was when the source was last within reach.

        Raises:
            SourceError: That cannot be seen.
        """
        look = await in_background(self._source.look, niceness=0)
        if look.stale:
            self.outage = look.stale
            logger.warning("%s", one_line(look.stale))
        self._take(look)

    async def look(self) -> bool:
        """See what there is now; returns whether that could be seen."""
        try:
            look = await in_background(self._source.look)
            outage = look.stale
        except SourceError as error:
            outage = str(error)
        if outage:
            # An unmounted volume looks like an empty one. Whatever is served goes on.
            if outage != self.outage:
                self.outage = outage
                logger.error("cannot look for encoders, what is served goes on: %s", one_line(outage))
            return False
        self.outage = ""
        self._take(look)
        return True

    async def fetch(self, address: Address, niceness: int = NICENESS) -> Path:
        """Where the files of a version are, on this machine.

        Raises:
            SourceError: They cannot be fetched.
            BundleError: They are not what their manifest lists.
        """
        async with self._fetching:
            return await in_background(lambda: self._source.fetch(address), niceness=niceness)

    def meant(self, model: str) -> tuple[str, str]:
        """Name and version of an order; an alias is the version that it means now."""
        name, _, version = model.partition("@")
        return name, str(self.aliases.get(name, {}).get(version, version))

    def of(self, name: str) -> list[Version]:
        """All versions of one encoder."""
        return [version for address, version in self.versions.items() if address[0] == name]

    def wanted(self) -> Iterator[Version]:
        """The versions that are to be served, and those whose folders are named so that they never can."""
        by_name: dict[str, list[Version]] = {}
        for version in self.versions.values():
            if not version.is_gone and not version.unloaded:
                by_name.setdefault(version.address[0], []).append(version)
        for name, found in sorted(by_name.items()):
            candidates = {number for each, number in self._candidates if each == name}
            numbers = {
                version.number: version
                for version in found
                if version.number is not None and version.number not in candidates
            }
            bad = [number for number, version in numbers.items() if version.error and version.encoder is None]
            rule = self._settings.version_policy.of(name)
            wanted = {*rule.wanted(numbers.keys(), bad), *self.aliases.get(name, {}).values(), *candidates}
            yield from (
                version
                for version in sorted(found, key=lambda version: version.number or 0)
                if version.number is None or version.number in wanted or version.ordered
            )

    def next_due(self) -> Version | None:
        """The next version to load."""
        due = (version for version in self.wanted() if version.is_untried and version.is_settled)
        return next(due, None)

    def _take(self, look: Look) -> None:
        for address, fingerprint in sorted(look.bundles.items(), key=lambda found: found[0]):
            version = self.versions.setdefault(address, Version(address, fingerprint))
            version.see(fingerprint)
        for address, version in self.versions.items():
            if address not in look.bundles:
                version.miss()
        self.aliases = look.aliases
        for place in look.problems.keys() - self._problems.keys():
            logger.error("%s in %s is ignored: %s", place, self._source.name, one_line(look.problems[place]))
        self._problems = look.problems
