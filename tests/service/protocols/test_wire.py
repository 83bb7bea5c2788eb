from contextlib import suppress

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from birnn.openinference import inference_pb2 as oip
from birnn.v1 import encoder_pb2 as pb
from birnn_service.errors import InvalidRequestError
from birnn_service.protocols.wire import MOST_OTHERS, SMALL_BYTES, Limit, check_counts

# So long that no message is read without being counted.
LONG = b"x" * (SMALL_BYTES + 1)


def encode_limits(most: int) -> dict[int, Limit]:
    return {3: Limit("sequences", most), 8: Limit("lengths", most, width=0)}


@given(
    st.lists(st.binary(max_size=300), max_size=20),
    st.lists(st.integers(0, 2**32 - 1), max_size=20),
    st.integers(0, 20),
)
def test_elements_are_counted_as_protobuf_counts_them(sequences: list[bytes], lengths: list[int], most: int) -> None:
    message = pb.EncodeRequest(features=LONG, sequences=sequences, lengths=lengths, encoder="e").SerializeToString()
    if max(len(sequences), len(lengths)) <= most:
        check_counts(message, encode_limits(most))
    else:
        with pytest.raises(InvalidRequestError, match=f"more than {most} (sequences|lengths)"):
            check_counts(message, encode_limits(most))


def varint(value: int, spare: int) -> bytes:
    """A varint with so many bytes more than it needs, which protobuf reads all the same."""
    written = []
    while value > 0x7F or spare:
        spare -= value <= 0x7F
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


@given(
    st.lists(st.tuples(st.binary(max_size=200), st.integers(0, 3), st.integers(0, 2)), max_size=12), st.integers(0, 12)
)
def test_no_spelling_of_a_field_escapes(fields: list[tuple[bytes, int, int]], most: int) -> None:
    spelled = [varint(3 << 3 | 2, key) + varint(len(text), size) + text for text, key, size in fields]
    message = b"".join(spelled) + pb.EncodeRequest(features=LONG).SerializeToString()
    assert list(pb.EncodeRequest.FromString(message).sequences) == [text for text, _, _ in fields]
    if len(fields) <= most:
        check_counts(message, encode_limits(most))
    else:
        with pytest.raises(InvalidRequestError, match=f"more than {most} sequences"):
            check_counts(message, encode_limits(most))


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_elements_within_elements_are_counted_in_each(first: int, second: int, most: int) -> None:
    tensors = [oip.ModelInferRequest.InferInputTensor(name="t", shape=[7] * count) for count in (first, second)]
    message = oip.ModelInferRequest(inputs=tensors, raw_input_contents=[LONG]).SerializeToString()
    limits = {5: Limit("inputs", 2, inside={3: Limit("dimensions", most, width=0)}), 7: Limit("raw contents", 1)}
    if max(first, second) <= most:
        check_counts(message, limits)
    else:
        with pytest.raises(InvalidRequestError, match=f"more than {most} dimensions"):
            check_counts(message, limits)


@given(st.integers(0, 2 * MOST_OTHERS))
def test_fields_that_occur_once_may_not_come_again_and_again(count: int) -> None:
    message = pb.EncodeRequest(encoder="e").SerializeToString() * count + b"\x1a\x88\x27" + b"C" * 5000
    if count <= MOST_OTHERS:
        check_counts(message, encode_limits(1))
    else:
        with pytest.raises(InvalidRequestError, match=f"more than {MOST_OTHERS} fields"):
            check_counts(message, encode_limits(1))


@settings(max_examples=300)
@given(st.lists(st.sampled_from([b"\x1a\x00", b"\x42\x01\x01", b"\x0b", b"\x0c", b"\x1a", b"\x9a", b"\x01", b"\xff"])))
def test_what_protobuf_reads_of_junk_is_within_the_limits(junk: list[bytes]) -> None:
    message = b"".join(junk) + pb.EncodeRequest(features=LONG).SerializeToString()
    with suppress(InvalidRequestError, DecodeError):
        check_counts(message, encode_limits(2))
        request = pb.EncodeRequest.FromString(message)
        assert len(request.sequences) <= 2
        assert len(request.lengths) <= 2
