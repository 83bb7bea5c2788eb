import numpy as np
import pytest

from bench.encoders import random_bundle
from bench.loads import Load
from bench.peers.observation import PartsAlone, write_reply
from birnn.openinference import inference_pb2 as pb
from tests.e2e.molecules import molecules


def test_a_reply_is_written_as_the_server_writes_it() -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    reply = pb.ModelInferResponse.FromString(write_reply(vectors))
    assert reply.raw_output_contents[0] == vectors.tobytes()
    assert reply.outputs[0].shape == [2, 3]


def test_every_part_of_a_call_costs_something(tmp_path_factory: pytest.TempPathFactory) -> None:
    bundle = random_bundle(tmp_path_factory.mktemp("models"), "bigru", 1)
    costs = PartsAlone(bundle, molecules(40)).costs(Load("", 4, 1), rows=2.6, precision="fp32")
    assert costs.keys() == {"tokenize_us", "engine_us", "reply_us"}
    assert all(figure > 0 for figure in costs.values())
