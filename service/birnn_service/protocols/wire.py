"""Counts what a serialized protobuf message holds, before protobuf makes objects of it.

A message of 16 MiB can hold eight million empty strings, which take protobuf a second and half a gigabyte to read. The
scan here stops at the first element beyond a limit, so it costs what a legal request costs, whatever the message holds.
It only counts: what is malformed is left to protobuf.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from birnn_service.errors import InvalidRequestError

# A message this small is read as it is: protobuf takes microseconds for whatever it holds.
SMALL_BYTES = 4096
# Of fields that have no limit of their own: a legal message holds each of these once.
MOST_OTHERS = 64
LONGEST_VARINT = 10
_CONTINUATIONS = bytes(range(0x80, 0x100))
# Kinds of fields on the wire, protobuf.dev/programming-guides/encoding.
_VARINT, _BYTES, _GROUPS, _FIXED = 0, 2, (3, 4), {1: 8, 5: 4}


@dataclass(frozen=True, slots=True)
class Limit:
    """How many elements of one field a message may hold.

    Attributes:
        name: What the elements are, plural, for the error.
        most: Most of them.
        advice: What to do about more.
        width: Bytes of an element where the field is packed: 4 or 8, or 0 for varints. None where it is not packed.
        inside: Limits within each element, by field number, where the elements are messages.
    """

    name: str
    most: int
    advice: str = "leave some out"
    width: int | None = None
    inside: Mapping[int, "Limit"] = field(default_factory=dict)


def check_counts(message: bytes, limits: Mapping[int, Limit]) -> None:
    """Check that a message holds no more elements than allowed.

    Args:
        message: As it came.
        limits: By field number. Fields without a limit may come `MOST_OTHERS` times in all.

    Raises:
        InvalidRequestError: It holds more; the message names the limit.
    """
    if len(message) <= SMALL_BYTES:
        return
    # A message that ends within a field is left to protobuf, which refuses it.
    try:
        _scan(message, 0, len(message), limits)
    except IndexError:
        return


def _scan(message: bytes, position: int, end: int, limits: Mapping[int, Limit]) -> None:
    counts = dict.fromkeys(limits, 0)
    others = 0
    while position < end:
        key, position = _varint(message, position)
        start, position = _skip(message, position, key & 7)
        number = key >> 3
        limit = limits.get(number)
        # A packed field is written once, whatever it holds.
        if limit is None or limit.width is not None:
            others += 1
            if others > MOST_OTHERS:
                raise InvalidRequestError(
                    f"the request holds more than {MOST_OTHERS} fields that a message holds once, or that are unknown"
                )
        if limit is None:
            continue
        counts[number] += 1
        if key & 7 == _BYTES:
            if limit.width is not None:
                # Content longer than this holds too many elements in any case.
                stop = min(position, end, start + LONGEST_VARINT * (limit.most + 1))
                counts[number] += _packed(message[start:stop], limit) - 1
            elif limit.inside:
                _scan(message, start, min(position, end), limit.inside)
            elif key < 0x80:
                more, position = _run(message, position, end, key, limit.most - counts[number])
                counts[number] += more
        if counts[number] > limit.most:
            raise InvalidRequestError(f"the request holds more than {limit.most} {limit.name}; {limit.advice}")


def _skip(message: bytes, position: int, kind: int) -> tuple[int, int]:
    """Where the content of a field begins and ends."""
    if kind == _BYTES:
        size, position = _varint(message, position)
        return position, position + size
    if kind == _VARINT:
        return position, _varint(message, position)[1]
    if kind in _FIXED:
        return position, position + _FIXED[kind]
    # What a group holds is counted as if it were the message's own.
    if kind in _GROUPS:
        return position, position
    raise IndexError


def _run(message: bytes, position: int, end: int, key: int, most: int) -> tuple[int, int]:
    """Count elements that follow one another, up to one more than `most`, by their key of one byte.

    Returns:
        How many there are, and where they end.
    """
    count = 0
    while count <= most and position < end and message[position] == key:
        size = message[position + 1]
        if size < 0x80:
            position += 2 + size
        else:
            size, position = _varint(message, position + 1)
            position += size
        count += 1
    return count, position


def _packed(content: bytes, limit: Limit) -> int:
    """Elements of a packed field; each varint ends with the one byte whose highest bit is clear."""
    return len(content) // limit.width if limit.width else len(content.translate(None, _CONTINUATIONS))


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """A varint at a position, and where it ends."""
    byte = message[position]
    position += 1
    if byte < 0x80:
        return byte, position
    value = byte & 0x7F
    for shift in range(7, 7 * LONGEST_VARINT, 7):
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    # Longer than any varint: protobuf will say so.
    raise IndexError
