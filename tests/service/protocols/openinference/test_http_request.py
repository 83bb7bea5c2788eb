import json
import struct
from typing import Any

import numpy as np
import pytest

from birnn_service.errors import InvalidRequestError
from birnn_service.protocols.openinference.http_request import InferRequest, read_infer
from birnn_service.protocols.openinference.inputs import read_strings
from birnn_service.protocols.openinference.ragged_tensors import FEATURES as FEATURES_INPUT
from birnn_service.protocols.openinference.ragged_tensors import read_ragged_tensors

TEXT = {"name": "text", "datatype": "BYTES", "shape": [2, 1], "data": ["C", "é"]}
PACKED = struct.pack("<I", 1) + b"C" + struct.pack("<I", 2) + "é".encode()
FEATURES = {"name": "features", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2.5], [3, 4]]}
LENGTHS = {"name": "lengths", "datatype": "INT32", "shape": [1], "data": [2]}


def read(*inputs: Any, raw: bytes | None = None, most: int = 100, **fields: Any) -> InferRequest:
    text = json.dumps({"inputs": inputs, **fields}).encode()
    return read_infer(text + (raw or b""), None if raw is None else str(len(text)), "smiles", "2", most)


def packed(tensor: dict[str, Any], size: int) -> dict[str, Any]:
    return {**{key: value for key, value in tensor.items() if key != "data"}, "parameters": {"binary_data_size": size}}


def test_strings_are_read() -> None:
    for data in (TEXT["data"], [["C"], ["é"]]):
        request = read({**TEXT, "data": data}, id="7")
        assert (request.message.model_name, request.message.model_version, request.message.id) == ("smiles", "2", "7")
        assert list(read_strings(request.message, 100)) == [b"C", "é".encode()]


def test_strings_are_read_from_bytes() -> None:
    request = read(packed(TEXT, len(PACKED)), raw=PACKED)
    assert read_strings(request.message, 100) == [b"C", "é".encode()]


def test_features_are_read_in_any_form() -> None:
    values = np.array([[1, 2.5], [3, 4]], "<f4")
    raw_values, raw_lengths = values.tobytes(), struct.pack("<i", 2)
    for request in (
        read(FEATURES, LENGTHS),
        read(packed(FEATURES, 16), LENGTHS, raw=raw_values),
        read(LENGTHS, packed(FEATURES, 16), raw=raw_values),
        read(packed(LENGTHS, 4), packed(FEATURES, 16), raw=raw_lengths + raw_values),
    ):
        batch = read_ragged_tensors(request.message, FEATURES_INPUT, 100)
        assert np.array_equal(batch.values, values)
        assert batch.lengths.tolist() == [2]


def test_outputs_are_wanted_as_bytes_or_not() -> None:
    request = read(TEXT)
    assert not request.as_bytes("embedding")
    request = read(TEXT, parameters={"binary_data_output": True, "truncate": True})
    assert request.as_bytes("embedding")
    assert request.message.parameters["truncate"].bool_param
    request = read(TEXT, outputs=[{"name": "embedding", "parameters": {"binary_data": True}}, {"name": "lengths"}])
    assert [output.name for output in request.message.outputs] == ["embedding", "lengths"]
    assert request.as_bytes("embedding")
    assert not request.as_bytes("lengths")


def test_parameters_keep_their_types() -> None:
    request = read({**TEXT, "parameters": {"a": "x"}}, parameters={"b": True, "c": 3, "d": 1.5, "e": "y"})
    assert request.message.inputs[0].parameters["a"].string_param == "x"
    kinds = {name: value.WhichOneof("parameter_choice") for name, value in request.message.parameters.items()}
    assert kinds == {"b": "bool_param", "c": "int64_param", "d": "double_param", "e": "string_param"}


@pytest.mark.parametrize(
    ("inputs", "raw", "message"),
    [
        ([1], None, "JSON object"),
        ([TEXT] * 17, None, "at most 16"),
        ([{**TEXT, "name": None}], None, "name of an input"),
        ([{**TEXT, "datatype": "FP64"}], None, "known are BYTES"),
        ([{**TEXT, "shape": "x"}], None, "list of integers"),
        ([{**TEXT, "shape": [True]}], None, "list of integers"),
        ([{**TEXT, "shape": [-1]}], None, "shape"),
        ([{**TEXT, "shape": [1 << 63]}], None, "shape"),
        ([{**TEXT, "shape": [1] * 17}], None, "list of integers"),
        ([{**TEXT, "data": None}], None, "no `data`"),
        ([{**TEXT, "data": ["a", ["b"]]}], None, "irregular"),
        ([{**TEXT, "data": [1]}], None, "must be strings"),
        ([{**TEXT, "data": ["a"] * 101}], None, "accepts 100"),
        ([{**LENGTHS, "data": [1.5]}], None, "fit INT32"),
        ([{**LENGTHS, "data": [True]}], None, "fit INT32"),
        ([{**LENGTHS, "data": [1 << 31]}], None, "fit INT32"),
        ([{**LENGTHS, "data": [1] * 101}], None, "more than 100 numbers"),
        ([{**FEATURES, "data": ["1"]}], None, "fit FP32"),
        ([{**FEATURES, "data": [1] * 65_537}], None, "send them as bytes"),
        ([{**TEXT, "parameters": []}], None, "JSON object"),
        ([{**TEXT, "parameters": {"a": None}}], None, "boolean, a number or a string"),
        ([{**TEXT, "parameters": {"a": 1 << 63}}], None, "boolean, a number or a string"),
        ([{**TEXT, "parameters": {str(number): 1 for number in range(65)}}], None, "more than 64 parameters"),
        ([{**TEXT, "parameters": {"binary_data_size": 4}}], b"1234", "without data"),
        ([packed(TEXT, -1)], b"", "number of bytes"),
        ([packed(TEXT, True)], b"1", "number of bytes"),
        ([packed(TEXT, 5)], b"1234", "5 bytes, and 4 are left"),
        ([packed(TEXT, 3)], b"1234", "1 bytes follow"),
        ([packed(TEXT, 3)], None, "3 bytes, and 0 are left"),
        ([TEXT], b"1234", "4 bytes follow"),
    ],
)
def test_what_is_wrong_is_named(inputs: list[Any], raw: bytes | None, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        read(*inputs, raw=raw)


@pytest.mark.parametrize("length", ["-1", "x", "", "3000", "9" * 5000, "٣", "1_0"])
def test_the_length_of_the_json_is_checked(length: str) -> None:
    with pytest.raises(InvalidRequestError, match="Inference-Header-Content-Length"):
        read_infer(b"{}", length, "a", "", 10)


@pytest.mark.parametrize(
    "fields", [{"id": 1}, {"parameters": 1}, {"outputs": [{}]}, {"parameters": {"binary_data_output": 1}}]
)
def test_other_fields_are_checked(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        read(TEXT, **fields)
