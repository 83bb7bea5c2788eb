"""`birnn models keygen`, `sign`, and who signed what in `list` and `verify`."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from birnn_service.commands import models, serve
from birnn_service.errors import StartupError
from birnn_service.trust import read_trust

MODELS = Path(__file__).parents[2] / "models"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(models, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(MODELS / "smiles-small", tmp_path / "models" / "smiles-small")
    return tmp_path / "models"


@pytest.fixture
def key(tmp_path: Path) -> Path:
    result = run("keygen", tmp_path / "key")
    assert result.exit_code == 0, result.output
    return tmp_path / "key"


def test_a_bundle_is_signed_and_verified(folder: Path, key: Path) -> None:
    bundle = folder / "smiles-small" / "1"
    refused = run("verify", bundle, "--trust", f"{key}.pub")
    assert refused.exit_code == 1
    assert "is not signed" in refused.output
    result = run("sign", bundle, "--key", key)
    assert result.exit_code == 0, result.output
    key_id = result.output.rpartition(" ")[2].strip()
    assert f"Signed by {key_id}. " in run("verify", bundle, "--trust", f"{key}.pub").output
    assert "Signed" not in run("verify", bundle).output


def test_signing_again_replaces_the_signature(folder: Path, key: Path, tmp_path: Path) -> None:
    bundle = folder / "smiles-small" / "1"
    run("sign", bundle, "--key", key)
    run("keygen", tmp_path / "next")
    assert run("sign", bundle, "--key", tmp_path / "next").exit_code == 0
    assert run("verify", bundle, "--trust", f"{key}.pub").exit_code == 1
    assert run("verify", bundle, "--trust", tmp_path / "next.pub").exit_code == 0


def test_a_broken_bundle_is_not_signed(folder: Path, key: Path) -> None:
    bundle = folder / "smiles-small" / "1"
    (bundle / "weights.bin").write_bytes(b"")
    result = run("sign", bundle, "--key", key)
    assert result.exit_code == 1
    assert "weights.bin was changed" in result.output
    assert not (bundle / "manifest.sig").exists()


def test_keys_are_never_overwritten(key: Path) -> None:
    before = key.read_bytes()
    result = run("keygen", key)
    assert result.exit_code == 1
    assert "never overwritten" in result.output
    assert key.read_bytes() == before


def test_a_public_key_cannot_sign(folder: Path, key: Path) -> None:
    result = run("sign", folder / "smiles-small" / "1", "--key", f"{key}.pub")
    assert result.exit_code == 1
    assert "holds no private key" in result.output


def test_list_says_who_claims_to_have_signed(folder: Path, key: Path) -> None:
    assert run("list", folder).output.rstrip().endswith("\tnot signed")
    key_id = run("sign", folder / "smiles-small" / "1", "--key", key).output.rpartition(" ")[2].strip()
    assert run("list", folder).output.rstrip().endswith(f"\tclaims to be signed by {key_id}")
    [found] = json.loads(run("list", folder, "--json").output)
    assert found["signature_key"] == key_id
    (folder / "smiles-small" / "1" / "manifest.sig").write_text("nonsense")
    output = run("list", folder).output
    assert "broken" not in output
    assert "manifest.sig is no signature" in output
    assert "manifest.sig is no signature" in json.loads(run("list", folder, "--json").output)[0]["signature_error"]


def test_a_server_checks_signatures_before_it_serves(folder: Path, key: Path) -> None:
    arguments = ["--check", "--models", str(folder), "--device", "cpu", "--trust", f"{key}.pub"]
    refused = CliRunner().invoke(serve, arguments)
    assert refused.exit_code == 1
    assert "smiles-small/1: is not signed" in refused.output
    run("sign", folder / "smiles-small" / "1", "--key", key)
    assert CliRunner().invoke(serve, arguments).stdout.startswith("smiles-small/1\tgood: ")


def test_a_server_does_not_start_without_keys_to_trust(folder: Path, tmp_path: Path) -> None:
    for trust in (tmp_path / "none.pem", folder):
        result = CliRunner().invoke(serve, ["--check", "--models", str(folder), "--trust", str(trust)])
        assert result.exit_code == 1
        assert "cannot use --trust: cannot read" in result.output


def test_keys_to_trust_are_read_again_for_each_bundle(folder: Path, key: Path, tmp_path: Path) -> None:
    trust = tmp_path / "trust.pem"
    trust.write_bytes(Path(f"{key}.pub").read_bytes())
    before = read_trust(trust)
    run("keygen", tmp_path / "next")
    trust.write_bytes((tmp_path / "next.pub").read_bytes())
    after = read_trust(trust)
    assert before is not None
    assert after is not None
    assert before.ids != after.ids
    trust.write_text("# nobody any more")
    with pytest.raises(StartupError, match=r"cannot use --trust: .* holds no key"):
        read_trust(trust)
