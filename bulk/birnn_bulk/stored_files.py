"""Files in a store, read by ranges: what a reader asks for next, and a few MiB ahead."""

import asyncio
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from birnn_bulk.plan import BulkError
from birnn_bundle.sequences import Stream
from birnn_service.errors import StartupError
from birnn_service.sources.options import StoreOptions
from birnn_service.sources.source import SourceError
from birnn_service.sources.store import ObjectStore, StoredObject

# Of text, which is read from start to end; pages of Parquet are asked for as they are.
AHEAD_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An object of a store; see `birnn_bulk.inputs.Found`.

    Attributes:
        name: Its URL.
        store: Where it lies.
        object: What the store says of it.
    """

    name: str
    store: ObjectStore
    object: StoredObject

    @classmethod
    def at(cls, url: str) -> "StoredFile":
        """The object at a URL.

        Raises:
            BulkError: There is none, or it cannot be reached.
        """
        above, _, path = url.rpartition("/")
        try:
            store = ObjectStore(above, StoreOptions(), "INPUT")
            return cls(url, store, asyncio.run(store.object(path)))
        except (SourceError, StartupError) as error:
            raise BulkError(str(error)) from error

    @property
    def size(self) -> int:
        """In bytes."""
        return self.object.size

    def text(self) -> Stream:
        """The object as a stream."""
        return Stream(self.name, io.BufferedReader(_Ranges(self), AHEAD_BYTES), self.size)

    def binary(self) -> Any:
        """The object as a file."""
        return _Ranges(self)

    def digest(self) -> str:
        """Its ETag, or where the store gives none when it was written."""
        return f"etag:{self.object.etag}" if self.object.etag else f"modified:{self.object.modified}"


def files_below(url: str) -> Iterator[StoredFile]:
    """All objects below a URL, by name, without those whose names begin with a dot or an underscore.

    Raises:
        BulkError: They cannot be listed.
    """
    try:
        store = ObjectStore(url.rstrip("/"), StoreOptions(), "INPUT")
        if not store.lists:
            raise BulkError(f"{url}: plain HTTP lists no files; give the URL of each")
        objects = asyncio.run(store.objects())
    except (SourceError, StartupError) as error:
        raise BulkError(str(error)) from error
    for each in sorted(objects, key=lambda each: each.path):
        if not any(step.startswith((".", "_")) for step in each.path.split("/")):
            yield StoredFile(f"{store.name}/{each.path}", store, each)


class _Ranges(io.RawIOBase):
    """An object as a file that can be read anywhere; it must stay the object that was found."""

    def __init__(self, file: StoredFile) -> None:
        self._file, self._position = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._file.size)
        if end <= self._position:
            return 0
        stored = self._file.object
        try:
            piece = asyncio.run(self._file.store.read(stored.path, self._position, end, stored.etag))
        except SourceError as error:
            raise BulkError(f"{self._file.name}: {error}") from error
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)
