"""A server whose encoders come from elsewhere, and that trusts only some of them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import birnn
from birnn_service.commands import models
from tests.e2e.server_process import MODELS, ServerProcess, failure, running
from tests.service.sources.moto_server import MotoServer, moto_server
from tests.service.sources.object_server import object_server

MOLECULES = ["CCO", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O"]


@pytest.fixture
def moto() -> Iterator[MotoServer]:
    pytest.importorskip("obstore", reason="needs the extra `sources`")
    with moto_server() as server:
        yield server


@pytest.fixture
def key(tmp_path: Path) -> Path:
    assert CliRunner().invoke(models, ["keygen", str(tmp_path / "key")]).exit_code == 0
    return tmp_path / "key"


@pytest.fixture
def signed(tmp_path: Path, key: Path) -> Path:
    """A models folder with one bundle that is signed."""
    folder = tmp_path / "models"
    shutil.copytree(MODELS / "smiles-small", folder / "smiles-small")
    sign(folder, key)
    return folder


def sign(folder: Path, key: Path) -> None:
    result = CliRunner().invoke(models, ["sign", str(folder / "smiles-small" / "1"), "--key", str(key)])
    assert result.exit_code == 0, result.output


def upload(moto: MotoServer, folder: Path) -> None:
    import obstore

    for path in folder.rglob("*"):
        if path.is_file():
            obstore.put(moto.store("team"), path.relative_to(folder).as_posix(), path.read_bytes())


def encoded(server: ServerProcess) -> "np.typing.NDArray[np.float32]":
    with birnn.Client(server.address) as client:
        return np.asarray(client.encode(MOLECULES, encoder="smiles-small"))


def test_encoders_of_s3_are_served_and_again_once_the_store_is_gone(
    moto: MotoServer, signed: Path, key: Path, tmp_path: Path
) -> None:
    upload(moto, signed)
    url = "s3://models/team"
    env = {**moto.variables, "BIRNN_CACHE_DIR": str(tmp_path / "cache")}
    with running(signed) as server:
        expected = encoded(server)
    with running(url, "--trust", f"{key}.pub", env=env) as server:
        assert server.logged("fetched smiles-small/1 from s3://models/team") == 1
        assert np.array_equal(encoded(server), expected)
        assert server.get("/readyz")[0] == 200
    moto.end()
    with running(url, "--trust", f"{key}.pub", env=env) as server:
        assert server.logged("using the 1 bundles of it in the cache") == 1
        assert np.array_equal(encoded(server), expected)
    log = failure(url, env={**env, "BIRNN_CACHE_DIR": str(tmp_path / "another")})
    assert "cannot read its list of objects from s3://models/team" in log


def test_front_ends_serve_encoders_of_a_store_too(moto: MotoServer, signed: Path, tmp_path: Path) -> None:
    upload(moto, signed)
    env = {**moto.variables, "BIRNN_CACHE_DIR": str(tmp_path / "cache")}
    with running("s3://models/team", "--frontends", "2", env=env) as server:
        assert encoded(server).shape == (3, 512)


def test_a_tampered_object_is_never_served_and_its_neighbors_are(
    moto: MotoServer, signed: Path, tmp_path: Path
) -> None:
    import obstore

    upload(moto, signed)
    shutil.copytree(MODELS / "text" / "2", tmp_path / "more" / "text" / "2")
    upload(moto, tmp_path / "more")
    weights = bytearray((MODELS / "text" / "2" / "weights.bin").read_bytes())
    weights[100] ^= 1
    obstore.put(moto.store("team"), "text/2/weights.bin", bytes(weights))
    env = {**moto.variables, "BIRNN_CACHE_DIR": str(tmp_path / "cache")}
    with running("s3://models/team", env=env) as server, birnn.Client(server.address) as client:
        assert encoded(server).shape == (3, 512)
        with pytest.raises(birnn.ServerUnavailableError, match=r"weights.bin .*is not what its manifest says") as error:
            client.encode(["a sentence"], encoder="text")
        assert "s3:" not in str(error.value), "callers need not know the store"
        assert server.get("/readyz")[0] == 503


def test_a_server_that_trusts_a_key_refuses_what_others_have_signed(signed: Path, key: Path, tmp_path: Path) -> None:
    trust = ("--trust", f"{key}.pub")
    with running(signed, *trust) as server:
        assert encoded(server).shape == (3, 512)
    assert CliRunner().invoke(models, ["keygen", str(tmp_path / "other")]).exit_code == 0
    sign(signed, tmp_path / "other")
    assert "which is not trusted" in failure(signed, *trust)
    bundle = signed / "smiles-small" / "1"
    sign(signed, key)
    (bundle / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes() + b"\n")
    assert "its manifest was changed after it was signed" in failure(signed, *trust)
    os.unlink(bundle / "manifest.sig")
    assert "is not signed" in failure(signed, *trust)


def test_a_signed_bundle_cannot_be_passed_off_as_another_version(signed: Path, key: Path) -> None:
    (signed / "smiles-small" / "1").rename(signed / "smiles-small" / "9")
    assert "the manifest names smiles-small/1; rename the folder" in failure(signed, "--trust", f"{key}.pub")


def test_encoders_of_a_web_server_are_served(signed: Path, key: Path, tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="needs the extra `sources`")
    assert CliRunner().invoke(models, ["index", str(signed)]).exit_code == 0
    with object_server() as web:
        web.upload(signed, "encoders/")
        arguments = (f"{web.url}/encoders", "--trust", f"{key}.pub", "--cache-dir", str(tmp_path / "cache"))
        with running(*arguments) as server:
            assert encoded(server).shape == (3, 512)
    with running(*arguments) as server:
        assert server.logged("in the cache") == 1
        assert encoded(server).shape == (3, 512)
