from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from birnn.openinference import inference_pb2 as pb
from birnn_bundle.errors import ItemError, ItemErrorCode
from birnn_bundle.ragged import RaggedBatch
from birnn_service.catalog import Encoder
from birnn_service.encoded import Encoded
from birnn_service.engine.engine import Output
from birnn_service.errors import InvalidRequestError
from birnn_service.protocols.openinference.outputs import datatype_of, read_outputs, tensors_of

Wanted = pb.ModelInferRequest.InferRequestedOutputTensor


def encoded(output: Output, values: NDArray[Any], lengths: NDArray[np.int64], *errors: ItemError) -> Encoded:
    return Encoded(
        create_autospec(Encoder), output, values, lengths, list(errors), [], RaggedBatch.from_lists([]), 0.0, 0.0, 0.0
    )


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ([], ("embedding",)),
        (["embedding"], ("embedding",)),
        (["embedding", "embedding"], ("embedding",)),
        (["lengths", "embedding"], ("embedding", "lengths")),
        (["token_embeddings"], ("token_embeddings", "lengths")),
        (["lengths", "token_embeddings"], ("token_embeddings", "lengths")),
    ],
)
def test_vectors_come_first_and_those_of_tokens_with_lengths(asked: list[str], names: tuple[str, ...]) -> None:
    assert read_outputs(pb.ModelInferRequest(outputs=[Wanted(name=name) for name in asked])) == names


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["logits"], "unknown output 'logits'; there are 'embedding', 'token_embeddings', 'lengths'"),
        (["embedding", "token_embeddings"], "ask for either"),
        (["lengths"], "ask for either"),
    ],
)
def test_other_outputs_are_refused(asked: list[str], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        read_outputs(pb.ModelInferRequest(outputs=[Wanted(name=name) for name in asked]))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.booleans())
def test_vectors_of_tokens_are_padded_with_zeros(lengths: list[int], half: bool) -> None:
    rows = np.random.default_rng(0).standard_normal((sum(lengths), 3)).astype(np.float16 if half else np.float32)
    tensors = tensors_of(encoded(Output.TOKENS, rows, np.array(lengths)), ("token_embeddings", "lengths"))
    padded, sizes = tensors["token_embeddings"], tensors["lengths"]
    assert (datatype_of(padded), datatype_of(sizes)) == ("FP16" if half else "FP32", "INT32")
    assert padded.shape == (len(lengths), max(lengths), 3)
    assert sizes.tolist() == lengths
    for row, length, expected in zip(padded, lengths, np.split(rows, np.cumsum(lengths)[:-1]), strict=True):
        assert (row[:length] == expected).all()
        assert not row[length:].any()


def test_a_sequence_without_vectors_fails_the_request() -> None:
    values, lengths = np.array([[1.0], [7e4]], dtype=np.float32), np.array([1, 1])
    assert tensors_of(encoded(Output.POOLED, values, lengths), ("embedding",))["embedding"] is values
    errors = [ItemError(index, ItemErrorCode.EMPTY, "empty") for index in range(5)]
    with pytest.raises(InvalidRequestError, match=r"5 sequences cannot be encoded: 0: empty; .*; and 2 more"):
        tensors_of(encoded(Output.POOLED, values, lengths, *errors), ("embedding",))
