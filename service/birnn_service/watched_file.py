"""A small file that says who may call, read again when it changes."""

import logging
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from birnn_service.errors import StartupError

logger = logging.getLogger(__name__)

Content = TypeVar("Content")

# A file that is written in place is empty, or half there, for a moment. Changes count once two reads, this many seconds
# apart, agree; of a file that never rests the last read counts.
SETTLING_SECONDS = 0.1
SETTLING_READS = 20


class WatchedFile(Generic[Content]):
    """What a file says, and said last where it cannot be read any more.

    Attributes:
        content: What it says.
    """

    def __init__(self, path: Path, what: str, read: Callable[[bytes], Content], advice: str) -> None:
        """Read the file.

        Args:
            path: Where it is; may be a link, or lie behind one that is swapped.
            what: What is in it, for messages.
            read: Reads it; raises ValueError or another error that says what is wrong and quotes nothing.
            advice: What to do if it cannot be read.

        Raises:
            StartupError: It cannot be read.
        """
        self._path = path
        self._what = what
        self._read = read
        self._problem = ""
        try:
            self._raw: bytes | None = path.read_bytes()
            self.content = read(self._raw)
        except Exception as error:
            raise StartupError(f"cannot read the {what} in {path}: {error}; {advice}") from error
        self._check_mode()

    def reload(self) -> bool:
        """Read the file again; if it is broken, keep what there was and log the reason once.

        The whole file is read every time: it is small, and a modification time does not reliably show changes.

        Returns:
            Whether it says something else now.
        """
        try:
            raw = self._settled()
            if raw == self._raw:
                self._problem = ""
                return False
            content = self._read(raw)
        except Exception as error:
            if str(error) != self._problem:
                self._problem = str(error)
                logger.error(
                    "cannot read the %s in %s: %s; the %s read earlier stay valid",
                    self._what, self._path, error, self._what,
                )  # fmt: skip
            return False
        self._problem, self._raw = "", raw
        if content == self.content:
            return False
        self.content = content
        logger.info("read the %s in %s again", self._what, self._path)
        self._check_mode()
        return True

    def _settled(self) -> bytes:
        """What the file holds, once it is written to the end."""
        raw = self._path.read_bytes()
        if raw == self._raw:
            return raw
        for _ in range(SETTLING_READS):
            time.sleep(SETTLING_SECONDS)
            before, raw = raw, self._path.read_bytes()
            if raw == before:
                break
        return raw

    def _check_mode(self) -> None:
        """Warn where others may change who may call. Reading the file does not allow calls."""
        if self._path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            logger.warning(
                "other users of this machine may change the %s in %s; run `chmod go-w` on it", self._what, self._path
            )
