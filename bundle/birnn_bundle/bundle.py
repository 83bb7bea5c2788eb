"""A bundle: the folder `models/<name>/<version>/` that holds one version of one encoder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from birnn_bundle.errors import BundleError, is_refusal
from birnn_bundle.files import check_listed, read_file, read_files, sha256
from birnn_bundle.golden import Golden
from birnn_bundle.manifest import MANIFEST_FILE, Manifest
from birnn_bundle.tokenizer import NoTokenizer, Tokenizer, load_tokenizer

MOST_MANIFEST_BYTES = 1 << 20
# Of all files of a bundle together, unless the caller says otherwise.
MOST_BUNDLE_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Bundle:
    """One version of one encoder, read once.

    Attributes:
        path: Its folder, which is not read again.
        manifest: What it says of itself.
        tokenizer: What reads its sequences.
        golden: What every engine must reproduce.
        digest: SHA-256 of the manifest, which holds those of all other files.
        files: Contents of the graphs and of the weights, by name: the bytes that were hashed.
    """

    path: Path
    manifest: Manifest
    tokenizer: Tokenizer
    golden: Golden
    digest: str
    files: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def load(cls, path: Path, *, max_bytes: int = MOST_BUNDLE_BYTES) -> "Bundle":
        """Read and check a bundle; nothing in it is ever unpickled.

        Args:
            path: Its folder.
            max_bytes: Most bytes of all its files together.

        Raises:
            BundleError: A file is missing, was changed, is not listed, is too large or lies outside the folder; the
                manifest is of an unknown schema; or its parts contradict each other.
        """
        try:
            return cls._load(path, max_bytes)
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from error
        except BaseException as error:
            if not is_refusal(error):
                raise
            raise BundleError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error

    @classmethod
    def _load(cls, path: Path, max_bytes: int) -> "Bundle":
        raw = read_file(path, MANIFEST_FILE, MOST_MANIFEST_BYTES)
        manifest = Manifest.from_json(raw)
        contents = read_files(path, manifest.files, max_bytes)
        check_listed(path, {*manifest.files, MANIFEST_FILE})
        golden = Golden.from_bytes(contents.pop(manifest.golden))
        tokenizer: Tokenizer = NoTokenizer()
        if manifest.tokenizer is not None:
            tokenizer = load_tokenizer(manifest.tokenizer.kind, _text(contents.pop(manifest.tokenizer.file)))
        _check_parts(manifest, tokenizer, golden)
        return cls(path, manifest, tokenizer, golden, sha256(raw), contents)

    @property
    def label(self) -> str:
        """Name and version, for messages: `smiles/1`."""
        return f"{self.manifest.name}/{self.manifest.version}"


def _check_parts(manifest: Manifest, tokenizer: Tokenizer, golden: Golden) -> None:
    """Raises BundleError where the parts of a bundle contradict each other."""
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
