import json

import numpy as np
import pytest

from birnn_service.protocols.openinference.http_reply import write_infer

OUTPUTS = {"embedding": np.array([[1, 2.5]], "<f4"), "lengths": np.array([3], "<i4")}


def test_tensors_come_as_json() -> None:
    reply = write_infer("a", "1", OUTPUTS, lambda name: False, request_id="7", parameters={"engine": "x"})
    assert (reply.status, reply.media_type, reply.headers) == (200, "application/json", ())
    assert json.loads(b"".join(reply.body)) == {
        "model_name": "a",
        "model_version": "1",
        "id": "7",
        "parameters": {"engine": "x"},
        "outputs": [
            {"name": "embedding", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5]},
            {"name": "lengths", "datatype": "INT32", "shape": [1], "data": [3]},
        ],
    }


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2"])
def test_tensors_come_as_bytes(dtype: str) -> None:
    outputs = {"embedding": np.array([[1, 2.5]], dtype), "lengths": np.array([3], "<i4")}
    reply = write_infer("a", "1", outputs, lambda name: name == "embedding")
    body, size = b"".join(reply.body), int(dict(reply.headers)["inference-header-content-length"])
    head, raw = json.loads(body[:size]), body[size:]
    little = dtype.replace(">", "<")
    assert head["outputs"][0]["datatype"] == {"<f4": "FP32", "<f2": "FP16"}[little]
    assert head["outputs"][0]["parameters"] == {"binary_data_size": len(raw)}
    assert head["outputs"][1]["data"] == [3]
    assert np.frombuffer(raw, little).tolist() == [1, 2.5]
