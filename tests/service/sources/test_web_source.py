"""Bundles of a plain web server, which an index names."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from birnn_bundle.bundle import Bundle
from birnn_service.commands import models
from birnn_service.errors import StartupError
from birnn_service.sources.opening import open_source
from birnn_service.sources.options import StoreOptions
from birnn_service.sources.source import Source, SourceError
from birnn_service.sources.store import UnreachableError
from tests.certificates import Authority
from tests.service.sources.object_server import ObjectServer, object_server

MODELS = Path(__file__).parents[3] / "models"
SMALL = ("smiles-small", "1")

pytest.importorskip("obstore", reason="needs the extra `sources`")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one bundle, its aliases, and its index."""
    folder = tmp_path / "models"
    shutil.copytree(MODELS / "smiles-small", folder / "smiles-small")
    (folder / "smiles-small" / "aliases.json").write_text('{"stable": 1}')
    result = CliRunner().invoke(models, ["index", str(folder)])
    assert result.exit_code == 0, result.output
    assert result.output == f"{folder / 'index.json'}: 1 bundles\n"
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[ObjectServer]:
    with object_server() as server:
        server.upload(folder, "models/")
        yield server


def opened(server: ObjectServer, tmp_path: Path) -> Source:
    return open_source(server.url + "/models/", StoreOptions(tmp_path / "cache", stall_seconds=20))


def test_the_index_says_what_there_is(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(server, tmp_path)
    look = source.look()
    assert list(look.bundles) == [SMALL]
    assert look.aliases == {"smiles-small": {"stable": 1}}
    assert Bundle.load(source.fetch(SMALL)).label == "smiles-small/1"
    server.requests.clear()
    assert opened(server, tmp_path).look() == look
    assert server.requests == ["models/index.json"]


def test_without_the_server_the_cache_is_used(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(server, tmp_path)
    look = source.look()
    path = source.fetch(SMALL)
    server.status["models/index.json"] = 500
    again = opened(server, tmp_path)
    stale = again.look()
    assert (stale.bundles, stale.aliases) == (look.bundles, look.aliases)
    assert "500" in stale.stale
    assert again.fetch(SMALL) == path


def test_https_is_trusted_by_the_authorities_of_the_environment(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    with object_server(authority.issue("server")) as server:
        server.upload(folder, "models/")
        with pytest.raises(UnreachableError):
            opened(server, tmp_path).look()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
        source = opened(server, tmp_path)
        source.look()
        assert Bundle.load(source.fetch(SMALL)).label == "smiles-small/1"


@pytest.mark.parametrize("file", ["manifest.json", "weights.bin"])
def test_files_other_than_those_of_the_index_are_never_kept(server: ObjectServer, tmp_path: Path, file: str) -> None:
    source = opened(server, tmp_path)
    source.look()
    path = f"models/smiles-small/1/{file}"
    server.objects[path] = server.objects[path].replace(b"1", b"2", 1)
    with pytest.raises(SourceError, match=rf"{file} in http.* is not what (index.json|its manifest) says"):
        source.fetch(SMALL)
    assert not list((tmp_path / "cache").glob("bundles/*/contents/*"))


def test_a_bundle_larger_than_allowed_is_not_read_to_its_end(server: ObjectServer, tmp_path: Path) -> None:
    source = open_source(server.url + "/models", StoreOptions(tmp_path / "cache", max_bundle_bytes=1 << 20))
    source.look()
    with pytest.raises(
        SourceError, match=r"bytes that it may have: of a bundle, 1 MiB are allowed \(--max-bundle-mib\)"
    ):
        source.fetch(SMALL)


def test_without_an_index_the_error_says_how_to_write_one(server: ObjectServer, tmp_path: Path) -> None:
    del server.objects["models/index.json"]
    with pytest.raises(SourceError, match="birnn models index FOLDER"):
        opened(server, tmp_path).look()


ENTRY = {"name": "a", "version": "1", "manifest": "0" * 64}


def index(*bundles: object, **more: object) -> bytes:
    return json.dumps({"bundles": bundles, **more}).encode()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not valid: index: Invalid JSON"),
        (index(), "names no bundle"),
        (index(schema_version=2), "schema_version"),
        (b" " * (5 << 20), "more than the 4194304 bytes"),
        (index({**ENTRY, "manifest": "x"}), "manifest: String should"),
        (index({**ENTRY, "name": ".."}), "name: String should"),
        (index({**ENTRY, "version": "1/.."}), "version: String should"),
        (index(ENTRY, ENTRY), "names a bundle twice"),
        (index(*[{**ENTRY, "version": str(number)} for number in range(1001)]), "at most 1000 items"),
        (index(ENTRY, aliases={"a": {"1": 1}}), "aliases of a: '1' is no alias"),
    ],
)
def test_a_damaged_index_is_refused(server: ObjectServer, tmp_path: Path, content: bytes, reason: str) -> None:
    server.objects["models/index.json"] = content
    with pytest.raises(SourceError, match=reason):
        opened(server, tmp_path).look()


def test_a_folder_with_a_broken_bundle_gets_no_index(folder: Path) -> None:
    before = (folder / "index.json").read_bytes()
    (folder / "smiles-small" / "1" / "weights.bin").write_bytes(b"")
    result = CliRunner().invoke(models, ["index", str(folder)])
    assert result.exit_code == 1
    assert "smiles-small/1 is broken" in result.output
    assert (folder / "index.json").read_bytes() == before


def test_a_bundle_itself_and_one_under_a_wrong_name_get_no_index(folder: Path) -> None:
    result = CliRunner().invoke(models, ["index", str(folder / "smiles-small" / "1")])
    assert result.exit_code == 1
    assert "is a bundle itself" in result.output
    assert not (folder / "smiles-small" / "1" / "index.json").exists()
    (folder / "smiles-small" / "1").rename(folder / "smiles-small" / "2")
    result = CliRunner().invoke(models, ["index", str(folder)])
    assert "the manifest names smiles-small/1; rename the folder" in result.output
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://host/models", "of no known kind"),
        ("s3://", "of no known kind"),
        ("file:///etc", "of no known kind"),
        ("memory:///", "of no known kind"),
        ("http://models.example/x", "give an https:// URL"),
        ("http://localhost.example/x", "give an https:// URL"),
        ("https://user:secret@models.example/x", "with a user, a query or a fragment"),
        ("s3://bucket/x?token=secret", "with a user, a query or a fragment"),
        ("https://[::1/x", "is no URL"),
    ],
)
def test_urls_that_cannot_be_used_are_refused_without_their_secrets(tmp_path: Path, url: str, reason: str) -> None:
    with pytest.raises(StartupError, match=reason) as error:
        open_source(url, StoreOptions(tmp_path))
    assert "secret" not in str(error.value)


def test_without_obstore_the_error_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(
        StartupError, match=r"needs the Python package 'obstore'.*pip install 'birnn-serving\[sources\]'"
    ):
        open_source("s3://bucket/models", StoreOptions(tmp_path))
