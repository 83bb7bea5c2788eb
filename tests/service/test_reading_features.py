import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from birnn.openinference import inference_pb2 as pb
from birnn_bundle.errors import ItemErrorCode
from birnn_bundle.ragged import RaggedBatch
from birnn_service.errors import InvalidRequestError
from birnn_service.protocols.openinference.ragged_tensors import FEATURES, read_ragged_tensors
from birnn_service.reading import batch_of, check_width, read_features

LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=8)


def rows(lengths: list[int], width: int = 3) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(len(lengths))
    return [random.standard_normal((length, width), dtype=np.float32) for length in lengths]


@given(LENGTHS)
def test_sequences_come_back_from_their_bytes(lengths: list[int]) -> None:
    sent = rows(lengths)
    batch = batch_of(b"".join(row.tobytes() for row in sent), lengths)
    assert batch.lengths.tolist() == lengths
    for number, row in enumerate(sent):
        assert batch.row(number).tobytes() == row.tobytes()


@pytest.mark.parametrize(("size", "lengths"), [(25, [1, 1]), (12, [2]), (4, []), (4, [0]), (24, [2**32 - 1, 5])])
def test_bytes_that_are_not_of_so_many_steps_are_refused(size: int, lengths: list[int]) -> None:
    with pytest.raises(InvalidRequestError, match=r"which are not \d+ steps"):
        batch_of(bytes(size), lengths)


def test_bad_sequences_fail_alone_and_long_ones_can_be_cut() -> None:
    sent = rows([2, 0, 4, 9, 3])
    sent[2][1, 2] = np.nan
    sent[4][0, 0] = -np.inf
    batch = RaggedBatch.from_features(sent)
    found = read_features(batch, max_length=5, truncate=False)
    assert [(error.index, error.code) for error in found.errors] == [
        (1, ItemErrorCode.EMPTY),
        (2, ItemErrorCode.NOT_FINITE),
        (3, ItemErrorCode.TOO_LONG),
        (4, ItemErrorCode.NOT_FINITE),
    ]
    assert found.errors[1].reason.startswith("feature 2 of step 1 is nan")
    assert found.rows.tolist() == [0]
    assert np.array_equal(found.batch.values, sent[0])
    cut = read_features(batch, max_length=5, truncate=True)
    assert cut.rows.tolist() == [0, 3]
    assert cut.truncated.tolist() == [0, 4]
    assert np.array_equal(cut.batch.row(1), sent[3][:5])


def test_another_number_of_features_is_refused_and_none_at_all_fails_by_item() -> None:
    with pytest.raises(InvalidRequestError, match="have 3 features a step and this encoder reads 4"):
        check_width(RaggedBatch.from_features(rows([2])), 4)
    empty = batch_of(b"", [0, 0])
    check_width(empty, 4)
    found = read_features(empty, max_length=5, truncate=False)
    assert [error.code for error in found.errors] == [ItemErrorCode.EMPTY] * 2


def infer_request(raw: bool = True, **changes: object) -> pb.ModelInferRequest:
    """Two sequences, of two steps and one, of two features."""
    tensor = pb.ModelInferRequest.InferInputTensor
    values, lengths = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [2, 1]
    request = pb.ModelInferRequest(
        inputs=[
            tensor(name="lengths", datatype="INT32", shape=[2]),
            tensor(name="features", datatype="FP32", shape=[3, 2]),
        ]
    )
    if raw:
        request.raw_input_contents.extend([struct.pack("<2i", *lengths), struct.pack("<6f", *values)])
    else:
        request.inputs[0].contents.int_contents.extend(lengths)
        request.inputs[1].contents.fp32_contents.extend(values)
    return request


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "contents"])
def test_tensors_are_read_by_name_whatever_their_order(raw: bool) -> None:
    batch = read_ragged_tensors(infer_request(raw), FEATURES, 100)
    assert batch.row(0).tolist() == [[0, 1], [2, 3]]
    assert batch.row(1).tolist() == [[4, 5]]


def test_tensors_that_do_not_belong_together_are_refused() -> None:
    request = infer_request()
    request.inputs[1].name = "text"
    with pytest.raises(
        InvalidRequestError, match=r"expected the inputs 'features' and 'lengths', got \['lengths', 'text"
    ):
        read_ragged_tensors(request, FEATURES, 100)
    request = infer_request()
    request.inputs[1].datatype = "FP64"
    with pytest.raises(InvalidRequestError, match=r"'features' must be FP32 of shape .* got FP64 \[3, 2\]"):
        read_ragged_tensors(request, FEATURES, 100)
    request = infer_request()
    request.inputs[0].shape[:] = [2, 1]
    with pytest.raises(InvalidRequestError, match="'lengths' must be INT32 of shape"):
        read_ragged_tensors(request, FEATURES, 100)
    request = infer_request()
    request.raw_input_contents[0] = struct.pack("<2i", 2, 2)
    with pytest.raises(InvalidRequestError, match="'lengths' adds up to 4 tokens or steps, and 'features' holds 3"):
        read_ragged_tensors(request, FEATURES, 100)
    request = infer_request()
    request.raw_input_contents[0] = struct.pack("<2i", 4, -1)
    with pytest.raises(InvalidRequestError, match="'lengths' adds up to 3 tokens or steps"):
        read_ragged_tensors(request, FEATURES, 100)
    request = infer_request()
    request.raw_input_contents[1] = bytes(20)
    with pytest.raises(InvalidRequestError, match="'features' declares 6 elements and holds 5"):
        read_ragged_tensors(request, FEATURES, 100)
    request.raw_input_contents[1] = bytes(21)
    with pytest.raises(InvalidRequestError, match="end within an element"):
        read_ragged_tensors(request, FEATURES, 100)
    del request.raw_input_contents[1]
    with pytest.raises(InvalidRequestError, match="two inputs, but 1 raw contents"):
        read_ragged_tensors(request, FEATURES, 100)
