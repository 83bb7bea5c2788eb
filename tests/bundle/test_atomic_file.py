"""A file is written as a whole or not at all, whatever ends the writing."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from birnn_bundle.atomic_file import removed_on_signals, replace_text, replacing, replacing_text


def fail_between(path: Path) -> None:
    with replacing(path) as file:
        file.write(b"new")
        raise RuntimeError("in between")


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="in between"):
        fail_between(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["weights"]
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["weights"]


def test_text_is_written_in_utf_8_with_its_own_line_ends(tmp_path: Path) -> None:
    with replacing_text(tmp_path / "a") as file:
        file.write("é\r\n\n")
    assert (tmp_path / "a").read_bytes() == "é\r\n\n".encode()


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    replace_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/file")
    replace_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "new"


def test_a_device_stays_one(tmp_path: Path) -> None:
    replace_text(Path("/dev/null"), "gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OSError, match="No space left") as caught:
        replace_text(Path("/dev/full"), "too much")
    assert caught.value.errno == errno.ENOSPC
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            replace_text(path, "x")


WRITER = """
import signal, sys, time
from pathlib import Path
from birnn_bundle.atomic_file import removed_on_signals, replacing
# A shell starts what runs in its background with interrupts ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
folder = Path(sys.argv[1])
with replacing(folder / "outer") as outer, replacing(folder / "inner") as inner, removed_on_signals(folder / "made"):
    (folder / "made").mkdir()
    (folder / "made" / "file").write_text("x")
    outer.write(b"x" * 100_000)
    print("writing", flush=True)
    signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing_and_has_its_usual_effect(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    assert len(os.listdir(tmp_path)) == 3
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == -number
    # An interrupt is an exception, after which a folder is its maker's to remove.
    assert os.listdir(tmp_path) == (["made"] if number is signal.SIGINT else [])


def test_handlers_are_as_they_were(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with replacing(tmp_path / "a"), replacing(tmp_path / "b"):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_handler_of_the_program_is_left_alone(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        handler = signal.getsignal(signal.SIGTERM)
        with replacing(tmp_path / "a"):
            assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_threads_may_write(tmp_path: Path) -> None:
    threads = [threading.Thread(target=replace_text, args=(tmp_path / "a", str(index) * 1000)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set((tmp_path / "a").read_text())) == 1
    assert os.listdir(tmp_path) == ["a"]


def test_a_child_leaves_what_its_parent_writes(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    with removed_on_signals(made):
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        assert made.is_dir()
