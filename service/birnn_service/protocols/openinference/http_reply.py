"""Replies of the Open Inference Protocol over HTTP: JSON, with tensors in it or, in the binary extension, behind it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn_service.protocols.json_text import write_json, write_numbers
from birnn_service.protocols.openinference.http_request import HEADER_LENGTH
from birnn_service.protocols.openinference.outputs import datatype_of
from birnn_service.protocols.openinference.parameters import BINARY_SIZE
from birnn_service.transports.http_message import HttpReply


def write_infer(
    model: str,
    version: str,
    outputs: Mapping[str, NDArray[Any]],
    as_bytes: Callable[[str], bool],
    *,
    request_id: str = "",
    parameters: Mapping[str, Any] | None = None,
) -> HttpReply:
    """A reply.

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
        head: dict[str, Any] = {"name": name, "datatype": datatype_of(array), "shape": array.shape}
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
        return HttpReply(200, pieces)
    text = b"".join(pieces)
    return HttpReply(200, [text, *raw], "application/octet-stream", [(HEADER_LENGTH, str(len(text)))])
