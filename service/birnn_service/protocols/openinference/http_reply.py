"""Replies of the Open Inference Protocol over HTTP: JSON, with tensors in it or, in the binary extension, behind it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn.openinference import inference_pb2 as pb
from birnn_service.errors import InvalidRequestError
from birnn_service.protocols.json_text import write_json, write_numbers
from birnn_service.protocols.openinference.http_request import BINARY_SIZE, HEADER_LENGTH

DATATYPES = {"<f4": "FP32", "<f2": "FP16", "<i4": "INT32", "|i1": "INT8"}


def write_infer(
    model: str,
    version: str,
    outputs: Mapping[str, NDArray[Any]],
    as_bytes: Callable[[str], bool],
    *,
    request_id: str = "",
    parameters: Mapping[str, Any] | None = None,
) -> tuple[list[bytes | memoryview], list[tuple[str, str]]]:
    """A reply: its pieces, and its headers.

    Args:
        model: Name of the encoder.
        version: Its version.
        outputs: Tensors by name.
        as_bytes: Whether a tensor of a name is wanted as bytes.
        request_id: Of the request.
        parameters: Of the reply.
    """
    start: dict[str, Any] = {"model_name": model, "model_version": version}
    if request_id:
        start["id"] = request_id
    if parameters:
        start["parameters"] = dict(parameters)
    pieces: list[bytes] = [write_json(start)[:-1] + b',"outputs":[']
    raw: list[memoryview] = []
    for place, (name, array) in enumerate(outputs.items()):
        array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        head: dict[str, Any] = {"name": name, "datatype": DATATYPES[array.dtype.str], "shape": array.shape}
        if as_bytes(name):
            head["parameters"] = {BINARY_SIZE: array.nbytes}
            raw.append(array.reshape(-1).view(np.uint8).data)
            pieces.append((b"," if place else b"") + write_json(head))
        else:
            pieces.append((b"," if place else b"") + write_json(head)[:-1] + b',"data":')
            pieces += write_numbers(array)
            pieces.append(b"}")
    pieces.append(b"]}")
    if not raw:
        return list(pieces), [("content-type", "application/json")]
    text = b"".join(pieces)
    return [text, *raw], [("content-type", "application/octet-stream"), (HEADER_LENGTH, str(len(text)))]


def padded(rows: NDArray[Any], lengths: NDArray[np.int64], most: int) -> NDArray[Any]:
    """Vectors of tokens as one tensor [sequences, longest, D], zero behind the end of each sequence.

    Args:
        rows: [tokens of all sequences, D].
        lengths: Tokens of each sequence.
        most: Most bytes of it.

    Raises:
        InvalidRequestError: It would be larger, because one sequence is much longer than others.
    """
    longest = int(lengths.max(initial=0))
    size = len(lengths) * longest * rows.shape[1] * rows.itemsize
    if size > most:
        raise InvalidRequestError(
            f"the reply would hold {size / (1 << 20):.4g} MiB, {len(lengths)} sequences padded to {longest} tokens, "
            f"and this server sends at most {most / (1 << 20):.4g} (--max-reply-mib); split the request, or sort its "
            "sequences by length first"
        )
    tensor = np.zeros((len(lengths), longest, rows.shape[1]), dtype=rows.dtype)
    tensor[np.arange(longest) < lengths[:, None]] = rows
    return tensor


def metadata(message: pb.ModelMetadataResponse) -> dict[str, Any]:
    """What `GET /v2/models/NAME` answers. protobuf's own JSON writes shapes as strings."""
    return {
        "name": message.name,
        "versions": list(message.versions),
        "platform": message.platform,
        "inputs": [_tensor(tensor) for tensor in message.inputs],
        "outputs": [_tensor(tensor) for tensor in message.outputs],
    }


def config(message: pb.ModelConfig) -> dict[str, Any]:
    """What `GET /v2/models/NAME/config` answers."""

    def tensor(item: pb.ModelInput | pb.ModelOutput) -> dict[str, Any]:
        return {"name": item.name, "data_type": pb.DataType.Name(item.data_type), "dims": list(item.dims)}

    return {
        "name": message.name,
        "platform": message.platform,
        "backend": message.backend,
        "max_batch_size": message.max_batch_size,
        "input": [tensor(item) for item in message.input],
        "output": [tensor(item) for item in message.output],
    }


def _tensor(tensor: pb.ModelMetadataResponse.TensorMetadata) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
