import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn.openinference import inference_pb2 as pb
from birnn_service.errors import InvalidRequestError
from birnn_service.protocols.openinference.inputs import unpack_bytes
from birnn_service.protocols.openinference.ragged_tensors import INPUT_IDS, LENGTHS, read_ragged_tensors


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


IDS = st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=6), min_size=1, max_size=8)
Tensor = pb.ModelInferRequest.InferInputTensor


def ids_request(rows: list[list[int]], raw: bool) -> pb.ModelInferRequest:
    flat, lengths = [number for row in rows for number in row], [len(row) for row in rows]
    request = pb.ModelInferRequest(
        inputs=[
            Tensor(name=INPUT_IDS, datatype="INT32", shape=[len(flat)]),
            Tensor(name=LENGTHS, datatype="INT32", shape=[len(rows)]),
        ]
    )
    for tensor, values in zip(request.inputs, (flat, lengths), strict=True):
        if raw:
            request.raw_input_contents.append(np.array(values, "<i4").tobytes())
        else:
            tensor.contents.int_contents.extend(values)
    return request


@given(IDS, st.booleans())
def test_packed_ids_come_back(rows: list[list[int]], raw: bool) -> None:
    batch = read_ragged_tensors(ids_request(rows, raw), INPUT_IDS, 8)
    assert batch.holds_ids
    assert [batch.row(number).tolist() for number in range(len(batch))] == rows


@given(IDS, st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9))
def test_lengths_of_other_ids_are_refused(rows: list[list[int]], lengths: list[int]) -> None:
    request = ids_request(rows, raw=True)
    request.raw_input_contents[1] = np.array(lengths, "<i4").tobytes()
    request.inputs[1].shape[:] = [len(lengths)]
    count = sum(map(len, rows))
    if min(lengths, default=0) >= 0 and sum(lengths) == count and len(lengths) <= 8:
        assert read_ragged_tensors(request, INPUT_IDS, 8).lengths.tolist() == lengths
    else:
        with pytest.raises(InvalidRequestError, match=r"'lengths' adds up to|accepts 8 in a call"):
            read_ragged_tensors(request, INPUT_IDS, 8)


TENSORS = st.builds(
    Tensor,
    name=st.sampled_from([INPUT_IDS, LENGTHS, "text", ""]),
    datatype=st.sampled_from(["INT32", "FP32", "BYTES", ""]),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3), max_size=3),
    contents=st.builds(pb.InferTensorContents, int_contents=st.lists(st.integers(-4, 4), max_size=4)),
)


@given(st.lists(TENSORS, max_size=3), st.lists(st.binary(max_size=16), max_size=3))
def test_any_tensors_are_read_or_refused(tensors: list[Tensor], raw: list[bytes]) -> None:
    with suppress(InvalidRequestError):
        batch = read_ragged_tensors(pb.ModelInferRequest(inputs=tensors, raw_input_contents=raw), INPUT_IDS, 8)
        assert batch.lengths.sum() == batch.tokens
