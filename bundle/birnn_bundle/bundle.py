"""A bundle: the folder `models/<name>/<version>/` that holds one version of one encoder."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from birnn_bundle.errors import BundleError
from birnn_bundle.golden import Golden
from birnn_bundle.manifest import MANIFEST_FILE, Manifest
from birnn_bundle.tokenizer import NoTokenizer, Tokenizer, load_tokenizer


@dataclass(frozen=True, slots=True)
class Bundle:
    """One version of one encoder, its files checked against their digests."""

    path: Path
    manifest: Manifest
    tokenizer: Tokenizer
    golden: Golden

    @classmethod
    def load(cls, path: Path) -> "Bundle":
        """Read and check a bundle; nothing in it is ever unpickled.

        Raises:
            BundleError: A file is missing, was changed, is not listed or lies outside the folder; the manifest is of an
                unknown schema; or its parts contradict each other.
        """
        manifest = read_manifest(path)
        check_files(path, manifest)
        golden = Golden.load(path / manifest.golden)
        problems = {
            "width of the golden pooled vectors": (golden.pooled.shape[1], manifest.dimension),
            "width of the golden token vectors": (golden.tokens.shape[1], manifest.token_dimension),
            "number of the golden inputs' features": (golden.batch.features, manifest.features),
        }
        for what, (found, declared) in problems.items():
            if found != declared:
                raise BundleError(f"{path}: {what} is {found}, the manifest declares {declared}")
        tokenizer: Tokenizer = NoTokenizer()
        if manifest.tokenizer is not None:
            tokenizer = load_tokenizer(manifest.tokenizer.kind, _read_text(path / manifest.tokenizer.file))
            if tokenizer.vocab_size > manifest.vocab_size:
                raise BundleError(
                    f"{path}: tokenizer vocabulary is {tokenizer.vocab_size}, the manifest declares "
                    f"{manifest.vocab_size}"
                )
            if golden.batch.ids.min() < 0 or golden.batch.ids.max() >= manifest.vocab_size:
                raise BundleError(f"{path}: a golden id lies outside the vocabulary of {manifest.vocab_size}")
        return cls(path, manifest, tokenizer, golden)

    @property
    def label(self) -> str:
        """Name and version, for messages: `smiles/1`."""
        return f"{self.manifest.name}/{self.manifest.version}"


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the bundle at `path`, nothing else.

    Raises:
        BundleError: There is none, or it is not valid.
    """
    try:
        return Manifest.from_json(_read_text(path / MANIFEST_FILE))
    except BundleError as error:
        raise BundleError(f"{path}: {error}") from error


def check_files(path: Path, manifest: Manifest) -> None:
    """Compare every file of the folder with the manifest's digests.

    Raises:
        BundleError: Names the first file that is missing, changed, not listed, or a link out of the folder.
    """
    root = path.resolve()
    for file, digest in manifest.files.items():
        target = path / file
        if not target.resolve().is_relative_to(root):
            raise BundleError(f"{path}: {file} is a link to a place outside the bundle")
        if not target.is_file():
            raise BundleError(f"{path}: {file} is missing; copy the bundle again or export it anew")
        found = sha256(target)
        if found != digest:
            raise BundleError(
                f"{path}: {file} was changed or cut short after the bundle was written (sha256 {found[:12]}..., "
                f"manifest {digest[:12]}...); copy the bundle again or export it anew"
            )
    listed = {*manifest.files, MANIFEST_FILE}
    for target in sorted(path.rglob("*")):
        name = target.relative_to(path).as_posix()
        if not target.is_dir() and name not in listed:
            raise BundleError(f"{path}: {name} is not listed in the manifest; remove it or export the bundle anew")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex.

    Raises:
        BundleError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BundleError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"cannot read {path}: {error}") from error
