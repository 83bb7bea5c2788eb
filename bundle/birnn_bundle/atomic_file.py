"""Writing a file as a whole or not at all: the one way in which files get their final names."""

import errno
import io
import os
import secrets
import shutil
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import BinaryIO, TextIO

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name))
# What exists under a temporary name -> the process that made it: a child knows what its parent does, and must not.
_temporary: dict[Path, int] = {}


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write to a temporary file beside `path` that takes its place at the end, its bytes on disk by then.

    After an error `path` is as it was, and nothing is left beside it; nor is after SIGTERM or SIGHUP. A link is
    followed. A device, such as /dev/null, is written to directly.

    Raises:
        OSError: The file cannot be written.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        with _device(path) as file:
            yield file
        return
    temporary = path.with_name(f".birnn-{os.getpid()}-{secrets.token_hex(4)}.partial")
    with removed_on_signals(temporary):
        try:
            file = temporary.open("xb")
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            finally:
                # After a failed write, closing fails once more.
                with suppress(OSError):
                    file.close()
            os.replace(temporary, path)
        finally:
            _remove(temporary)


@contextmanager
def replacing_text(path: Path) -> Iterator[TextIO]:
    """As `replacing`, for text in UTF-8 with the line ends that are written."""
    with replacing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        try:
            yield text
            text.flush()
        finally:
            # What could not be written cannot be now either.
            with suppress(OSError):
                text.detach()


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a whole file; see `replacing`."""
    with replacing(path) as file:
        file.write(content)


def replace_text(path: Path, content: str) -> None:
    """Write a whole file in UTF-8; see `replacing`."""
    replace_bytes(path, content.encode())


def flush_folder(folder: Path) -> None:
    """Have the bytes of a folder's files on disk before the folder is renamed."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def removed_on_signals(path: Path) -> Iterator[None]:
    """Remove a temporary file or folder when a signal ends the process meanwhile.

    A signal that has its default effect keeps it; one that the program handles is left to the program.
    """
    _temporary[path] = os.getpid()
    handled = _handle_signals() if threading.current_thread() is threading.main_thread() else []
    try:
        yield
    finally:
        _temporary.pop(path, None)
        for number in handled:
            # Another handler may have come meanwhile, which is not ours to take away.
            if signal.getsignal(number) is _clean_up:
                signal.signal(number, signal.SIG_DFL)


def _handle_signals() -> list[int]:
    handled = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in handled:
        signal.signal(number, _clean_up)
    return handled


def _clean_up(number: int, frame: FrameType | None) -> None:
    for path, process in list(_temporary.items()):
        if process == os.getpid():
            _remove(path)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def _device(path: Path) -> Iterator[BinaryIO]:
    if not stat.S_ISCHR(path.stat().st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    file = path.open("wb")
    try:
        yield file
        file.flush()
    finally:
        with suppress(OSError):
            file.close()
