"""`NAME/aliases.json`: names for versions of one encoder, such as {"stable": 1}."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from birnn_bundle.atomic_file import replace_bytes
from birnn_bundle.manifest import MANIFEST_FILE
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


def write_alias(models: Path, name: str, alias: str, version: int) -> Path:
    """Set or, with version 0, remove an alias of an encoder; returns the file, which is replaced as a whole.

    Raises:
        SourceError: There is no such encoder or version, the alias cannot be one, or the file is broken.
        OSError: The file cannot be written.
    """
    folder = models / name
    if Path(name).name != name or not folder.is_dir():
        raise SourceError(f"there is no encoder {shown(name)} in {models}")
    if version and not (folder / str(version) / MANIFEST_FILE).is_file():
        raise SourceError(f"{folder} has no version {version}")
    path = folder / ALIASES_FILE
    try:
        aliases = dict(read_aliases(path.read_bytes())) if path.exists() else {}
        if not version and alias not in aliases:
            raise SourceError(f"has no alias {shown(alias)}")
        aliases.pop(alias, None)
        content = json.dumps(aliases | ({alias: version} if version else {}), indent=2).encode() + b"\n"
        read_aliases(content)
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from None
    replace_bytes(path, content)
    return path


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found
