import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_service.errors import InvalidRequestError
from birnn_service.protocols.openinference.service import unpack_bytes


def pack(strings: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(string)) + string for string in strings)


@given(st.lists(st.binary(max_size=20), max_size=20))
def test_packed_strings_come_back(strings: list[bytes]) -> None:
    assert unpack_bytes(pack(strings), 20) == strings


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5), st.data())
def test_contents_cut_within_an_element_are_refused(strings: list[bytes], data: st.DataObject) -> None:
    last = 4 + len(strings[-1])
    cut = data.draw(st.integers(1, last - 1))
    with pytest.raises(InvalidRequestError, match="end within"):
        unpack_bytes(pack(strings)[:-cut], 20)


@given(st.binary(max_size=60))
def test_any_bytes_are_unpacked_or_refused(raw: bytes) -> None:
    try:
        strings = unpack_bytes(raw, 20)
    except InvalidRequestError:
        return
    assert pack(strings) == raw
