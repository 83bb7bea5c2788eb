"""The object stores that are supported, as other people emulate them: each lists, fetches and notices a swap."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from birnn_bundle.bundle import Bundle
from birnn_service.sources.opening import open_source
from birnn_service.sources.options import StoreOptions
from birnn_service.sources.source import SourceError
from tests.service.sources.moto_server import MotoServer, moto_server

MODELS = Path(__file__).parents[3] / "models"
SMALL = ("smiles-small", "1")
# The account and key that everybody knows: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
AZURITE = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
)

obstore = pytest.importorskip("obstore", reason="needs the extra `sources`")


@pytest.fixture
def moto() -> Iterator[MotoServer]:
    with moto_server() as server:
        yield server


def check(url: str, store: Any, tmp_path: Path) -> None:
    """Upload a bundle, fetch it, and have one object swapped between look and fetch."""
    for path in (MODELS / "smiles-small").rglob("*"):
        if path.is_file():
            name = f"smiles-small/{path.relative_to(MODELS / 'smiles-small').as_posix()}"
            obstore.put(store, name, path.read_bytes())
    obstore.put(store, "smiles-small/aliases.json", b'{"stable": 1}')
    source = open_source(url, StoreOptions(tmp_path))
    look = source.look()
    assert list(look.bundles) == [SMALL]
    assert look.aliases == {"smiles-small": {"stable": 1}}
    assert Bundle.load(source.fetch(SMALL)).label == "smiles-small/1"
    obstore.put(store, "smiles-small/1/weights.bin", b"another")
    for folder in tmp_path.glob("bundles/*"):
        shutil.rmtree(folder)
    with pytest.raises(SourceError, match=r"weights.bin has changed in .* since it was listed"):
        source.fetch(SMALL)
    assert source.look().bundles != look.bundles


def test_s3(moto: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in moto.variables.items():
        monkeypatch.setenv(name, value)
    check("s3://models/team", moto.store("team"), tmp_path)


def test_google_cloud_storage_by_its_xml_protocol(
    moto: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is S3's, and obstore uses it. gcp-storage-emulator knows only Google's other protocol, in JSON."""
    account = {
        "gcs_base_url": moto.url,
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(account))
    monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
    check("gs://models/team", moto.store("team"), tmp_path)


@pytest.mark.slow
def test_azure_blob_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = shutil.which("azurite-blob", path=f"{Path('node_modules/.bin').resolve()}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("azurite is not installed: npm install azurite")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [program, "--blobPort", str(port), "--inMemoryPersistence", "--silent", "--skipApiVersionCheck"]
    process = subprocess.Popen([*command, "--disableTelemetry"], cwd=tmp_path)
    try:
        await_port(port, process)
        account, key = AZURITE
        endpoint = f"http://127.0.0.1:{port}/{account}"
        for name, value in {"ACCOUNT_NAME": account, "ACCOUNT_KEY": key, "ENDPOINT": endpoint}.items():
            monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)
        monkeypatch.setenv("AZURE_ALLOW_HTTP", "true")
        store = obstore.store.AzureStore.from_url("az://models/team", client_options={"allow_http": True})
        create_container(endpoint, account, key, "models")
        check("az://models/team", store, tmp_path / "cache")
    finally:
        process.terminate()
        process.wait()


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(3000):
        assert process.poll() is None
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail("azurite did not listen")


def create_container(endpoint: str, account: str, key: str, name: str) -> None:
    """What obstore cannot do: a request of Azure's REST protocol, signed by hand."""
    date, version = formatdate(usegmt=True), "2021-08-06"
    lines = [
        "PUT",
        *[""] * 11,
        f"x-ms-date:{date}",
        f"x-ms-version:{version}",
        f"/{account}/{account}/{name}",
        "restype:container",
    ]
    digest = hmac.new(base64.b64decode(key), "\n".join(lines).encode(), hashlib.sha256).digest()
    headers = {
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": f"SharedKey {account}:{base64.b64encode(digest).decode()}",
    }
    request = urllib.request.Request(f"{endpoint}/{name}?restype=container", method="PUT", headers=headers)
    assert urllib.request.urlopen(request).status == 201
