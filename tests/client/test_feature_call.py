import numpy as np
import pytest

from birnn.encode_call import LARGEST_REQUEST, FeatureCall
from birnn.v1 import encoder_pb2 as pb


def requests(arrays: list[np.ndarray], batch_size: int = 2) -> list[pb.EncodeRequest]:
    call = FeatureCall("pooled", "signals", None, batch_size=batch_size)
    made = [call.add(array) for array in arrays] + [call.flush()]
    return [request for request in made if request is not None]


def test_arrays_become_requests_of_bytes_and_lengths() -> None:
    arrays = [np.full((length, 3), length, dtype=np.float64) for length in (2, 1, 4)]
    first, second = requests(arrays)
    assert (list(first.lengths), list(second.lengths)) == ([2, 1], [4])
    assert not first.sequences
    assert np.frombuffer(first.features, "<f4").reshape(3, 3).tolist() == [[2] * 3, [2] * 3, [1] * 3]
    assert len(second.features) == 4 * 3 * 4


def test_a_request_is_full_by_its_bytes_too() -> None:
    large = np.zeros((LARGEST_REQUEST["pooled"] // 8, 1), dtype=np.float32)
    assert [len(request.lengths) for request in requests([large] * 5, 100)] == [2, 2, 1]


def test_an_empty_sequence_is_sent_for_the_server_to_judge() -> None:
    (request,) = requests([np.empty((0, 3), dtype=np.float32)])
    assert list(request.lengths) == [0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([np.zeros(3)], r"sequence 0 has shape \[3\]; \[length, features\] expected"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "sequence 1 has 4 features, and those before it 3"),
    ],
)
def test_what_is_no_sequence_of_features_is_refused(arrays: list[np.ndarray], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        requests(arrays)
