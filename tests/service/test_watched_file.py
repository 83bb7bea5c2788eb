"""Files that say who may call, and that are written while they are read."""

import time
from pathlib import Path

import pytest

from birnn_service.watched_file import SETTLING_READS, WatchedFile


class Writer:
    """Writes a file in place: a part at a time, whenever the reader waits."""

    def __init__(self, path: Path, *parts: bytes) -> None:
        self._path = path
        self._parts = list(parts)
        self.waits = 0

    def sleep(self, seconds: float) -> None:
        self.waits += 1
        if self._parts:
            self._path.write_bytes(self._path.read_bytes() + self._parts.pop(0))


def watched(path: Path) -> WatchedFile[bytes]:
    path.write_bytes(b"one\n")
    return WatchedFile(path, "words", bytes, "write some")


def test_a_file_that_is_written_in_place_counts_once_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    file = watched(path)
    writer = Writer(path, b"one\n", b"two\n", b"three\n")
    monkeypatch.setattr(time, "sleep", writer.sleep)
    # As a writer leaves it that has just begun.
    path.write_bytes(b"")
    assert file.reload()
    assert file.content == b"one\ntwo\nthree\n"
    assert writer.waits == 4


def test_a_file_that_has_not_changed_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    file = watched(path)
    writer = Writer(path)
    monkeypatch.setattr(time, "sleep", writer.sleep)
    assert not file.reload()
    assert writer.waits == 0


def test_of_a_file_that_never_rests_the_last_read_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    file = watched(path)
    writer = Writer(path, *[b"more\n"] * 100)
    monkeypatch.setattr(time, "sleep", writer.sleep)
    path.write_bytes(b"")
    assert file.reload()
    assert file.content == b"more\n" * SETTLING_READS
    assert writer.waits == SETTLING_READS


def test_a_file_that_is_gone_twice_is_told_of_twice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "file"
    file = watched(path)
    for _ in range(2):
        path.unlink()
        assert not file.reload()
        assert not file.reload()
        path.write_bytes(b"one\n")
        assert not file.reload()
    assert len(caplog.records) == 2
    assert file.content == b"one\n"
