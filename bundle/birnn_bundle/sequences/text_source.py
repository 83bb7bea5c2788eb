"""The text of a file, line by line: decompressed and decoded as its first bytes say, in bounded memory."""

import gzip
import io
import lzma
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

LONGEST_LINE = 1 << 24
"""Most characters of a line; it bounds the memory that a damaged file can take."""

_GZIP, _XZ, _ZSTANDARD = b"\x1f\x8b", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd"
ARCHIVES = {".gz": "gzip", ".xz": "xz", ".zst": "Zstandard"}
"""Kinds of compression by the suffixes of files."""
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_NOT_TEXT = (
    (re.compile(rb"PK(\x03\x04|\x05\x06)"), "a ZIP file, as Excel's .xlsx files are; save it as .csv"),
    (re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), "an old Excel or Word file; save it as .csv"),
    (re.compile(rb"PAR1\x15"), "a Parquet file; `birnn bulk` reads it, or save the column of sequences as .csv"),
    (re.compile(rb"ARROW1\x00\x00"), "an Arrow file; save the column of sequences as .csv"),
    (re.compile(rb"BZh[1-9]1AY&SY"), "compressed with bzip2; decompress it, or use .gz or .xz"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), "compressed twice, with Zstandard last; decompress it once"),
    (re.compile(rb"\x89HDF\r\n\x1a\n"), "an HDF5 file"),
    (re.compile(rb"\x93NUMPY"), "an array of NumPy"),
    (re.compile(rb"%PDF-"), "a PDF file"),
    (re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8[79]a"), "a picture"),
    (re.compile(rb"SQLite format 3\x00"), "an SQLite database"),
)


class SequenceFileError(Exception):
    """A file cannot be read; the message says which, where and what to do."""


@dataclass(frozen=True, slots=True)
class Stream:
    """An open file that has no path, as one in a store.

    Attributes:
        name: For messages; its suffixes tell what it holds, like those of a path.
        file: Its content, from the beginning; closed with the source.
        size: In bytes.
    """

    name: str
    file: io.BufferedReader
    size: int


class TextSource:
    """A text file, read once from start to end.

    Files compressed with gzip, xz or Zstandard are decompressed. UTF-8 is read with or without a byte order mark,
    UTF-16 and UTF-32 with one. Lines end with LF, CR LF or CR.

    Args:
        place: The file; None for standard input.

    Attributes:
        name: The file's name, for messages.

    Raises:
        SequenceFileError: The file cannot be opened, or is not text.
    """

    def __init__(self, place: Path | Stream | None) -> None:
        self.name = name_of(place)
        self._line = 0
        with self._explained():
            self._raw = place.file if isinstance(place, Stream) else _opened(place)
            try:
                self._size = _size_of(place)
                content = _decompressed(self._raw, "" if place is None else Path(self.name).suffix.lower())
                encoding, self._errors = _encoding(content.peek(4096))
                self._text = io.TextIOWrapper(content, encoding=encoding, errors=self._errors, newline="")
            except BaseException:
                self._close_raw()
                raise

    def close(self) -> None:
        """Close the file; standard input stays open."""
        # What is dropped undetached closes what lies below.
        with suppress(ValueError, OSError):
            self._text.detach()
        self._close_raw()

    def lines(self) -> Iterator[str]:
        """The rest of the lines with their ends. Bytes that are not UTF-8 become surrogates; see `to_bytes`.

        Raises:
            SequenceFileError: The file is damaged, or a line is longer than `LONGEST_LINE`.
        """
        with self._explained():
            while line := self._text.readline(LONGEST_LINE + 1):
                self._line += 1
                if len(line) > LONGEST_LINE:
                    raise SequenceFileError(
                        f"{self.name}, line {self._line}: is longer than the limit of {LONGEST_LINE:,} characters; "
                        "is it a file of text?"
                    )
                yield line

    def to_bytes(self, text: str) -> bytes:
        """A part of a line as UTF-8. What was not valid in the file is not valid here either."""
        return text.encode("utf-8", self._errors)

    def fraction(self) -> float | None:
        """About how much of the file has been read, from 0 to 1; None where its size is not known."""
        return min(1.0, self._raw.tell() / self._size) if self._size else None

    def _close_raw(self) -> None:
        if self.name != "standard input":
            self._raw.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except _NotTextError as error:
            raise SequenceFileError(f"{self.name}: {error}") from error
        except (EOFError, lzma.LZMAError, gzip.BadGzipFile, zlib.error) as error:
            raise SequenceFileError(f"{self.name}: damaged or cut off ({error})") from error
        except UnicodeDecodeError as error:
            where = f"after line {self._line}" if self._line else "at its beginning"
            raise SequenceFileError(f"{self.name}: not valid {error.encoding} {where} ({error.reason})") from error
        except OSError as error:
            raise SequenceFileError(f"{self.name}: {error.strerror or error}") from error


class _NotTextError(Exception):
    """What a file is instead of text."""


def name_of(place: Path | Stream | None) -> str:
    """What a file is called in messages."""
    if place is None:
        return "standard input"
    return place.name if isinstance(place, Stream) else str(place)


def _size_of(place: Path | Stream | None) -> int:
    if isinstance(place, Stream):
        return place.size
    return place.stat().st_size if place is not None and place.is_file() else 0


def _opened(path: Path | None) -> Any:
    if path is None:
        if sys.stdin is None:
            raise _NotTextError("is closed")
        source = sys.stdin.buffer
        return source if hasattr(source, "peek") else io.BufferedReader(cast(io.RawIOBase, source))
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise _NotTextError("is a folder, not a file")
    # A shell's <(command) is a pipe as well, but one that is open already and has no name of its own.
    if stat.S_ISFIFO(mode) and path.resolve().exists():
        raise _NotTextError("is a named pipe; read it through standard input: --file - < PIPE")
    return path.open("rb")


def _decompressed(raw: Any, suffix: str) -> Any:
    head = raw.peek(16)
    if head.startswith(_GZIP):
        return gzip.open(cast(BinaryIO, raw), "rb")
    if head.startswith(_XZ):
        return lzma.open(cast(BinaryIO, raw), "rb")
    if head.startswith(_ZSTANDARD):
        return _from_zstandard(raw)
    if suffix in ARCHIVES:
        raise _NotTextError(f"damaged or cut off: its name ends in {suffix}, but it is not a {ARCHIVES[suffix]} file")
    return raw


def _from_zstandard(raw: Any) -> Any:
    """pyarrow decompresses: Python's own library has no Zstandard before 3.14."""
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise _NotTextError(
            "is compressed with Zstandard, which needs pyarrow: pip install 'birnn-serving[bulk]'; or decompress it"
        ) from None
    return io.BufferedReader(_Readable(pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), "zstd")))


class _Readable(io.RawIOBase):
    """A stream of pyarrow as one of Python's."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._stream.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def _encoding(head: bytes) -> tuple[str, str]:
    """Encoding of a text that begins with `head`, and how to treat what is not valid in it."""
    for pattern, what in _NOT_TEXT:
        if pattern.match(head):
            raise _NotTextError(f"is not text but {what}")
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, "surrogatepass"
    for first, encoding in ((1, "UTF-16LE"), (0, "UTF-16BE")):
        # In UTF-16 every other byte of most texts is zero; in UTF-8 none is.
        high, low = head[first::2], head[1 - first :: 2]
        if len(high) > 1 and high.count(0) > 0.5 * len(high) and not low.count(0):
            raise _NotTextError(
                f"looks like UTF-16 without a byte order mark; convert it: iconv -f {encoding} -t UTF-8"
            )
    return "utf-8-sig", "surrogateescape"
