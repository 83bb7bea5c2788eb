import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from birnn import InconsistentReplyError
from birnn.chunk import unpack
from birnn.v1 import encoder_pb2 as pb
from tests.client.fake_service import as_int8, normalized


def int8_reply(vectors: np.ndarray) -> pb.EncodeResponse:
    integers, scales = as_int8(vectors)
    return pb.EncodeResponse(
        lengths=[1] * len(vectors),
        shape=vectors.shape,
        embeddings=integers.tobytes(),
        scales=scales.tobytes(),
        element_type=pb.ELEMENT_TYPE_INT8,
    )


def request(count: int, *, normalize: bool = False) -> pb.EncodeRequest:
    return pb.EncodeRequest(sequences=[b"C"] * count, element_type=pb.ELEMENT_TYPE_INT8, normalize=normalize)


def test_an_element_type_that_is_not_known_is_refused() -> None:
    reply = pb.EncodeResponse(lengths=[1], shape=[1, 2], embeddings=bytes(16), element_type=9)  # type: ignore[arg-type]
    with pytest.raises(InconsistentReplyError, match="type 9; update this client"):
        unpack(request(1), reply)


@pytest.mark.parametrize("missing", [b"", bytes(4), bytes(12)])
def test_each_row_of_int8_needs_its_scale(missing: bytes) -> None:
    reply = int8_reply(np.ones((2, 3), np.float32))
    assert unpack(request(2), reply).matrix.tolist() == [[1, 1, 1], [1, 1, 1]]
    reply.scales = missing
    with pytest.raises(InconsistentReplyError, match=f"2 rows of int8 and {len(missing)} bytes of scales"):
        unpack(request(2), reply)


@given(width=st.integers(1, 2000), spread=st.floats(0, 8), seed=st.integers(0, 1000))
def test_what_int8_rounds_is_not_taken_for_a_vector_that_is_not_normalized(
    width: int, spread: float, seed: int
) -> None:
    draws = np.random.default_rng(seed)
    # From all alike to one that dwarfs the others.
    vectors = (draws.uniform(-1, 1, (3, width)) * np.exp(draws.normal(0, spread, (3, width)))).astype(np.float32)
    unpack(request(3, normalize=True), int8_reply(normalized(vectors)))


@pytest.mark.parametrize("factor", [0.5, 0.99, 1.01, 2.0, 1e30])
def test_a_vector_that_is_not_normalized_is_found_among_others(factor: float) -> None:
    vectors = normalized(np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32))
    vectors[0], vectors[1] = 0, np.nan
    asked = pb.EncodeRequest(sequences=[b"C"] * 5, normalize=True)
    reply = pb.EncodeResponse(lengths=[1] * 5, shape=vectors.shape, embeddings=vectors.tobytes())
    unpack(asked, reply)
    vectors[3] *= np.float32(factor)
    reply.embeddings = vectors.tobytes()
    with pytest.raises(InconsistentReplyError, match="does not know normalize"):
        unpack(asked, reply)
