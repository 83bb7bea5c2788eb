"""A store behind a URL: its objects listed and read, with limits on what it may send and how long it may take.

The only module that imports obstore, and only where `--models`, or an input of `birnn bulk`, is a URL. obstore takes
credentials and endpoints from the environment; it retries what may succeed the next time.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit

from birnn_bundle.errors import is_refusal
from birnn_bundle.quoting import one_line, shown, told
from birnn_service.errors import StartupError
from birnn_service.sources.options import StoreOptions
from birnn_service.sources.source import SourceError

# Of one source, those that are no part of a bundle included.
MOST_OBJECTS = 50_000
RETRIES = 5
CONNECT_SECONDS = 5.0
# By scheme: the store's class in obstore, and where its credentials come from.
KINDS = {
    "s3": ("S3Store", "AWS_*"),
    "gs": ("GCSStore", "GOOGLE_*"),
    "az": ("AzureStore", "AZURE_*"),
    "https": ("HTTPStore", ""),
    "http": ("HTTPStore", ""),
}
_ALLOW_HTTP = {"s3": "AWS_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP"}
# Statuses that say nothing about what is asked for: too slow, too often.
_LATER = (408, 429)
_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")


class UnreachableError(SourceError):
    """The store does not answer, or not in time; what it holds is not known."""


class MissingObjectError(SourceError):
    """The store answers that there is no such object."""


class ChangedObjectError(SourceError):
    """The object is another than the one that was listed."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a store lists it.

    Attributes:
        path: Below the URL.
        size: In bytes, as the store says.
        etag: Another value once the content has changed; empty where the store gives none.
        modified: When it was written last, as the store says.
    """

    path: str
    size: int
    etag: str
    modified: str = ""


class Store(Protocol):
    """What a source needs of a store. All methods run on an event loop of the source's own."""

    @property
    def name(self) -> str:
        """The store, for messages; holds no secrets."""

    @property
    def lists(self) -> bool:
        """Whether it can list its objects."""

    async def objects(self) -> list[StoredObject]:
        """All objects.

        Raises:
            SourceError: They cannot be listed, or there are too many.
        """

    def chunks(self, path: str, limit: int, etag: str = "", hint: str = "") -> AsyncIterator[bytes]:
        """The content of an object, piece by piece.

        Args:
            path: Of the object.
            limit: Most bytes.
            etag: The one it must have; empty for any.
            hint: Where the limit comes from.

        Raises:
            SourceError: It cannot be read, or has more bytes.
        """


def is_url(models: str) -> bool:
    """Whether a setting `models` means a store rather than a folder."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", models) is not None


class ObjectStore:
    """A store that obstore can read: s3://, gs://, az:// and https://."""

    def __init__(self, url: str, options: StoreOptions, argument: str = "--models") -> None:
        """Prepare to read below `url`; nothing is sent yet.

        Args:
            url: Below which its objects lie.
            options: What bounds reading.
            argument: Where the URL was given, for messages.

        Raises:
            StartupError: The URL is of no known kind, or obstore is not installed or refuses it.
        """
        self._url, self._scheme, self._options = url, _check_url(url, argument), options
        self._stall = f"{options.stall_seconds:g} seconds"
        if argument == "--models":
            self._stall += " (--source-stall-seconds)"
        try:
            import obstore
            import obstore.store
        except ModuleNotFoundError:
            raise StartupError(
                f"{argument} {self._scheme}:// needs the Python package 'obstore', which is not installed: "
                "pip install 'birnn-serving[sources]'"
            ) from None
        self._obstore = obstore
        kind, self._variables = KINDS[self._scheme]
        variable = _ALLOW_HTTP.get(self._scheme, "")
        try:
            self._store: Any = getattr(obstore.store, kind).from_url(
                url,
                client_options={
                    # These options replace those of the environment, so this one is read here.
                    "allow_http": self._scheme == "http" or os.environ.get(variable, "").lower() in ("true", "1"),
                    "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                    # A request that has stalled is tried again before the whole fetch counts as stalled.
                    "read_timeout": timedelta(seconds=options.stall_seconds / 3),
                    "timeout": timedelta(seconds=options.most_seconds),
                },
                retry_config={
                    "max_retries": RETRIES,
                    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2), "base": 2},
                    "retry_timeout": timedelta(seconds=options.stall_seconds / 2),
                },
            )
        except BaseException as error:
            if not is_refusal(error):
                raise
            raise StartupError(f"cannot use {argument} {url}: {_text_of(error)}") from error

    @property
    def name(self) -> str:
        """The URL."""
        return self._url

    @property
    def lists(self) -> bool:
        """Plain HTTP has no listing."""
        return self._scheme not in ("http", "https")

    async def objects(self) -> list[StoredObject]:
        """All objects; see `Store.objects`."""
        found: list[StoredObject] = []
        with self._translated("its list of objects"):
            pages = aiter(self._store.list(chunk_size=1000))
            while page := await self._next(pages):
                found += [
                    StoredObject(each["path"], each["size"], each["e_tag"] or "", each["last_modified"].isoformat())
                    for each in page
                ]
                if len(found) > MOST_OBJECTS:
                    raise SourceError(f"{self._url} holds more than {MOST_OBJECTS} objects; give a narrower prefix")
        return found

    async def chunks(self, path: str, limit: int, etag: str = "", hint: str = "") -> AsyncIterator[bytes]:
        """The content of an object; see `Store.chunks`."""
        left = limit
        with self._translated(told(path)):
            options: Any = {"if_match": etag} if etag else {}
            async with asyncio.timeout(self._options.stall_seconds):
                reply = await self._obstore.get_async(self._store, path, options=options)
            pieces = aiter(reply.stream(min_chunk_size=1))
            while piece := await self._next(pieces):
                left -= len(piece)
                if left < 0:
                    because = f": {hint}" if hint else ""
                    raise SourceError(
                        f"{told(path)} in {self._url} has more than the {limit} bytes that it may have{because}"
                    )
                yield bytes(piece)

    async def object(self, path: str) -> StoredObject:
        """What the store says of one object.

        Raises:
            SourceError: It does not say.
        """
        with self._translated(told(path)):
            async with asyncio.timeout(self._options.stall_seconds):
                found = await self._obstore.head_async(self._store, path)
        return StoredObject(path, found["size"], found["e_tag"] or "", found["last_modified"].isoformat())

    async def read(self, path: str, start: int, end: int, etag: str = "") -> bytes:
        """The bytes of an object from `start` up to `end`; `etag` as for `Store.chunks`.

        Raises:
            SourceError: They cannot be read.
        """
        with self._translated(told(path)):
            options: Any = {"range": (start, end)} | ({"if_match": etag} if etag else {})
            async with asyncio.timeout(self._options.most_seconds):
                reply = await self._obstore.get_async(self._store, path, options=options)
                return bytes(await reply.bytes_async())

    async def _next(self, parts: AsyncIterator[Any]) -> Any:
        """The next part, None after the last one."""
        async with asyncio.timeout(self._options.stall_seconds):
            return await anext(parts, None)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Turn what obstore raises into errors that say what to do."""
        errors = self._obstore.exceptions
        try:
            yield
        except (SourceError, GeneratorExit):
            raise
        except TimeoutError as error:
            raise UnreachableError(f"{self._url} sent nothing of {what} for {self._stall}") from error
        except (FileNotFoundError, errors.NotFoundError) as error:
            raise MissingObjectError(f"{self._url} holds no {what}") from error
        except errors.PreconditionError as error:
            raise ChangedObjectError(f"{what} has changed in {self._url} since it was listed; try again") from error
        except errors.InvalidPathError as error:
            raise SourceError(f"{self._url} holds an object whose name is no path: {_text_of(error)}") from error
        except BaseException as error:
            if not is_refusal(error):
                raise
            status = _status_of(error)
            if status in (401, 403):
                advice = f"; check the credentials in the variables {self._variables}" if self._variables else ""
                raise SourceError(f"{self._url} refuses access to {what}{advice}: {_text_of(error)}") from error
            if status is not None and 300 <= status < 500 and status not in _LATER:
                raise SourceError(f"{self._url} does not give {what}: {_text_of(error)}") from error
            raise UnreachableError(
                f"cannot read {what} from {self._url}, with {RETRIES} retries in at most "
                f"{self._stall}: {_text_of(error)}"
            ) from error


def _check_url(url: str, argument: str) -> str:
    """The scheme of a URL that can be read.

    Raises:
        StartupError: It is none.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        raise StartupError(f"{argument} {shown(url)} is no URL: {error}") from None
    if parts.username is not None or parts.query or parts.fragment or parts.password is not None:
        raise StartupError(
            f"{argument} is a URL with a user, a query or a fragment; give scheme, host and path only, and credentials "
            "as variables of the environment"
        )
    if parts.scheme not in KINDS or not host:
        raise StartupError(
            f"{argument} {shown(url)} is of no known kind: give a folder, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, "
            "az://CONTAINER/PREFIX or https://HOST/PATH"
        )
    if parts.scheme == "http" and host not in _THIS_MACHINE:
        raise StartupError(
            f"{argument} {shown(url)}: anyone on the network path could change what it holds; give an https:// URL"
        )
    return parts.scheme


def _status_of(error: BaseException) -> int | None:
    """The status with which a store has answered; None where it has not. obstore says it in the text only."""
    found = re.search(r"status code: (\d{3})", str(error).partition("\n\nDebug source")[0])
    return int(found[1]) if found else None


def _text_of(error: BaseException) -> str:
    """What obstore says, without its debug output, and without queries of URLs: they may hold signatures."""
    text = str(error).partition("\n\nDebug source")[0]
    return one_line(re.sub(r"\?[^\s)]*", "?...", text), most=500) or type(error).__name__
