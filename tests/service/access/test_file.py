"""What becomes of the file of tokens, and of its changes."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from birnn_service import access as module
from birnn_service.errors import StartupError, UnauthenticatedError
from birnn_service.token_file import Grant, Right, digest_of, write_tokens
from tests.service.access.callers import FILE, LAB, access_of, bearer, written


def test_changes_of_the_file_count(path: Path) -> None:
    access = access_of(path)
    path.write_bytes(written(other=("birnn_other", (Right.ENCODE,))))
    access.reload()
    assert access.caller(bearer("birnn_other"), Right.ENCODE) == "name:other"
    with pytest.raises(UnauthenticatedError):
        access.caller(bearer(LAB), Right.ENCODE)


def test_the_file_is_watched_however_busy_other_threads_are(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELOAD_SECONDS", 0)
    access = access_of(path)
    path.write_bytes(b"")

    async def run() -> None:
        over = threading.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        loop.run_in_executor(None, over.wait)
        watch = asyncio.create_task(access.watch())
        while True:
            try:
                access.authorize(f"Bearer {LAB}", Right.ENCODE)
            except UnauthenticatedError:
                break
            await asyncio.sleep(0)
        watch.cancel()
        over.set()

    asyncio.run(run())


def test_a_link_may_be_swapped_as_kubernetes_does(tmp_path: Path) -> None:
    for version, content in (("1", FILE), ("2", written(other=("birnn_other", (Right.ENCODE,))))):
        (tmp_path / version).mkdir()
        (tmp_path / version / "tokens").write_bytes(content)
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    access = access_of(tmp_path / "tokens")
    (tmp_path / "..next").symlink_to("2")
    os.replace(tmp_path / "..next", tmp_path / "..data")
    access.reload()
    assert access.caller(bearer("birnn_other"), Right.ENCODE) == "name:other"


LINE = FILE.splitlines()[0]


BROKEN = [
    LINE[:-1] + b',"certificate":"x"}',
    LINE[:-1] + b',"weight":0}',
    LINE[:-1] + b',"weight":NaN}',
    LINE[:-1] + b',"weight":1e9}',
    LINE[:-1] + b',"burst":5}',
    LINE[:-1] + b',"sequences_per_second":-1}',
    b'{"name":"lab","rights":["encode"]}',
    b'{"name":"lab","certificate":"a b","rights":["encode"]}',
    b'{"name":"lab","certificate":"a","rights":[]}\n{"name":"b","certificate":"a","rights":[]}',
    b"{",
    b"[]",
    FILE + FILE,
    FILE.replace(b'"rights"', b'"right"'),
    FILE.replace(b'"encode"', b'"everything"'),
    FILE.replace(b'"lab"', b'"the lab"'),
    FILE.replace(digest_of(LAB).encode(), LAB.encode()),
    FILE.replace(b'"lab"', b'"gateway"'),
    b"\xff\xfe",
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_file_changes_nothing_and_is_logged_once(
    path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    access = access_of(path)
    path.write_bytes(content)
    with caplog.at_level(logging.INFO):
        access.reload()
        access.reload()
    (record,) = caplog.records
    assert "the tokens read earlier stay valid" in record.message
    assert LAB not in record.message
    assert len(record.message) < 1000
    assert access.caller(bearer(LAB), Right.ENCODE) == "name:lab"
    path.unlink()
    access.reload()
    assert access.caller(bearer(LAB), Right.ENCODE) == "name:lab"
    path.write_bytes(b"")
    access.reload()
    with pytest.raises(UnauthenticatedError):
        access.caller(bearer(LAB), Right.ENCODE)


def test_a_server_does_not_start_without_the_tokens_it_was_told_of(path: Path) -> None:
    path.write_bytes(b"{")
    with pytest.raises(StartupError, match="line 1"):
        access_of(path)
    path.unlink()
    with pytest.raises(StartupError, match="birnn tokens add"):
        access_of(path)


@pytest.mark.parametrize(
    "edit",
    [lambda file: b"\xef\xbb\xbf" + file, lambda file: file.replace(b"\n", b"\r\n"), lambda file: b"\n \n" + file],
)
def test_what_editors_do_to_a_file_changes_nothing(path: Path, edit: Callable[[bytes], bytes]) -> None:
    path.write_bytes(edit(FILE))
    assert access_of(path).caller(bearer(LAB), Right.ENCODE) == "name:lab"


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o644, False), (0o660, True), (0o666, True), (0o602, True)]
)
def test_a_file_that_others_may_change_is_warned_of(
    path: Path, mode: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path.chmod(mode)
    access = access_of(path)
    access.reload()
    assert caplog.text.count("chmod go-w") == warned


def test_a_line_sets_the_weight_of_its_name(path: Path) -> None:
    path.write_bytes(write_tokens([Grant(name="lab", rights=(), weight=4)]))
    access = access_of(path)
    assert [access.weight_of(caller) for caller in ("name:lab", "name:other", "lab", "ipv4:192.0.2.1")] == [4, 1, 1, 1]
    path.write_bytes(b"")
    access.reload()
    assert access.weight_of("name:lab") == 1
