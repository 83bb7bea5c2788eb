"""A store that does it wrong: refuses, stalls, cuts off, swaps, or lies."""

import json
from pathlib import Path

import pytest

from birnn_bundle.bundle import Bundle
from birnn_bundle.files import sha256
from birnn_service.sources.source import SourceError
from birnn_service.sources.store import UnreachableError
from tests.service.sources.object_server import ObjectServer
from tests.service.sources.small_bundle import PLACE, SMALL, change_card, looked, nothing_is_kept, opened

pytest.importorskip("obstore", reason="needs the extra `sources`")


@pytest.mark.parametrize(("file", "status"), [("weights.bin", 403), ("manifest.json", 403)])
def test_an_object_that_is_refused_is_an_error_that_says_so(
    server: ObjectServer, tmp_path: Path, file: str, status: int
) -> None:
    server.status[f"{PLACE}/{file}"] = status
    source = looked(tmp_path)
    with pytest.raises(SourceError, match=rf"refuses access to {PLACE}/{file}"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)


def test_other_bytes_than_the_digest_says_are_never_kept(server: ObjectServer, tmp_path: Path) -> None:
    weights = bytearray(server.objects[f"{PLACE}/weights.bin"])
    weights[-1] ^= 1
    server.contents[f"{PLACE}/weights.bin"] = bytes(weights)
    source = looked(tmp_path)
    with pytest.raises(SourceError, match=r"weights.bin in s3://bucket is not what its manifest says \(sha256"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)
    server.contents.clear()
    assert source.fetch(SMALL).is_dir()


def test_objects_swapped_after_the_look_are_noticed(server: ObjectServer, tmp_path: Path) -> None:
    source = looked(tmp_path)
    server.before[f"{PLACE}/tokens.onnx"] = lambda: server.objects.update({f"{PLACE}/tokens.onnx": b"another"})
    with pytest.raises(SourceError, match=r"tokens.onnx has changed in s3://bucket since it was listed; try again"):
        source.fetch(SMALL)
    change_card(server, b"swapped")
    with pytest.raises(SourceError, match=r"manifest.json has changed"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)


def test_an_object_removed_after_the_look_is_noticed(server: ObjectServer, tmp_path: Path) -> None:
    source = looked(tmp_path)
    del server.objects[f"{PLACE}/weights.bin"]
    with pytest.raises(SourceError, match=r"s3://bucket holds no smiles-small/1/weights.bin"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)


def test_a_store_that_stalls_counts_as_out_of_reach(server: ObjectServer, tmp_path: Path) -> None:
    server.stalled.add(f"{PLACE}/weights.bin")
    source = looked(tmp_path, stall_seconds=5)
    with pytest.raises(UnreachableError, match=r"weights.bin.*--source-stall-seconds"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)
    server.stalled.add("")
    with pytest.raises(UnreachableError, match=r"its list of objects.*--source-stall-seconds"):
        source.look()


def test_a_store_that_drips_is_bounded_in_time(server: ObjectServer, tmp_path: Path) -> None:
    server.dripping.add(f"{PLACE}/weights.bin")
    source = looked(tmp_path, most_seconds=8)
    with pytest.raises(UnreachableError, match=r"took more than 8 seconds to be fetched \(--source-seconds\)"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)


def test_a_store_that_cuts_off_is_out_of_reach(server: ObjectServer, tmp_path: Path) -> None:
    server.cut.add(f"{PLACE}/weights.bin")
    source = looked(tmp_path, stall_seconds=10)
    with pytest.raises(UnreachableError, match=r"cannot read smiles-small/1/weights.bin"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)


@pytest.mark.parametrize("fault", ["cut", "stalled"])
def test_what_was_cut_off_or_stalled_once_is_resumed(server: ObjectServer, tmp_path: Path, fault: str) -> None:
    path = f"{PLACE}/weights.bin"
    faulty: set[str] = getattr(server, fault)
    faulty.add(path)
    server.before[path] = lambda: faulty.clear() if server.requests.count(path) == 2 else None
    source = looked(tmp_path, stall_seconds=20)
    assert Bundle.load(source.fetch(SMALL)).label == PLACE
    assert server.requests.count(path) == 2


def test_a_store_that_fails_once_is_asked_again(server: ObjectServer, tmp_path: Path) -> None:
    path = f"{PLACE}/weights.bin"
    server.status[path] = 503
    server.before[path] = lambda: server.status.pop(path) if server.requests.count(path) > 2 else None
    source = looked(tmp_path)
    assert Bundle.load(source.fetch(SMALL)).label == PLACE
    assert server.requests.count(path) == 3


@pytest.mark.parametrize("listed", [10, 10**15])
def test_a_store_that_lies_about_a_size_is_not_believed(server: ObjectServer, tmp_path: Path, listed: int) -> None:
    server.sizes[f"{PLACE}/weights.bin"] = listed
    source = looked(tmp_path)
    with pytest.raises(SourceError, match=r"the 10 bytes that it may have: its size in the list|--max-bundle-mib"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)


def test_a_bundle_larger_than_allowed_is_refused_before_it_is_fetched(server: ObjectServer, tmp_path: Path) -> None:
    source = looked(tmp_path, max_bundle_bytes=1 << 10)
    with pytest.raises(SourceError, match=r"has \d+ MiB, at most 0 MiB are allowed \(--max-bundle-mib\)"):
        source.fetch(SMALL)
    assert f"{PLACE}/weights.bin" not in server.requests


def test_a_giant_manifest_is_not_read_to_its_end(server: ObjectServer, tmp_path: Path) -> None:
    server.objects[f"{PLACE}/manifest.json"] = b" " * (2 << 20)
    source = looked(tmp_path)
    with pytest.raises(SourceError, match=r"manifest.json in s3://bucket has more than the 1048576 bytes"):
        source.fetch(SMALL)


def test_a_missing_object_and_one_too_many_are_named(server: ObjectServer, tmp_path: Path) -> None:
    server.objects[f"{PLACE}/more.bin"] = b"x"
    source = looked(tmp_path)
    with pytest.raises(SourceError, match=r"holds more.bin, which is not listed in the manifest; remove it"):
        source.fetch(SMALL)
    del server.objects[f"{PLACE}/more.bin"], server.objects[f"{PLACE}/weights.bin"]
    source.look()
    with pytest.raises(SourceError, match=r"lacks weights.bin"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)


def test_a_bundle_under_the_name_of_another_is_refused(server: ObjectServer, tmp_path: Path) -> None:
    server.objects = {path.replace("small/1", "small/2"): content for path, content in server.objects.items()}
    source = looked(tmp_path)
    with pytest.raises(SourceError, match=r"smiles-small/2 in s3://bucket has a manifest that names smiles-small/1"):
        source.fetch(("smiles-small", "2"))


@pytest.mark.parametrize("file", ["../../outside", "/etc/outside", "..\\outside", "a/../../outside", "C:outside"])
def test_a_manifest_cannot_lead_out_of_the_cache(server: ObjectServer, tmp_path: Path, file: str) -> None:
    manifest = json.loads(server.objects[f"{PLACE}/manifest.json"])
    manifest["files"][file] = sha256(b"x")
    server.objects[f"{PLACE}/manifest.json"] = json.dumps(manifest).encode()
    source = looked(tmp_path)
    with pytest.raises(SourceError, match="is not a path inside the bundle"):
        source.fetch(SMALL)
    assert not list(tmp_path.rglob("outside"))


@pytest.mark.parametrize("key", ["smiles-small/1/../../x", "smiles-small//1/x", "smiles-small/./1/x"])
def test_a_key_that_is_no_path_is_named(server: ObjectServer, tmp_path: Path, key: str) -> None:
    server.objects[key] = b"x"
    with pytest.raises(SourceError, match="holds an object whose name is no path"):
        opened(tmp_path).look()


@pytest.mark.parametrize("name", ["ünïcode", "a\\b", "a b", "A", "a%2Fb", "n\u202eame"])
def test_names_that_no_manifest_can_have_hurt_nobody_else(server: ObjectServer, tmp_path: Path, name: str) -> None:
    server.objects[f"{name}/1/manifest.json"] = server.objects[f"{PLACE}/manifest.json"]
    source = opened(tmp_path)
    look = source.look()
    assert SMALL in look.bundles
    [other] = set(look.bundles) - {SMALL}
    with pytest.raises(SourceError) as error:
        source.fetch(other)
    assert str(error.value).isprintable()
    assert source.fetch(SMALL).is_dir()


def test_an_endless_list_is_bounded(server: ObjectServer, tmp_path: Path) -> None:
    server.endless = True
    for number in range(2000):
        server.objects[f"other/{number}"] = b""
    with pytest.raises(SourceError, match=r"holds more than 50000 objects; give a narrower prefix"):
        opened(tmp_path).look()


def test_an_endless_list_of_empty_pages_is_bounded_in_time(server: ObjectServer, tmp_path: Path) -> None:
    server.endless = True
    server.objects.clear()
    with pytest.raises(UnreachableError, match="--source-"):
        opened(tmp_path, stall_seconds=1, most_seconds=3).look()


def test_too_many_bundles_and_too_many_objects_of_one_are_refused(server: ObjectServer, tmp_path: Path) -> None:
    for number in range(2001):
        server.objects[f"big/1/{number}"] = b""
    with pytest.raises(SourceError, match="more than 2000 objects under big/1"):
        opened(tmp_path).look()
    server.objects = {f"many/{number}/manifest.json": b"" for number in range(1001)}
    with pytest.raises(SourceError, match="holds 1001 bundles, 1000 at most"):
        opened(tmp_path).look()
