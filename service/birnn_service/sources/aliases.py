"""`NAME/aliases.json`: names for versions of one encoder, such as {"stable": 1}."""

import json
import re
from collections.abc import Mapping
from typing import Any

from birnn_bundle.numerals import MOST_VERSION
from birnn_bundle.quoting import shown
from birnn_service.sources.source import SourceError

ALIASES_FILE = "aliases.json"
MOST_BYTES = 64 << 10
MOST_ALIASES = 100
# It begins with a letter, so that none can be taken for a version.
_ALIAS = re.compile(r"[a-z][a-z0-9._-]{0,63}")


def read_aliases(content: bytes) -> Mapping[str, int]:
    """Versions by alias.

    Raises:
        SourceError: It is no such file; says what is wrong with it.
    """
    try:
        aliases = json.loads(content.decode(), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"is not JSON: {error}") from None
    return check_aliases(aliases)


def check_aliases(aliases: object) -> Mapping[str, int]:
    """Check what should be versions by alias; returns it.

    Raises:
        SourceError: Says what is wrong with it.
    """
    if not isinstance(aliases, dict):
        raise SourceError('is not an object of aliases and versions, such as {"stable": 1}')
    if len(aliases) > MOST_ALIASES:
        raise SourceError(f"has {len(aliases)} aliases, {MOST_ALIASES} at most expected")
    for alias, version in aliases.items():
        if not isinstance(alias, str) or not _ALIAS.fullmatch(alias):
            raise SourceError(
                f"{shown(str(alias))} is no alias: a lower-case letter, then at most 63 of a-z, 0-9, '.', '_' and '-'"
            )
        if type(version) is not int or not 1 <= version <= MOST_VERSION:
            raise SourceError(f"alias {alias} is not for a version, a number from 1 to {MOST_VERSION}")
    return aliases


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found
