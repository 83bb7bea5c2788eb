"""Requests of the Open Inference Protocol over HTTP: JSON, with tensors in it or, in the binary extension, behind it.

A request becomes the message that gRPC knows, so that both are read by the same code.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from birnn.openinference import inference_pb2 as pb
from birnn_bundle.quoting import shown, told
from birnn_service.errors import InvalidRequestError
from birnn_service.protocols.json_text import parse_json
from birnn_service.protocols.openinference.limits import (
    MOST_DIMENSIONS,
    MOST_PARAMETERS,
    MOST_TENSORS,
    MOST_TYPED_NUMBERS,
)
from birnn_service.protocols.openinference.parameters import BINARY_SIZE
from birnn_service.protocols.openinference.ragged_tensors import LENGTHS

HEADER_LENGTH = "inference-header-content-length"
BINARY, BINARY_ALL = "binary_data", "binary_data_output"
# What may come as JSON, and how it is packed where other tensors come as bytes.
NUMBERS = {"FP32": ("<f4", "fp32_contents"), "INT32": ("<i4", "int_contents")}
# Beside the elements of tensors.
OTHER_VALUES = 1000


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request.

    Attributes:
        message: As gRPC has it.
        binary: Whether outputs are wanted as bytes, where their name is not in `outputs`.
        outputs: The same by name.
    """

    message: pb.ModelInferRequest
    binary: bool
    outputs: Mapping[str, bool]

    def as_bytes(self, output: str) -> bool:
        """Whether an output is wanted as bytes."""
        return self.outputs.get(output, self.binary)


def read_infer(body: bytes, header_length: str | None, name: str, version: str, most: int) -> InferRequest:
    """A request from its body.

    Args:
        body: JSON, and behind it the tensors that come as bytes.
        header_length: The header that says how long the JSON is; None where that is all.
        name: Of the model.
        version: Of the model; empty for the highest.
        most: Most sequences.

    Raises:
        InvalidRequestError: It is no such request.
    """
    text, rest = body, memoryview(b"")
    if header_length is not None:
        if not re.fullmatch(r"[0-9]{1,12}", header_length) or int(header_length) > len(body):
            raise InvalidRequestError(
                f"Inference-Header-Content-Length must be at most the {len(body)} bytes of the body, "
                f"got {shown(header_length)}"
            )
        size = int(header_length)
        text, rest = body[:size], memoryview(body)[size:]
    values = _object(parse_json(text, max(most, MOST_TYPED_NUMBERS) + OTHER_VALUES), "the request")
    message = pb.ModelInferRequest(model_name=name, model_version=version, id=_text(values.get("id", ""), "id"))
    parameters = _object(values.get("parameters", {}), "`parameters`")
    _read_parameters(parameters, message.parameters)
    sizes = [_read_input(message, tensor, most) for tensor in _list(values, "inputs")]
    if any(size is not None for size in sizes):
        _take_raw(message, sizes, rest)
    elif len(rest):
        raise InvalidRequestError(f"{len(rest)} bytes follow the JSON, and no input has {BINARY_SIZE!r}")
    outputs: dict[str, bool] = {}
    for output in _list(values, "outputs"):
        wanted = message.outputs.add(name=_text(output.get("name"), "name of an output"))
        own = _object(output.get("parameters", {}), "`parameters`")
        _read_parameters(own, wanted.parameters)
        if BINARY in own:
            outputs[wanted.name] = _flag(own, BINARY)
    return InferRequest(message, _flag(parameters, BINARY_ALL), outputs)


def _read_input(message: pb.ModelInferRequest, values: dict[str, Any], most: int) -> int | None:
    """Add an input to a request.

    Returns:
        Bytes that it takes behind the JSON; None where it is in the JSON.
    """
    name, datatype = _text(values.get("name"), "name of an input"), _text(values.get("datatype"), "`datatype`")
    shape = values.get("shape")
    if not isinstance(shape, list) or len(shape) > MOST_DIMENSIONS or any(type(axis) is not int for axis in shape):
        raise InvalidRequestError(f"`shape` of input {shown(name)} must be a list of integers")
    if any(not 0 <= axis < 1 << 62 for axis in shape):
        raise InvalidRequestError(f"input {shown(name)} has the shape {told(str(shape[:3]))}")
    tensor = message.inputs.add(name=name, datatype=datatype, shape=shape)
    parameters = dict(_object(values.get("parameters", {}), "`parameters`"))
    size = parameters.pop(BINARY_SIZE, None)
    _read_parameters(parameters, tensor.parameters)
    if size is not None:
        if type(size) is not int or size < 0 or "data" in values:
            raise InvalidRequestError(f"{BINARY_SIZE!r} of input {shown(name)} must be a number of bytes, without data")
        return size
    data = _flat(values.get("data"), name)
    if datatype == "BYTES":
        if not all(isinstance(item, str) for item in data):
            raise InvalidRequestError(f"data of input {shown(name)} must be strings")
        if len(data) > most:
            raise InvalidRequestError(
                f"input {shown(name)} holds {len(data)} strings and this server accepts {most} (--max-sequences); "
                "split it"
            )
        tensor.contents.bytes_contents.extend([item.encode() for item in data])
        return None
    if datatype not in NUMBERS:
        raise InvalidRequestError(f"input {shown(name)} is {told(datatype)}; known are BYTES, FP32 and INT32")
    dtype, field = NUMBERS[datatype]
    if not set(map(type, data)) <= ({int} if datatype == "INT32" else {int, float}):
        raise InvalidRequestError(f"data of input {shown(name)} must be numbers that fit {datatype}")
    limit = most if datatype == "INT32" and name == LENGTHS else MOST_TYPED_NUMBERS
    if len(data) > limit:
        raise InvalidRequestError(
            f"input {shown(name)} holds more than {limit} numbers as JSON; send them as bytes ({BINARY_SIZE!r})"
        )
    try:
        numbers = np.array(data, dtype=dtype)
    except OverflowError as error:
        raise InvalidRequestError(f"data of input {shown(name)} must be numbers that fit {datatype}") from error
    getattr(tensor.contents, field).extend(numbers.tolist())
    return None


def _take_raw(message: pb.ModelInferRequest, sizes: Sequence[int | None], rest: memoryview) -> None:
    """Give every input its bytes: gRPC's message has either all of them so, or none."""
    position = 0
    for tensor, size in zip(message.inputs, sizes, strict=True):
        if size is None:
            message.raw_input_contents.append(_packed(tensor))
            tensor.ClearField("contents")
            continue
        if position + size > len(rest):
            raise InvalidRequestError(
                f"input {shown(tensor.name)} has {size} bytes, and {len(rest) - position} are left"
            )
        message.raw_input_contents.append(bytes(rest[position : position + size]))
        position += size
    if position != len(rest):
        raise InvalidRequestError(f"{len(rest) - position} bytes follow those of the last input")


def _packed(tensor: pb.ModelInferRequest.InferInputTensor) -> bytes:
    """What a tensor holds, as raw contents."""
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(item)) + item for item in tensor.contents.bytes_contents)
    dtype, field = NUMBERS[tensor.datatype]
    return np.array(getattr(tensor.contents, field), dtype=dtype).tobytes()


def _flat(data: Any, name: str) -> list[Any]:
    """The elements of nested lists, which may also come flat already."""
    if not isinstance(data, list):
        raise InvalidRequestError(f"input {shown(name)} has no `data`, which is a list")
    items: list[Any] = data
    for _ in range(MOST_DIMENSIONS):
        if not any(isinstance(item, list) for item in items):
            return items
        if not all(isinstance(item, list) for item in items):
            break
        items = [element for item in items for element in item]
    raise InvalidRequestError(f"data of input {shown(name)} is nested in an irregular way")


def _read_parameters(values: Mapping[str, Any], parameters: Any) -> None:
    if len(values) > MOST_PARAMETERS:
        raise InvalidRequestError(f"the request holds more than {MOST_PARAMETERS} parameters; leave some out")
    for name, value in values.items():
        if isinstance(value, bool):
            parameters[name].bool_param = value
        elif isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
            parameters[name].int64_param = value
        elif isinstance(value, float):
            parameters[name].double_param = value
        elif isinstance(value, str):
            parameters[name].string_param = value
        else:
            raise InvalidRequestError(f"parameter {shown(name)} must be a boolean, a number or a string")


def _flag(parameters: Mapping[str, Any], name: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequestError(f"parameter {name!r} must be true or false")
    return value


def _list(values: Mapping[str, Any], field: str) -> list[dict[str, Any]]:
    items = values.get(field, [])
    if not isinstance(items, list) or len(items) > MOST_TENSORS:
        raise InvalidRequestError(f"`{field}` must be a list of at most {MOST_TENSORS} objects")
    return [_object(item, f"each of `{field}`") for item in items]


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{what} must be a JSON object")
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError(f"{what} must be a string")
    return value
