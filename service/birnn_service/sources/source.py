"""What every source of bundles offers: to look what is there, and to fetch one of them into a local folder."""

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from birnn_bundle.quoting import told
from birnn_service.state import Address

Fingerprint = Hashable
"""Of one bundle: another value once any of its files has changed. It has no other meaning."""

# Of one source. Each limit has an error that names it.
MOST_BUNDLES = 1000
MOST_FILES = 2000
"""Files of one bundle; a manifest lists 1000 at most."""


class SourceError(Exception):
    """A source cannot be read, or does not have what was asked for; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a source held when it was looked at.

    Attributes:
        bundles: Every bundle by NAME and VERSION, as its folders are named, and its fingerprint. Nothing has been read:
            a bundle may be broken, or belong to another name than its folder's.
        aliases: Versions by encoder and alias, as the files NAME/aliases.json give them.
        problems: What could not be read and is left out, by its path in the source, and why.
        stale: Why the source could not be reached, so that this is what was fetched from it before; empty where it was.
    """

    bundles: Mapping[Address, Fingerprint]
    aliases: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    stale: str = ""


class Source(Protocol):
    """A place that holds bundles. Both methods block and are called on threads, one call at a time.

    Attributes:
        poll_seconds: Seconds between two looks, unless the settings say otherwise.
    """

    poll_seconds: float

    @property
    def name(self) -> str:
        """The place, for messages; holds no secrets."""

    def look(self) -> Look:
        """See what is there now.

        Raises:
            SourceError: The place cannot be read, or holds no bundle at all.
        """

    def fetch(self, address: Address) -> Path:
        """Have a bundle as a folder of this machine, for `Bundle.load`, which checks all of it.

        Args:
            address: One of the latest look's.

        Raises:
            SourceError: It is not there, has changed since the latest look, or cannot be fetched.
        """


def shown_address(address: Address) -> str:
    """Name and version, for messages; they may be any text."""
    return "/".join(map(told, address))


def check_address(address: Address, source: str) -> None:
    """Check that an address names a folder below a source, and nothing else: it may come from a caller.

    Raises:
        SourceError: It does not.
    """
    for part in address:
        if not part or part.startswith(".") or re.search(r"[/\\\0]", part):
            raise SourceError(f"no encoder {shown_address(address)} in {source}")
