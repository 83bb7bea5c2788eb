"""`birnn models keygen`, `sign` and `index`: what makes bundles ready to be served elsewhere."""

from pathlib import Path

import click

from birnn_bundle.atomic_file import replace_bytes, replace_text
from birnn_bundle.bundle import MOST_MANIFEST_BYTES, Bundle
from birnn_bundle.errors import BundleError
from birnn_bundle.files import SIGNATURE_FILE, read_file, sha256
from birnn_bundle.manifest import MANIFEST_FILE
from birnn_bundle.signature import KeyFileError, new_key, read_private_key
from birnn_bundle.signature import sign as sign_manifest
from birnn_service.sources.folder import FolderSource
from birnn_service.sources.index import INDEX_FILE, write_index
from birnn_service.sources.source import SourceError


@click.command()
@click.argument("key", type=click.Path(path_type=Path))
def keygen(key: Path) -> None:
    """Create a key pair: the private key in KEY, readable only by you, and the public key in KEY.pub.

    Existing files are never overwritten. `birnn models sign` takes the private key, `--trust` the public one.
    """
    try:
        public, key_id = new_key(key)
    except KeyFileError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"key {key_id}: sign with {key}, which has no password, and trust {public}")


@click.command()
@click.argument("bundle", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="File of the private key, as `birnn models keygen` writes it.",
)
def sign(bundle: Path, key: Path) -> None:
    """Sign a bundle: write manifest.sig beside its manifest, replacing an existing one.

    The bundle's digests are checked first. Its encodings are not; see `birnn models verify`.
    """
    try:
        private = read_private_key(key)
        loaded = Bundle.load(bundle)
        manifest = read_file(bundle, MANIFEST_FILE, MOST_MANIFEST_BYTES)
        if sha256(manifest) != loaded.digest:
            raise BundleError(f"{bundle}: {MANIFEST_FILE} changed while it was read; try again")
        signature = sign_manifest(manifest, private)
        replace_bytes(bundle / SIGNATURE_FILE, signature.to_bytes())
    except (BundleError, KeyFileError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot write {bundle / SIGNATURE_FILE}: {error.strerror}") from error
    click.echo(f"{loaded.label}: signed by {signature.key_id}")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def index(folder: Path) -> None:
    """Write FOLDER/index.json, which a web server needs to serve the folder: `birnn serve --models https://...`.

    Run it again whenever a bundle is added, removed or signed.
    """
    try:
        look, content = write_index(FolderSource(folder))
        replace_text(folder / INDEX_FILE, content)
    except SourceError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"cannot write {folder / INDEX_FILE}: {error.strerror}") from error
    click.echo(f"{folder / INDEX_FILE}: {len(look.bundles)} bundles")
