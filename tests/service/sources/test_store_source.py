"""Bundles of a store: what goes well, and everything that a store may do wrong."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from birnn_bundle.bundle import Bundle
from birnn_bundle.files import sha256
from birnn_service.sources.opening import open_source
from birnn_service.sources.options import StoreOptions
from birnn_service.sources.source import Source, SourceError
from birnn_service.sources.store import UnreachableError
from tests.e2e.server_process import until
from tests.service.sources.object_server import BUCKET, ObjectServer, object_server

MODELS = Path(__file__).parents[3] / "models"
SMALL = ("smiles-small", "1")
PLACE = "smiles-small/1"

pytest.importorskip("obstore", reason="needs the extra `sources`")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    """A store with one bundle, which the variables of S3 name."""
    with object_server() as server:
        server.upload(MODELS / "smiles-small", "smiles-small/")
        monkeypatch.setenv("AWS_ENDPOINT", server.url)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        yield server


def opened(tmp_path: Path, **options: float) -> Source:
    """The source, as a process would open it."""
    limits = {"stall_seconds": 20.0, "most_seconds": 120.0, **options}
    return open_source(f"s3://{BUCKET}", StoreOptions(tmp_path / "cache", **limits))  # type: ignore[arg-type]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def nothing_is_kept(tmp_path: Path) -> bool:
    """Whether the cache holds no content, and nothing unfinished."""
    cache = tmp_path / "cache"
    return not [*cache.glob("bundles/*/contents/*"), *cache.glob("bundles/*/.unfinished*")]


def test_a_bundle_is_fetched_as_it_is(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(tmp_path)
    assert list(source.look().bundles) == [SMALL]
    path = source.fetch(SMALL)
    assert files_of(path) == files_of(MODELS / "smiles-small" / "1")
    assert Bundle.load(path).label == PLACE


def test_a_prefix_is_no_part_of_the_names(server: ObjectServer, tmp_path: Path) -> None:
    server.objects = {f"team/models/{path}": content for path, content in server.objects.items()}
    source = open_source(f"s3://{BUCKET}/team/models/", StoreOptions(tmp_path))
    assert list(source.look().bundles) == [SMALL]
    assert Bundle.load(source.fetch(SMALL)).label == PLACE


def test_what_was_fetched_before_is_not_fetched_again(server: ObjectServer, tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.look()
    path = first.fetch(SMALL)
    server.requests.clear()
    second = opened(tmp_path)
    assert second.look() == first.look()
    assert second.fetch(SMALL) == path
    assert set(server.requests) == {""}, "only the list is asked for"


def test_a_changed_bundle_has_another_fingerprint_and_is_fetched_anew(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(tmp_path)
    before = source.look().bundles[SMALL]
    old = source.fetch(SMALL)
    change_card(server, b"another card")
    assert source.look().bundles[SMALL] != before
    new = source.fetch(SMALL)
    assert new != old
    assert (new / "README.md").read_bytes() == b"another card"


def change_card(server: ObjectServer, content: bytes) -> None:
    """Another good bundle under the same name."""
    manifest = json.loads(server.objects[f"{PLACE}/manifest.json"])
    manifest["files"]["README.md"] = sha256(content)
    server.objects[f"{PLACE}/README.md"] = content
    server.objects[f"{PLACE}/manifest.json"] = json.dumps(manifest).encode()


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
    assert files_of(source.fetch(SMALL)) == files_of(MODELS / "smiles-small" / "1")


# A store that is gone.


def test_without_its_store_a_source_serves_what_was_fetched(server: ObjectServer, tmp_path: Path) -> None:
    server.objects["smiles-small/aliases.json"] = b'{"stable": 1}'
    first = opened(tmp_path)
    seen = first.look()
    path = first.fetch(SMALL)
    server.status[""] = 503
    second = opened(tmp_path)
    look = second.look()
    assert "503" in look.stale
    assert "using the 1 bundles of it in the cache" in look.stale
    assert (look.bundles, look.aliases) == (seen.bundles, seen.aliases)
    assert second.fetch(SMALL) == path
    server.status.clear()
    assert second.look().stale == ""


def test_without_its_store_and_without_a_cache_there_is_nothing(server: ObjectServer, tmp_path: Path) -> None:
    server.status[""] = 503
    with pytest.raises(UnreachableError, match=r"cannot read its list of objects.*--source-stall-seconds.*503"):
        opened(tmp_path).look()


def test_a_store_that_is_gone_after_the_look_is_not_needed_for_what_was_fetched(
    server: ObjectServer, tmp_path: Path
) -> None:
    source = opened(tmp_path)
    source.look()
    path = source.fetch(SMALL)
    server.status = dict.fromkeys(server.objects, 503)
    source.look()
    assert source.fetch(SMALL) == path


def test_a_damaged_cache_is_fetched_again_and_never_served(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(tmp_path)
    source.look()
    for damage in (lambda path: path.write_bytes(b"x"), Path.unlink):
        damage(source.fetch(SMALL) / "weights.bin")
        assert files_of(source.fetch(SMALL)) == files_of(MODELS / "smiles-small" / "1")
    (source.fetch(SMALL) / "more").touch()
    (source.fetch(SMALL) / "manifest.sig").touch()
    assert files_of(source.fetch(SMALL)) == files_of(MODELS / "smiles-small" / "1")
    (source.fetch(SMALL) / "weights.bin").write_bytes(b"x")
    server.status[""] = 503
    offline = opened(tmp_path, stall_seconds=1)
    offline.look()
    with pytest.raises(SourceError, match="no encoder smiles-small/1"):
        offline.fetch(SMALL)


def test_damaged_notes_of_the_cache_are_ignored(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(tmp_path)
    source.look()
    path = source.fetch(SMALL)
    for note in (tmp_path / "cache").rglob("*.json"):
        if "contents" not in note.parts:
            note.write_text("{")
    again = opened(tmp_path)
    again.look()
    assert again.fetch(SMALL) == path


def test_a_note_that_names_a_place_outside_of_the_cache_is_ignored(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(tmp_path)
    source.look()
    source.fetch(SMALL)
    [note] = (tmp_path / "cache").glob("bundles/*/fetched/*.json")
    entry = json.loads(note.read_text())
    for change in ({"content": "../../../../etc"}, {"name": "../x"}, {"version": "2"}):
        note.write_text(json.dumps({**entry, **change}))
        server.status[""] = 503
        with pytest.raises(UnreachableError):
            opened(tmp_path, stall_seconds=1).look()


def test_a_store_that_refuses_is_not_one_that_is_gone(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(tmp_path)
    source.look()
    source.fetch(SMALL)
    server.status[""] = 403
    with pytest.raises(
        SourceError, match=r"refuses access to its list of objects; check the credentials.*AWS_\*"
    ) as error:
        opened(tmp_path).look()
    assert not isinstance(error.value, UnreachableError)
    server.status[""] = 404
    with pytest.raises(SourceError, match=r"(does not give|holds no) .*its list of objects") as error:
        opened(tmp_path).look()
    assert not isinstance(error.value, UnreachableError)


def test_a_bundle_that_the_store_no_longer_holds_is_not_served_without_it(server: ObjectServer, tmp_path: Path) -> None:
    server.upload(MODELS / "smiles-small", "smiles-small/")
    source = opened(tmp_path)
    source.look()
    source.fetch(SMALL)
    server.objects = {"other/1/manifest.json": b"{}"}
    source.look()
    server.status[""] = 503
    with pytest.raises(UnreachableError):
        opened(tmp_path, stall_seconds=1).look()


# A store that does it wrong.


@pytest.mark.parametrize(("file", "status"), [("weights.bin", 403), ("manifest.json", 403)])
def test_an_object_that_is_refused_is_an_error_that_says_so(
    server: ObjectServer, tmp_path: Path, file: str, status: int
) -> None:
    server.status[f"{PLACE}/{file}"] = status
    source = opened(tmp_path)
    source.look()
    with pytest.raises(SourceError, match=rf"refuses access to {PLACE}/{file}"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)


def test_other_bytes_than_the_digest_says_are_never_kept(server: ObjectServer, tmp_path: Path) -> None:
    weights = bytearray(server.objects[f"{PLACE}/weights.bin"])
    weights[-1] ^= 1
    server.contents[f"{PLACE}/weights.bin"] = bytes(weights)
    source = opened(tmp_path)
    source.look()
    with pytest.raises(SourceError, match=r"weights.bin in s3://bucket is not what its manifest says \(sha256"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)
    server.contents.clear()
    assert source.fetch(SMALL).is_dir()


def test_objects_swapped_after_the_look_are_noticed(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(tmp_path)
    source.look()
    server.before[f"{PLACE}/tokens.onnx"] = lambda: server.objects.update({f"{PLACE}/tokens.onnx": b"another"})
    with pytest.raises(SourceError, match=r"tokens.onnx has changed in s3://bucket since it was listed; try again"):
        source.fetch(SMALL)
    change_card(server, b"swapped")
    with pytest.raises(SourceError, match=r"manifest.json has changed"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)


def test_an_object_removed_after_the_look_is_noticed(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(tmp_path)
    source.look()
    del server.objects[f"{PLACE}/weights.bin"]
    with pytest.raises(SourceError, match=r"s3://bucket holds no smiles-small/1/weights.bin"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)


def test_a_store_that_stalls_counts_as_out_of_reach(server: ObjectServer, tmp_path: Path) -> None:
    server.stalled.add(f"{PLACE}/weights.bin")
    source = opened(tmp_path, stall_seconds=5)
    source.look()
    with pytest.raises(UnreachableError, match=r"weights.bin.*--source-stall-seconds"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)
    server.stalled.add("")
    with pytest.raises(UnreachableError, match=r"its list of objects.*--source-stall-seconds"):
        source.look()


def test_a_store_that_drips_is_bounded_in_time(server: ObjectServer, tmp_path: Path) -> None:
    server.dripping.add(f"{PLACE}/weights.bin")
    source = opened(tmp_path, most_seconds=8)
    source.look()
    with pytest.raises(UnreachableError, match=r"took more than 8 seconds to be fetched \(--source-seconds\)"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)


def test_a_store_that_cuts_off_is_out_of_reach(server: ObjectServer, tmp_path: Path) -> None:
    server.cut.add(f"{PLACE}/weights.bin")
    source = opened(tmp_path, stall_seconds=10)
    source.look()
    with pytest.raises(UnreachableError, match=r"cannot read smiles-small/1/weights.bin"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)


@pytest.mark.parametrize("fault", ["cut", "stalled"])
def test_what_was_cut_off_or_stalled_once_is_resumed(server: ObjectServer, tmp_path: Path, fault: str) -> None:
    path = f"{PLACE}/weights.bin"
    faulty: set[str] = getattr(server, fault)
    faulty.add(path)
    server.before[path] = lambda: faulty.clear() if server.requests.count(path) == 2 else None
    source = opened(tmp_path, stall_seconds=20)
    source.look()
    assert Bundle.load(source.fetch(SMALL)).label == PLACE
    assert server.requests.count(path) == 2


def test_a_store_that_fails_once_is_asked_again(server: ObjectServer, tmp_path: Path) -> None:
    path = f"{PLACE}/weights.bin"
    server.status[path] = 503
    server.before[path] = lambda: server.status.pop(path) if server.requests.count(path) > 2 else None
    source = opened(tmp_path)
    source.look()
    assert Bundle.load(source.fetch(SMALL)).label == PLACE
    assert server.requests.count(path) == 3


@pytest.mark.parametrize("listed", [10, 10**15])
def test_a_store_that_lies_about_a_size_is_not_believed(server: ObjectServer, tmp_path: Path, listed: int) -> None:
    server.sizes[f"{PLACE}/weights.bin"] = listed
    source = opened(tmp_path)
    source.look()
    with pytest.raises(SourceError, match=r"the 10 bytes that it may have: its size in the list|--max-bundle-mib"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)


def test_a_bundle_larger_than_allowed_is_refused_before_it_is_fetched(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(tmp_path, max_bundle_bytes=1 << 10)
    source.look()
    with pytest.raises(SourceError, match=r"has \d+ MiB, at most 0 MiB are allowed \(--max-bundle-mib\)"):
        source.fetch(SMALL)
    assert f"{PLACE}/weights.bin" not in server.requests


def test_a_giant_manifest_is_not_read_to_its_end(server: ObjectServer, tmp_path: Path) -> None:
    server.objects[f"{PLACE}/manifest.json"] = b" " * (2 << 20)
    source = opened(tmp_path)
    source.look()
    with pytest.raises(SourceError, match=r"manifest.json in s3://bucket has more than the 1048576 bytes"):
        source.fetch(SMALL)


def test_a_missing_object_and_one_too_many_are_named(server: ObjectServer, tmp_path: Path) -> None:
    server.objects[f"{PLACE}/more.bin"] = b"x"
    source = opened(tmp_path)
    source.look()
    with pytest.raises(SourceError, match=r"holds more.bin, which is not listed in the manifest; remove it"):
        source.fetch(SMALL)
    del server.objects[f"{PLACE}/more.bin"], server.objects[f"{PLACE}/weights.bin"]
    source.look()
    with pytest.raises(SourceError, match=r"lacks weights.bin"):
        source.fetch(SMALL)
    assert nothing_is_kept(tmp_path)


def test_a_bundle_under_the_name_of_another_is_refused(server: ObjectServer, tmp_path: Path) -> None:
    server.objects = {path.replace("small/1", "small/2"): content for path, content in server.objects.items()}
    source = opened(tmp_path)
    source.look()
    with pytest.raises(SourceError, match=r"smiles-small/2 in s3://bucket has a manifest that names smiles-small/1"):
        source.fetch(("smiles-small", "2"))


@pytest.mark.parametrize("file", ["../../outside", "/etc/outside", "..\\outside", "a/../../outside", "C:outside"])
def test_a_manifest_cannot_lead_out_of_the_cache(server: ObjectServer, tmp_path: Path, file: str) -> None:
    manifest = json.loads(server.objects[f"{PLACE}/manifest.json"])
    manifest["files"][file] = sha256(b"x")
    server.objects[f"{PLACE}/manifest.json"] = json.dumps(manifest).encode()
    source = opened(tmp_path)
    source.look()
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
    with pytest.raises(SourceError, match=r"holds more than 50000 objects; give a prefix"):
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


@pytest.mark.parametrize(
    ("prefix", "advice"),
    [("/smiles-small/1", "two levels above"), ("/smiles-small", "one level above"), ("/nothing", "as `birnn export`")],
)
def test_a_prefix_without_bundles_says_what_was_expected(
    server: ObjectServer, tmp_path: Path, prefix: str, advice: str
) -> None:
    with pytest.raises(SourceError, match=advice):
        open_source(f"s3://{BUCKET}{prefix}", StoreOptions(tmp_path)).look()


# The cache.


def test_a_cache_that_cannot_be_written_says_so(server: ObjectServer, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    source = opened(tmp_path)
    source.look()
    with pytest.raises(SourceError, match=r"cannot write to the cache .*--cache-dir"):
        source.fetch(SMALL)


def test_two_that_fetch_at_once_both_get_it(server: ObjectServer, tmp_path: Path) -> None:
    barrier = threading.Barrier(2)
    server.before[f"{PLACE}/weights.bin"] = lambda: barrier.wait(60)
    sources, paths = [opened(tmp_path), opened(tmp_path)], []
    for source in sources:
        source.look()
    threads = [threading.Thread(target=lambda source=source: paths.append(source.fetch(SMALL))) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 2
    assert paths[0] == paths[1]
    assert files_of(paths[0]) == files_of(MODELS / "smiles-small" / "1")
    assert not list((tmp_path / "cache").glob("bundles/*/.unfinished*"))


def test_what_a_killed_fetch_left_is_removed_once_it_is_old(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(tmp_path)
    source.look()
    [folder] = (tmp_path / "cache" / "bundles").iterdir()
    for name, age in ((".unfinished-1-old", 4000), (".unfinished-2-new", 0)):
        (folder / name).mkdir()
        (folder / name / "weights.bin").write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    source.fetch(SMALL)
    assert [path.name for path in folder.glob(".unfinished*")] == [".unfinished-2-new"]


def test_a_fetch_that_is_killed_leaves_nothing_that_would_be_used(server: ObjectServer, tmp_path: Path) -> None:
    path = f"{PLACE}/weights.bin"
    server.stalled.add(path)
    code = (
        "import sys, pathlib; from birnn_service.sources.opening import open_source as o; "
        "from birnn_service.sources.options import StoreOptions as S; "
        "s = o(sys.argv[1], S(pathlib.Path(sys.argv[2]))); s.look(); s.fetch(('smiles-small', '1'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, f"s3://{BUCKET}", str(tmp_path / "cache")])
    until(lambda: path in server.requests and list((tmp_path / "cache").glob("bundles/*/.unfinished*/weights.bin")))
    process.kill()
    process.wait()
    assert list((tmp_path / "cache").glob("bundles/*/.unfinished*"))
    assert not list((tmp_path / "cache").glob("bundles/*/contents/*"))
    server.status[""] = 503
    with pytest.raises(UnreachableError):
        opened(tmp_path).look()
    server.status.clear()
    server.stalled.clear()
    source = opened(tmp_path)
    source.look()
    assert files_of(source.fetch(SMALL)) == files_of(MODELS / "smiles-small" / "1")


def test_of_old_contents_the_last_three_are_kept(server: ObjectServer, tmp_path: Path) -> None:
    source, paths = opened(tmp_path), []
    for number in range(6):
        change_card(server, f"card {number}".encode())
        source.look()
        paths.append(source.fetch(SMALL))
        os.utime(paths[-1], (time.time() + number,) * 2)
    source.look()
    assert [path.is_dir() for path in paths] == [False, False, True, True, True, True]


def test_sources_do_not_share_what_they_keep(server: ObjectServer, tmp_path: Path) -> None:
    source = opened(tmp_path)
    source.look()
    source.fetch(SMALL)
    server.status[""] = 503
    with pytest.raises(UnreachableError):
        open_source(f"s3://{BUCKET}/x", StoreOptions(tmp_path / "cache", stall_seconds=1)).look()


def test_the_signature_is_fetched_and_another_one_is_another_content(server: ObjectServer, tmp_path: Path) -> None:
    server.objects[f"{PLACE}/manifest.sig"] = b"one"
    source = opened(tmp_path)
    source.look()
    first = source.fetch(SMALL)
    assert (first / "manifest.sig").read_bytes() == b"one"
    server.objects[f"{PLACE}/manifest.sig"] = b"two"
    source.look()
    assert (source.fetch(SMALL) / "manifest.sig").read_bytes() == b"two"
    server.objects[f"{PLACE}/manifest.sig"] = b"x" * 5000
    source.look()
    with pytest.raises(SourceError, match=r"manifest.sig in s3://bucket has more than the 4096 bytes"):
        source.fetch(SMALL)


def test_other_users_cannot_write_to_the_cache(server: ObjectServer, tmp_path: Path) -> None:
    opened(tmp_path).look()
    [folder] = (tmp_path / "cache" / "bundles").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(folder)


def test_a_cache_that_is_read_only_is_served_from(
    server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(tmp_path)
    first.look()
    path = first.fetch(SMALL)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # The user who runs the tests may write everywhere.
    for call in ("utime", "mkdir", "rename", "replace", "unlink", "rmdir"):
        monkeypatch.setattr(os, call, refuse)
    second = opened(tmp_path)
    second.look()
    assert second.fetch(SMALL) == path
