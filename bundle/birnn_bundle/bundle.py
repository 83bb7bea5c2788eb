"""A bundle: the folder `models/<name>/<version>/` that holds one version of one encoder."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from birnn_bundle.errors import BundleError, is_refusal
from birnn_bundle.files import (
    MOST_SIGNATURE_BYTES,
    SIGNATURE_FILE,
    check_listed,
    read_file,
    read_files,
    sha256,
)
from birnn_bundle.golden import Golden
from birnn_bundle.manifest import MANIFEST_FILE, Manifest
from birnn_bundle.tokenizer import NoTokenizer, Tokenizer, load_tokenizer

MOST_MANIFEST_BYTES = 1 << 20
# Default limit for all files of a bundle together.
MOST_BUNDLE_BYTES = 2 << 30


class Trust(Protocol):
    """Decides whose bundles are trusted. `birnn_bundle.signature.TrustedKeys` does; it needs an extra package."""

    def check(self, manifest: bytes, signature: bytes | None) -> str:
        """Return the id of the trusted key that signed a manifest; raise BundleError if none did."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """One version of one encoder, read once.

    Attributes:
        path: Its folder, which is not read again.
        manifest: Its description.
        tokenizer: What reads its sequences.
        golden: What every engine must reproduce.
        digest: SHA-256 of the manifest, which holds those of all other files.
        files: Contents of the graphs and of the weights, by name: the bytes that were hashed.
        signed_by: Id of the trusted key that signed it; empty if signatures were not checked.
    """

    path: Path
    manifest: Manifest
    tokenizer: Tokenizer
    golden: Golden
    digest: str
    files: Mapping[str, bytes] = field(repr=False)
    signed_by: str = ""

    @classmethod
    def load(cls, path: Path, *, max_bytes: int = MOST_BUNDLE_BYTES, trust: Trust | None = None) -> "Bundle":
        """Read and check a bundle; nothing in it is ever unpickled.

        Args:
            path: Its folder.
            max_bytes: Limit for all its files together, in bytes.
            trust: Who must have signed it. By default, signatures are ignored.

        Raises:
            BundleError: It has no signature of a trusted key; a file is missing, was changed, is not listed, is too
                large or lies outside the folder; the manifest is of an unknown schema; or its parts contradict each
                other.
        """
        try:
            return cls._load(path, max_bytes, trust)
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from error
        except BaseException as error:
            if not is_refusal(error):
                raise
            raise BundleError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error

    @classmethod
    def _load(cls, path: Path, max_bytes: int, trust: Trust | None) -> "Bundle":
        raw = read_file(path, MANIFEST_FILE, MOST_MANIFEST_BYTES)
        # Check the signature before using anything in the manifest.
        signed_by = "" if trust is None else trust.check(raw, read_signature(path))
        manifest = Manifest.from_json(raw)
        contents = read_files(path, manifest.files, max_bytes)
        check_listed(path, {*manifest.files, MANIFEST_FILE, SIGNATURE_FILE})
        golden = Golden.from_bytes(contents.pop(manifest.golden))
        tokenizer: Tokenizer = NoTokenizer()
        if manifest.tokenizer is not None:
            tokenizer = load_tokenizer(manifest.tokenizer.kind, _text(contents.pop(manifest.tokenizer.file)))
        _check_parts(manifest, tokenizer, golden)
        return cls(path, manifest, tokenizer, golden, sha256(raw), contents, signed_by)

    @property
    def label(self) -> str:
        """Name and version, for messages: `smiles/1`."""
        return f"{self.manifest.name}/{self.manifest.version}"


def read_signature(path: Path) -> bytes | None:
    """Content of a bundle's manifest.sig; None if there is none.

    Raises:
        BundleError: It cannot be read, or is too large.
    """
    if not os.path.lexists(path / SIGNATURE_FILE):
        return None
    return read_file(path, SIGNATURE_FILE, MOST_SIGNATURE_BYTES)


def _check_parts(manifest: Manifest, tokenizer: Tokenizer, golden: Golden) -> None:
    """Raise BundleError if the parts of a bundle contradict each other."""
    batch = golden.batch
    expected = {
        "width of the golden pooled vectors": (golden.pooled.shape[1], manifest.dimension),
        "width of the golden token vectors": (golden.tokens.shape[1], manifest.token_dimension),
        "number of the golden inputs' features": (batch.features, manifest.features),
    }
    for what, (found, declared) in expected.items():
        if found != declared:
            raise BundleError(f"{what} is {found}, the manifest declares {declared}")
    limits = {
        "tokenizer vocabulary": (tokenizer.vocab_size, manifest.vocab_size),
        "length of the longest golden sequence": (int(batch.lengths.max()), manifest.max_length),
    }
    for what, (found, most) in limits.items():
        if found > most:
            raise BundleError(f"{what} is {found}, the manifest declares {most}")
    if not batch.features and (batch.ids.min() < 0 or batch.ids.max() >= manifest.vocab_size):
        raise BundleError(f"a golden id lies outside the vocabulary of {manifest.vocab_size}")


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"tokenizer.json is not UTF-8: {error}") from error
