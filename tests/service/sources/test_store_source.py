"""Bundles of a store: what goes well."""

from pathlib import Path

import pytest

from birnn_bundle.bundle import Bundle
from birnn_service.sources.opening import open_source
from birnn_service.sources.options import StoreOptions
from birnn_service.sources.source import SourceError
from tests.service.sources.object_server import BUCKET, ObjectServer
from tests.service.sources.small_bundle import PLACE, SMALL, SMALL_FILES, change_card, files_of, looked, opened

pytest.importorskip("obstore", reason="needs the extra `sources`")


def test_a_bundle_is_fetched_as_it_is(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(tmp_path)
    assert list(source.look().bundles) == [SMALL]
    path = source.fetch(SMALL)
    assert files_of(path) == files_of(SMALL_FILES)
    assert Bundle.load(path).label == PLACE


def test_a_prefix_is_no_part_of_the_names(server: ObjectServer, tmp_path: Path) -> None:
    server.objects = {f"team/models/{path}": content for path, content in server.objects.items()}
    source = open_source(f"s3://{BUCKET}/team/models/", StoreOptions(tmp_path))
    assert list(source.look().bundles) == [SMALL]
    assert Bundle.load(source.fetch(SMALL)).label == PLACE


def test_a_changed_bundle_has_another_fingerprint_and_is_fetched_anew(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(tmp_path)
    before = source.look().bundles[SMALL]
    old = source.fetch(SMALL)
    change_card(server, b"another card")
    assert source.look().bundles[SMALL] != before
    new = source.fetch(SMALL)
    assert new != old
    assert (new / "README.md").read_bytes() == b"another card"


def test_aliases_are_read_once_for_each_change_and_damaged_ones_are_reported(
    server: ObjectServer, tmp_path: Path
) -> None:
    server.objects["smiles-small/aliases.json"] = b'{"stable": 1}'
    source = opened(tmp_path)
    assert source.look().aliases == {"smiles-small": {"stable": 1}}
    server.requests.clear()
    source.look()
    assert server.requests == [""]
    server.objects["smiles-small/aliases.json"] = b"{"
    look = source.look()
    assert look.aliases == {}
    assert "is not JSON" in look.problems["smiles-small/aliases.json"]
    assert list(look.bundles) == [SMALL]


def test_objects_that_are_no_part_of_a_bundle_are_left_out(server: ObjectServer, tmp_path: Path) -> None:
    markers = [
        "smiles-small/",
        "smiles-small/1/",
        "notes.txt",
        ".hidden/1/manifest.json",
        "smiles-small/.2/manifest.json",
        "half/1/weights.bin",
    ]
    for path in markers:
        server.objects[path] = b""
    source = opened(tmp_path)
    assert list(source.look().bundles) == [SMALL]
    assert files_of(source.fetch(SMALL)) == files_of(SMALL_FILES)


def test_the_signature_is_fetched_and_another_one_is_another_content(server: ObjectServer, tmp_path: Path) -> None:
    server.objects[f"{PLACE}/manifest.sig"] = b"one"
    source = looked(tmp_path)
    first = source.fetch(SMALL)
    assert (first / "manifest.sig").read_bytes() == b"one"
    server.objects[f"{PLACE}/manifest.sig"] = b"two"
    source.look()
    assert (source.fetch(SMALL) / "manifest.sig").read_bytes() == b"two"
    server.objects[f"{PLACE}/manifest.sig"] = b"x" * 5000
    source.look()
    with pytest.raises(SourceError, match=r"manifest.sig in s3://bucket has more than the 4096 bytes"):
        source.fetch(SMALL)


@pytest.mark.parametrize(
    ("prefix", "advice"),
    [("/smiles-small/1", "two levels above"), ("/smiles-small", "one level above"), ("/nothing", "as `birnn export`")],
)
def test_a_prefix_without_bundles_says_what_was_expected(
    server: ObjectServer, tmp_path: Path, prefix: str, advice: str
) -> None:
    with pytest.raises(SourceError, match=advice):
        open_source(f"s3://{BUCKET}{prefix}", StoreOptions(tmp_path)).look()
