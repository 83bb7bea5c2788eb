import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn_service.errors import InvalidRequestError
from birnn_service.protocols import json_text
from birnn_service.protocols.json_text import count_values, parse_json, read_json, write_numbers

MIB = 1 << 20
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def values_in(value: Any) -> int:
    if isinstance(value, dict):
        return sum(2 + values_in(inner) for inner in value.values())
    return sum(1 + values_in(inner) for inner in value) if isinstance(value, list) else 0


@given(VALUES, st.booleans())
def test_the_count_is_never_less_than_half_of_what_there_is(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert 2 * count_values(text, 1 << 30) >= values_in(value)


@given(st.lists(st.text(alphabet='\\",[{]}x')))
def test_nothing_within_strings_is_counted(strings: list[str]) -> None:
    assert count_values(json.dumps(strings).encode(), 1 << 30) == max(1, len(strings))


@given(st.text(alphabet='\\",[{]}x: '))
def test_any_text_is_counted(text: str) -> None:
    assert count_values(text.encode(), 1 << 30) <= len(text)


@pytest.mark.parametrize("plain", [0, 1, 4095, 4096, 4097, 5_000_000])
def test_long_strings_with_escapes_end_where_they_end(plain: int) -> None:
    text = json.dumps(["x" * plain + '"\\' * 5000 + "x" * plain, "", '\\"' * 3]).encode()
    assert count_values(text, 1 << 30) == 3


@pytest.mark.parametrize(
    "text",
    [
        b"[" * (16 * MIB),
        b'{"input":[' + b'"",' * (5 * MIB) + b'""]}',
        b"[" + b"1," * (8 * MIB) + b"1]",
        b"[" + b"{}," * (5 * MIB) + b"{}]",
        b'[{"":' * (3 * MIB),
        b'{"a":1,' + b'"a":1,' * (2 * MIB) + b'"a":1}',
    ],
)
def test_more_values_than_allowed_are_refused_before_they_are_read(
    text: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To count takes some ten milliseconds, to read a second.
    monkeypatch.setattr(json_text, "orjson", None)
    with pytest.raises(InvalidRequestError, match="more than 20000 values"):
        parse_json(text, 20_000)


@pytest.mark.parametrize("text", [b"", b"[", b'"', b"\\", b'"\\', b"nul", b"\xff", b'"\\ud800"', b"NaN", b"[" * 60_000])
async def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="no JSON"):
        await read_json(text, 10)


async def test_long_text_is_read_too() -> None:
    value = {"input": ["x" * 1000] * 1000}
    assert await read_json(json.dumps(value).encode(), 2000) == value


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<i4"])
@pytest.mark.parametrize("count", [0, 1, 1 << 14, (1 << 14) + 1, 100_000])
def test_numbers_read_back_the_same(dtype: str, count: int) -> None:
    numbers = (np.random.default_rng(0).standard_normal(count) * 100).astype(dtype)
    assert np.array_equal(np.array(json.loads(b"".join(write_numbers(numbers))), dtype=dtype), numbers)


def test_what_is_no_number_is_null() -> None:
    assert b"".join(write_numbers(np.array([[1.5, np.nan], [2, np.inf]], dtype=np.float32))) == b"[1.5,null,2.0,null]"
