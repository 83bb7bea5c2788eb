"""From `--encoder` to the folder of a bundle."""

from pathlib import Path

from birnn_bulk.plan import BulkError
from birnn_bundle.bundle import MOST_MANIFEST_BYTES
from birnn_bundle.errors import BundleError
from birnn_bundle.files import read_file, sha256
from birnn_bundle.manifest import MANIFEST_FILE, Manifest
from birnn_bundle.numerals import read_version
from birnn_service.errors import StartupError
from birnn_service.queueing.profile_cache import default_folder
from birnn_service.sources.opening import open_source
from birnn_service.sources.options import StoreOptions
from birnn_service.sources.source import SourceError


def bundle_folder(encoder: str, models: str | None) -> Path:
    """The folder of a bundle.

    Args:
        encoder: That folder; or NAME, for its highest version, or NAME@VERSION or NAME@ALIAS.
        models: Where names are looked for, as by `birnn serve`.

    Raises:
        BulkError: There is no such bundle.
    """
    if (Path(encoder) / MANIFEST_FILE).is_file():
        return Path(encoder).resolve()
    name, _, wanted = encoder.partition("@")
    try:
        source = open_source(models, StoreOptions(cache_dir=default_folder()))
        look = source.look()
        versions = [version for found, version in look.bundles if found == name and read_version(version)]
        if not versions:
            known = ", ".join(sorted({found for found, _ in look.bundles}))
            raise BulkError(f"--encoder {encoder}: is no folder of a bundle, and {source.name} holds only {known}")
        version = str(look.aliases.get(name, {}).get(wanted, wanted)) or max(versions, key=int)
        return source.fetch((name, version)).resolve()
    except (SourceError, StartupError) as error:
        raise BulkError(f"--encoder {encoder}: {error}") from error


def manifest_of(bundle: Path) -> tuple[Manifest, str]:
    """The manifest of a bundle, and its digest.

    Raises:
        BulkError: It cannot be read.
    """
    try:
        raw = read_file(bundle, MANIFEST_FILE, MOST_MANIFEST_BYTES)
        return Manifest.from_json(raw), sha256(raw)
    except BundleError as error:
        raise BulkError(f"{bundle}: {error}") from error
