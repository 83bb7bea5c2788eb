"""`index.json`: what a web server holds, which cannot be listed.

    {"schema_version": 1, "bundles": [{"name": "smiles", "version": "2", "manifest": "9f86d0...", "signature": null}],
     "aliases": {"smiles": {"stable": 2}}}

The digests are SHA-256. A bundle's manifest holds those of all its other files, so that an index with another manifest
is what changes a bundle.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from birnn_bundle.bundle import MOST_MANIFEST_BYTES, Bundle
from birnn_bundle.errors import BundleError
from birnn_bundle.files import MOST_SIGNATURE_BYTES, SIGNATURE_FILE, read_file, sha256
from birnn_bundle.manifest import MANIFEST_FILE
from birnn_bundle.quoting import told
from birnn_service.sources.aliases import check_aliases
from birnn_service.sources.folder import FolderSource
from birnn_service.sources.holding import Holding, Holdings, Part
from birnn_service.sources.source import MOST_BUNDLES, Look, SourceError, shown_address
from birnn_service.state import Address

INDEX_FILE = "index.json"
MOST_BYTES = 4 << 20

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, Field(pattern=r"^[^./\\\x00][^/\\\x00]*$", max_length=255)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Entry(_Model):
    name: _Name
    version: _Name
    manifest: _Digest
    signature: _Digest | None = None


class _Index(_Model):
    schema_version: Literal[1] = 1
    bundles: Annotated[list[_Entry], Field(max_length=MOST_BUNDLES)]
    aliases: dict[str, dict[str, int]] = {}


def read_index(content: bytes, store: str) -> Holdings:
    """What an index says its store holds.

    Raises:
        SourceError: It is no index of a known schema, or names no bundle.
    """
    try:
        index = _Index.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, problem["loc"])) or "index"
        raise SourceError(f"{INDEX_FILE} of {store} is not valid: {place}: {problem['msg']}") from None
    bundles = {(entry.name, entry.version): _holding(entry) for entry in index.bundles}
    if len(bundles) < len(index.bundles):
        raise SourceError(f"{INDEX_FILE} of {store} names a bundle twice")
    if not bundles:
        raise SourceError(f"{INDEX_FILE} of {store} names no bundle; write it anew with `birnn models index`")
    for name, aliases in index.aliases.items():
        try:
            check_aliases(aliases)
        except SourceError as error:
            raise SourceError(f"{INDEX_FILE} of {store} is not valid: aliases of {told(name)}: {error}") from None
    return Holdings(bundles, aliases=index.aliases)


def _holding(entry: _Entry) -> Holding:
    parts = {MANIFEST_FILE: Part(digest=entry.manifest)}
    if entry.signature is not None:
        parts[SIGNATURE_FILE] = Part(digest=entry.signature)
    return Holding(parts, False)


def write_index(source: FolderSource) -> tuple[Look, str]:
    """The index of a folder, every bundle of which must be good.

    Returns:
        What was found, and the content of index.json.

    Raises:
        SourceError: There is no bundle, or one is broken.
    """
    if source.is_bundle:
        raise SourceError(f"{source.name} is a bundle itself; give a folder that holds NAME/VERSION/{MANIFEST_FILE}")
    look = source.look()
    for place, problem in look.problems.items():
        raise SourceError(f"{place} {problem}")
    entries = [_entry(source, address) for address in sorted(look.bundles)]
    aliases: Mapping[str, Mapping[str, int]] = look.aliases
    index = _Index(bundles=entries, aliases={name: dict(known) for name, known in aliases.items()})
    return look, index.model_dump_json(indent=2) + "\n"


def _entry(source: FolderSource, address: Address) -> _Entry:
    path = source.fetch(address)
    try:
        bundle = Bundle.load(path)
        # As the server would refuse it.
        if (bundle.manifest.name, str(bundle.manifest.version)) != address:
            raise SourceError(f"{path}: the manifest names {bundle.label}; rename the folder")
        signature = None
        if (path / SIGNATURE_FILE).exists():
            signature = sha256(read_file(path, SIGNATURE_FILE, MOST_SIGNATURE_BYTES))
        digest = sha256(read_file(path, MANIFEST_FILE, MOST_MANIFEST_BYTES))
    except BundleError as error:
        raise SourceError(f"{shown_address(address)} is broken: {error}") from error
    return _Entry(name=address[0], version=address[1], manifest=digest, signature=signature)
