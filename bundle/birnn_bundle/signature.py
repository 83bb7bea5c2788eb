"""Signatures: `manifest.sig` beside the manifest says who vouches for a bundle.

    birnn-signature 1
    key 5b1f...           32 hexadecimal digits, by which the public key is found
    ed25519 mZ0c...       in base64, over the bytes of manifest.json

The manifest holds the name, the version and the digests of all other files, so the signature covers those, too. It is
plain Ed25519 (RFC 8032), which other programs can check as well. Needs the package cryptography; all that reads a
bundle without checking its signature does not.
"""

import base64
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from birnn_bundle.errors import BundleError
from birnn_bundle.files import SIGNATURE_FILE

# Of a file of keys.
MOST_KEY_BYTES = 64 << 10
MOST_KEYS = 100
_TEXT = re.compile(rb"birnn-signature 1\r?\nkey ([0-9a-f]{32})\r?\ned25519 ([A-Za-z0-9+/]{86}==)\r?\n?")
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", re.DOTALL)


class KeyFileError(Exception):
    """A file of keys cannot be used; the message says what is wrong and holds nothing of a private key."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What `manifest.sig` says; nothing of it is checked yet.

    Attributes:
        key_id: Of the key that has signed, as it claims.
        value: 64 bytes.
    """

    key_id: str
    value: bytes

    @classmethod
    def from_bytes(cls, content: bytes) -> "Signature":
        """Read `manifest.sig`.

        Raises:
            BundleError: It is no signature of a known form.
        """
        found = _TEXT.fullmatch(content)
        if found is None:
            raise BundleError(f"{SIGNATURE_FILE} is no signature that this version knows; sign the bundle again")
        return cls(found[1].decode(), base64.b64decode(found[2]))

    def to_bytes(self) -> bytes:
        """Content of `manifest.sig`."""
        return f"birnn-signature 1\nkey {self.key_id}\ned25519 {base64.b64encode(self.value).decode()}\n".encode()


class TrustedKeys:
    """Public keys, one of which must have signed a bundle."""

    def __init__(self, keys: Mapping[str, Ed25519PublicKey]) -> None:
        """Trust `keys`, given by their ids."""
        self._keys = keys

    @classmethod
    def read(cls, path: Path) -> "TrustedKeys":
        """Read PEM files as `birnn models keygen` and `openssl pkey -pubout` write them, one or several in one file.

        Raises:
            KeyFileError: The file cannot be read, or holds anything but public Ed25519 keys and lines that begin
                with #.
        """
        text = _read(path)
        keys = [_public_key(found[0], path) for found in _PEM.finditer(text)]
        around = _PEM.sub("", text)
        if any(line.strip() and not line.startswith("#") for line in around.splitlines()):
            raise KeyFileError(f"{path} holds something that is no PEM block; lines of comment begin with #")
        if not keys:
            raise KeyFileError(f"{path} holds no key; `birnn models keygen` makes one")
        if len(keys) > MOST_KEYS:
            raise KeyFileError(f"{path} holds {len(keys)} keys, {MOST_KEYS} at most expected")
        return cls({key_id(key): key for key in keys})

    @property
    def ids(self) -> list[str]:
        """Ids of the keys."""
        return sorted(self._keys)

    def check(self, manifest: bytes, signature: bytes | None) -> str:
        """Check who has signed a manifest.

        Args:
            manifest: Content of manifest.json, as it will be used.
            signature: Content of manifest.sig; None where there is none.

        Returns:
            Id of the key.

        Raises:
            BundleError: It is not signed, is signed by a key that is not trusted, or was changed after it was signed.
        """
        if signature is None:
            raise BundleError(f"is not signed, and only bundles signed by a trusted key are served ({self._trusted})")
        claimed = Signature.from_bytes(signature)
        key = self._keys.get(claimed.key_id)
        if key is None:
            raise BundleError(f"is signed by the key {claimed.key_id}, which is not trusted ({self._trusted})")
        try:
            key.verify(claimed.value, manifest)
        except InvalidSignature:
            raise BundleError(
                f"its manifest was changed after it was signed, or the key {claimed.key_id} has not signed it"
            ) from None
        return claimed.key_id

    @property
    def _trusted(self) -> str:
        more = f" and {len(self.ids) - 3} more" if len(self.ids) > 3 else ""
        return f"trusted: {', '.join(self.ids[:3])}{more}"


def key_id(key: Ed25519PublicKey) -> str:
    """By which a public key is known: the beginning of its SHA-256."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:32]


def sign(manifest: bytes, key: Ed25519PrivateKey) -> Signature:
    """Sign the content of a manifest."""
    return Signature(key_id(key.public_key()), key.sign(manifest))


def new_key(path: Path) -> tuple[Path, str]:
    """Make a key pair: the private key in `path`, readable for its owner only, the public one in `path`.pub.

    Returns:
        The public key's file, and its id.

    Raises:
        KeyFileError: One of the files is there already, or cannot be written.
    """
    public_path = path.with_name(path.name + ".pub")
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    _create(public_path, public, 0o644)
    try:
        _create(path, private, 0o600)
    except KeyFileError:
        public_path.unlink()
        raise
    return public_path, key_id(key.public_key())


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The key of a PEM file without a password.

    Raises:
        KeyFileError: It cannot be read, or is no private Ed25519 key.
    """
    text = _read(path)
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except TypeError:
        raise KeyFileError(f"{path} needs a password; give a key without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(f"{path} holds no private key in PEM; `birnn models keygen` makes one") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds a key of another kind than Ed25519; `birnn models keygen` makes one")
    return key


def _public_key(pem: str, path: Path) -> Ed25519PublicKey:
    if not pem.startswith("-----BEGIN PUBLIC KEY-----"):
        kind = pem.partition("-----BEGIN ")[2].partition("-----")[0]
        raise KeyFileError(f"{path} holds a PEM block of kind {kind}, only PUBLIC KEY expected")
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise KeyFileError(f"{path} holds a public key that cannot be read") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path} holds a public key of another kind than Ed25519")
    return key


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_KEY_BYTES + 1)
    except OSError as error:
        raise KeyFileError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MOST_KEY_BYTES:
        raise KeyFileError(f"{path} has more than {MOST_KEY_BYTES} bytes; is it a file of keys?")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise KeyFileError(f"{path} is no PEM file") from None


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not be there yet."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise KeyFileError(f"{path} is there already, and keys are never overwritten") from None
    except OSError as error:
        raise KeyFileError(f"cannot write {path}: {error.strerror}") from error
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        path.unlink()
        raise KeyFileError(f"cannot write {path}: {error.strerror}") from error
