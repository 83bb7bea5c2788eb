"""The cache of what was fetched: whatever happens to it, nothing but whole bundles is served."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from birnn_service.sources.opening import open_source
from birnn_service.sources.options import StoreOptions
from birnn_service.sources.source import SourceError
from birnn_service.sources.store import UnreachableError
from tests.e2e.server_process import until
from tests.service.sources.object_server import BUCKET, ObjectServer
from tests.service.sources.small_bundle import PLACE, SMALL, SMALL_FILES, change_card, files_of, looked, opened

pytest.importorskip("obstore", reason="needs the extra `sources`")


def test_what_was_fetched_before_is_not_fetched_again(server: ObjectServer, tmp_path: Path) -> None:
    first = looked(tmp_path)
    path = first.fetch(SMALL)
    server.requests.clear()
    second = opened(tmp_path)
    assert second.look() == first.look()
    assert second.fetch(SMALL) == path
    assert set(server.requests) == {""}, "only the list is asked for"


def test_a_damaged_cache_is_fetched_again_and_never_served(server: ObjectServer, tmp_path: Path) -> None:
    source = looked(tmp_path)
    for damage in (lambda path: path.write_bytes(b"x"), Path.unlink):
        damage(source.fetch(SMALL) / "weights.bin")
        assert files_of(source.fetch(SMALL)) == files_of(SMALL_FILES)
    (source.fetch(SMALL) / "more").touch()
    (source.fetch(SMALL) / "manifest.sig").touch()
    assert files_of(source.fetch(SMALL)) == files_of(SMALL_FILES)
    (source.fetch(SMALL) / "weights.bin").write_bytes(b"x")
    server.status[""] = 503
    offline = looked(tmp_path, stall_seconds=1)
    with pytest.raises(SourceError, match="no encoder smiles-small/1"):
        offline.fetch(SMALL)


def test_damaged_notes_of_the_cache_are_ignored(server: ObjectServer, tmp_path: Path) -> None:
    source = looked(tmp_path)
    path = source.fetch(SMALL)
    for note in (tmp_path / "cache").rglob("*.json"):
        if "contents" not in note.parts:
            note.write_text("{")
    again = looked(tmp_path)
    assert again.fetch(SMALL) == path


def test_a_note_that_names_a_place_outside_of_the_cache_is_ignored(server: ObjectServer, tmp_path: Path) -> None:
    source = looked(tmp_path)
    source.fetch(SMALL)
    [note] = (tmp_path / "cache").glob("bundles/*/fetched/*.json")
    entry = json.loads(note.read_text())
    for change in ({"content": "../../../../etc"}, {"name": "../x"}, {"version": "2"}):
        note.write_text(json.dumps({**entry, **change}))
        server.status[""] = 503
        with pytest.raises(UnreachableError):
            opened(tmp_path, stall_seconds=1).look()


def test_a_cache_that_cannot_be_written_says_so(server: ObjectServer, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    source = looked(tmp_path)
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
    assert files_of(paths[0]) == files_of(SMALL_FILES)
    assert not list((tmp_path / "cache").glob("bundles/*/.unfinished*"))


def test_what_a_killed_fetch_left_is_removed_once_it_is_old(server: ObjectServer, tmp_path: Path) -> None:
    source = looked(tmp_path)
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
    source = looked(tmp_path)
    assert files_of(source.fetch(SMALL)) == files_of(SMALL_FILES)


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
    source = looked(tmp_path)
    source.fetch(SMALL)
    server.status[""] = 503
    with pytest.raises(UnreachableError):
        open_source(f"s3://{BUCKET}/x", StoreOptions(tmp_path / "cache", stall_seconds=1)).look()


def test_other_users_cannot_write_to_the_cache(server: ObjectServer, tmp_path: Path) -> None:
    opened(tmp_path).look()
    [folder] = (tmp_path / "cache" / "bundles").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(folder)


def test_a_cache_that_is_read_only_is_served_from(
    server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = looked(tmp_path)
    path = first.fetch(SMALL)

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    # The user who runs the tests may write everywhere.
    for call in ("utime", "mkdir", "rename", "replace", "unlink", "rmdir"):
        monkeypatch.setattr(os, call, refuse)
    second = looked(tmp_path)
    assert second.fetch(SMALL) == path
