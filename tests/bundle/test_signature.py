import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from birnn_bundle.bundle import Bundle
from birnn_bundle.errors import BundleError
from birnn_bundle.signature import KeyFileError, Signature, TrustedKeys, new_key, read_private_key, sign
from tests.certificates import openssl

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(MODELS / "smiles-small" / "1", tmp_path / "smiles-small" / "1"))


@pytest.fixture
def key(tmp_path: Path) -> Path:
    new_key(tmp_path / "key")
    return tmp_path / "key"


def public(key: Path) -> Path:
    return key.with_name(key.name + ".pub")


def signed(bundle: Path, key: Path) -> None:
    signature = sign((bundle / "manifest.json").read_bytes(), read_private_key(key))
    (bundle / "manifest.sig").write_bytes(signature.to_bytes())


def load(bundle: Path, trust: Path) -> Bundle:
    return Bundle.load(bundle, trust=TrustedKeys.read(trust))


def test_a_signed_bundle_is_loaded_and_says_by_whom(bundle: Path, key: Path) -> None:
    signed(bundle, key)
    [key_id] = TrustedKeys.read(public(key)).ids
    assert load(bundle, public(key)).signed_by == key_id


def test_without_trust_a_signature_is_not_looked_at(bundle: Path, key: Path) -> None:
    for content in (b"", b"nonsense", b"x" * 100_000):
        (bundle / "manifest.sig").write_bytes(content)
        assert Bundle.load(bundle).signed_by == ""


def test_an_unsigned_bundle_is_refused(bundle: Path, key: Path) -> None:
    with pytest.raises(BundleError, match="is not signed, and only bundles signed by a trusted key are served"):
        load(bundle, public(key))


def test_a_bundle_signed_by_another_is_refused(bundle: Path, key: Path, tmp_path: Path) -> None:
    new_key(tmp_path / "other")
    signed(bundle, tmp_path / "other")
    with pytest.raises(BundleError, match=r"is signed by the key [0-9a-f]{32}, which is not trusted \(trusted: "):
        load(bundle, public(key))


def test_who_claims_the_id_of_a_trusted_key_is_refused(bundle: Path, key: Path, tmp_path: Path) -> None:
    new_key(tmp_path / "other")
    [key_id] = TrustedKeys.read(public(key)).ids
    forged = sign((bundle / "manifest.json").read_bytes(), read_private_key(tmp_path / "other"))
    (bundle / "manifest.sig").write_bytes(Signature(key_id, forged.value).to_bytes())
    with pytest.raises(BundleError, match="was changed after it was signed, or the key"):
        load(bundle, public(key))


@pytest.mark.parametrize("change", ["version", "files", "space"])
def test_a_manifest_changed_after_signing_is_refused(bundle: Path, key: Path, change: str) -> None:
    signed(bundle, key)
    path = bundle / "manifest.json"
    if change == "space":
        path.write_bytes(path.read_bytes() + b" ")
    else:
        manifest = json.loads(path.read_text())
        manifest["version"] = 2
        path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="its manifest was changed after it was signed"):
        load(bundle, public(key))


def test_any_other_file_changed_after_signing_is_refused(bundle: Path, key: Path) -> None:
    signed(bundle, key)
    for path in sorted(bundle.iterdir()):
        if path.name.startswith("manifest"):
            continue
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(BundleError, match=rf"{path.name} was changed"):
            load(bundle, public(key))
        path.write_bytes(content)
    load(bundle, public(key))


def test_a_signature_of_another_bundle_is_refused(bundle: Path, key: Path) -> None:
    other = MODELS / "smiles" / "2" / "manifest.json"
    (bundle / "manifest.sig").write_bytes(sign(other.read_bytes(), read_private_key(key)).to_bytes())
    with pytest.raises(BundleError, match="was changed after it was signed"):
        load(bundle, public(key))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"birnn-signature 2\nkey 00000000000000000000000000000000\ned25519 " + b"A" * 86 + b"==\n",
        b"birnn-signature 1\nkey 00000000000000000000000000000000\ned25519 AAAA\n",
        b"birnn-signature 1\nkey ZZ\ned25519 " + b"A" * 86 + b"==\n",
        b"birnn-signature 1\nkey 00000000000000000000000000000000\nrsa " + b"A" * 86 + b"==\n",
        b"birnn-signature 1\nkey 00000000000000000000000000000000\ned25519 " + b"A" * 86 + b"==\nmore\n",
        b"\xff" * 100,
    ],
)
def test_a_damaged_signature_is_refused(bundle: Path, key: Path, content: bytes) -> None:
    (bundle / "manifest.sig").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest.sig is no signature that this version knows"):
        load(bundle, public(key))


def test_a_huge_signature_and_one_that_is_a_link_are_not_read(bundle: Path, key: Path, tmp_path: Path) -> None:
    (bundle / "manifest.sig").write_bytes(b"x" * 5000)
    with pytest.raises(BundleError, match="has 5000 bytes, 4096 at most"):
        load(bundle, public(key))
    (bundle / "manifest.sig").unlink()
    (bundle / "manifest.sig").symlink_to("/dev/zero")
    with pytest.raises(BundleError, match="link to a place outside"):
        load(bundle, public(key))
    (bundle / "manifest.sig").unlink()
    (bundle / "manifest.sig").mkdir()
    with pytest.raises(BundleError, match=r"manifest.sig is not a regular file"):
        load(bundle, public(key))


@pytest.mark.parametrize("file", ["manifest.json", "manifest.sig", "Manifest.JSON", "MANIFEST.SIG"])
def test_a_manifest_cannot_list_itself_or_its_signature(bundle: Path, file: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][file] = "0" * 64
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"files lists .*, which is another file's name, too"):
        Bundle.load(bundle)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["A.bin", "a.bin"], "where case is ignored"),
        (["\u00e9.bin", "e\u0301.bin"], "where case is ignored"),
        (["stra\u00dfe", "strasse"], "where case is ignored"),
        (["a", "a/b"], "as a file what must be its folder"),
        (["manifest.json/b"], "as a file what must be its folder"),
        (["a//b"], "not a path inside"),
        (["./a"], "not a path inside"),
        (["a/"], "not a path inside"),
        ([""], "not a path inside"),
        (["."], "not a path inside"),
        (["C:a"], "not a path inside"),
        (["a\0b"], "not a path inside"),
    ],
)
def test_files_that_some_file_system_would_take_for_others_are_refused(
    bundle: Path, files: list[str], reason: str
) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"] |= dict.fromkeys(files, "0" * 64)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=reason):
        Bundle.load(bundle)


def test_several_keys_may_be_trusted_so_that_they_can_be_replaced(bundle: Path, key: Path, tmp_path: Path) -> None:
    new_key(tmp_path / "next")
    both = tmp_path / "both.pem"
    both.write_text("# from 2026 on\n\n" + public(key).read_text() + "# next\n" + public(tmp_path / "next").read_text())
    for each in (key, tmp_path / "next"):
        signed(bundle, each)
        assert load(bundle, both).signed_by in TrustedKeys.read(public(each)).ids


def test_openssl_reads_our_keys_and_checks_our_signatures(bundle: Path, key: Path, tmp_path: Path) -> None:
    signed(bundle, key)
    raw = tmp_path / "raw.sig"
    raw.write_bytes(Signature.from_bytes((bundle / "manifest.sig").read_bytes()).value)
    message = bundle / "manifest.json"
    openssl("pkeyutl", "-verify", "-pubin", "-inkey", public(key), "-rawin", "-in", message, "-sigfile", raw)


def test_keys_that_openssl_has_made_are_good(bundle: Path, tmp_path: Path) -> None:
    key = tmp_path / "openssl"
    openssl("genpkey", "-algorithm", "ed25519", "-out", key)
    openssl("pkey", "-in", key, "-pubout", "-out", public(key))
    signed(bundle, key)
    assert load(bundle, public(key)).signed_by


def test_private_keys_are_readable_for_their_owner_only_and_never_overwritten(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        public_path, _ = new_key(tmp_path / "key")
    finally:
        os.umask(old)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    before = {path: path.read_bytes() for path in (tmp_path / "key", public_path)}
    with pytest.raises(KeyFileError, match="is there already, and keys are never overwritten"):
        new_key(tmp_path / "key")
    assert {path: path.read_bytes() for path in before} == before
    public_path.unlink()
    with pytest.raises(KeyFileError, match="is there already"):
        new_key(tmp_path / "key")
    assert not public_path.exists()
    assert (tmp_path / "key").read_bytes() == before[tmp_path / "key"]
    (tmp_path / "link").symlink_to(tmp_path / "key")
    with pytest.raises(KeyFileError, match="is there already"):
        new_key(tmp_path / "link")
    with pytest.raises(KeyFileError, match="cannot write"):
        new_key(tmp_path / "none" / "key")


def pem_of(key: object) -> str:
    raw = key.public_key().public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return str(raw.decode())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pem_of(rsa.generate_private_key(65537, 2048)), "another kind than Ed25519"),
        (pem_of(ec.generate_private_key(ec.SECP256R1())), "another kind than Ed25519"),
        (pem_of(ed448.Ed448PrivateKey.generate()), "another kind than Ed25519"),
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        ("ssh-ed25519 AAAA", "no PEM block"),
        (pem_of(Ed25519PrivateKey.generate()) + "more", "no PEM block"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "cannot be read"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "kind CERTIFICATE, only PUBLIC KEY"),
        ("-----BEGIN PUBLIC KEY-----\n", "no PEM block"),
        ("x" * 70_000, "more than 65536 bytes"),
        ("ü", "is no PEM file"),
        ("".join(pem_of(Ed25519PrivateKey.generate()) for _ in range(101)), "101 keys, 100 at most"),
    ],
)
def test_a_file_of_other_things_is_trusted_by_nobody(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "trust.pem").write_text(content)
    with pytest.raises(KeyFileError, match=reason):
        TrustedKeys.read(tmp_path / "trust.pem")


def test_a_private_key_is_no_key_to_trust_and_is_not_quoted(key: Path) -> None:
    with pytest.raises(KeyFileError, match="kind PRIVATE KEY, only PUBLIC KEY expected") as error:
        TrustedKeys.read(key)
    assert key.read_text().splitlines()[1] not in str(error.value)


def test_other_files_are_no_private_key(key: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    for content, reason in (
        (public(key).read_text(), "no private key"),
        ("", "no private key"),
        (pem_private(rsa.generate_private_key(65537, 2048), None), "another kind than Ed25519"),
        (pem_private(Ed25519PrivateKey.generate(), b"secret"), "needs a password"),
    ):
        other.write_text(content)
        with pytest.raises(KeyFileError, match=reason):
            read_private_key(other)
    with pytest.raises(KeyFileError, match="cannot read"):
        read_private_key(tmp_path / "none")


def pem_private(key: rsa.RSAPrivateKey | Ed25519PrivateKey, password: bytes | None) -> str:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


def test_a_reader_of_bundles_without_signatures_needs_no_cryptography() -> None:
    code = "import sys; sys.modules['cryptography'] = None; import birnn_bundle.bundle"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
