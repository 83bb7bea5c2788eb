"""Methods whose messages are protobuf's."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message

from birnn_bundle.quoting import shown
from birnn_service.call import Call, Feed, Method
from birnn_service.errors import InvalidRequestError
from birnn_service.protocols.wire import Limit, check_counts

M = TypeVar("M", bound=Message)
NO_LIMITS: Mapping[int, Limit] = MappingProxyType({})


def method(
    name: str,
    kind: type[Message],
    answer: Callable[[Any, Call], Awaitable[bytes]],
    limits: Mapping[int, Limit] = NO_LIMITS,
    encoder: Callable[[Any], tuple[str, str]] | None = None,
) -> Method:
    """A method.

    Args:
        name: Its name.
        kind: Type of its requests.
        answer: Answers one; see `Method`.
        limits: How many elements a request may hold, by field number; other fields occur once.
        encoder: Which encoder a request is for; see `Method`.
    """
    return Method(name, partial(read_message, name, kind, limits=limits), answer, encoder)


def simple(name: str, kind: type[Message], answer: Callable[[Any], Message]) -> Method:
    """A method that answers at once, whatever the server is doing."""

    async def serialized(request: Message, call: Call) -> bytes:
        return answer(request).SerializeToString()

    return method(name, kind, serialized)


def feed(name: str, kind: type[Message], replies: Callable[[Any], AsyncIterator[Message]]) -> Feed:
    """A method whose replies do not end by themselves."""

    async def serialized(request: Message) -> AsyncIterator[bytes]:
        async for reply in replies(request):
            yield reply.SerializeToString()

    return Feed(name, partial(read_message, name, kind), serialized)


def read_message(name: str, kind: type[M], message: bytes, limits: Mapping[int, Limit] = NO_LIMITS) -> M:
    """Read a message of a method.

    Raises:
        InvalidRequestError: It holds too many elements, or is of another kind.
    """
    check_counts(message, limits)
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidRequestError(f"the request is no {name} message: {shown(str(error), 200)}") from error
