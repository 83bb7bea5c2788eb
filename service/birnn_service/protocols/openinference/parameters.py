"""Parameters of requests of the Open Inference Protocol: each is honored, known to be a hint, or refused."""

import difflib
from collections.abc import Collection, Mapping
from typing import TypeVar

from birnn.openinference import inference_pb2 as pb
from birnn_bundle.quoting import shown
from birnn_service.engine.engine import Output
from birnn_service.errors import InvalidRequestError
from birnn_service.pipeline import Options
from birnn_service.queueing.priority import Priority
from birnn_service.vectors import ElementType

K = TypeVar("K")

TRUNCATE, TIMEOUT, PRIORITY = "truncate", "timeout", "priority"
POOLING, NORMALIZE, ELEMENT_TYPE = "pooling", "normalize", "element_type"
BINARY_SIZE = "binary_data_size"
HONORED = (TRUNCATE, TIMEOUT, PRIORITY, POOLING, NORMALIZE, ELEMENT_TYPE)
ELEMENT_TYPES = {"FP32": ElementType.FLOAT32, "FP16": ElementType.FLOAT16}
# Triton ranks from 1, the most urgent, and 0 stands for a model's default; what is not here is LOW.
PRIORITIES = {0: Priority.NORMAL, 1: Priority.HIGH, 2: Priority.NORMAL}
# What clients of the protocol send along by themselves and what changes no encoding: sequences of requests (there is no
# state here), how Triton streams replies and names traces, and the form of outputs in HTTP, which gRPC does not have.
HINTS = ("sequence_id", "sequence_start", "sequence_end", "binary_data", "binary_data_output", "headers")
HINT_PREFIX = "triton_"
# What other servers do and this one does not, by the parameter or the start of its name.
UNSUPPORTED = {
    "shared_memory_": "this server has no shared memory with its callers; send the data in the request",
    BINARY_SIZE: "binary data of HTTP requests does not exist over gRPC; use raw_input_contents",
    "classification": "this server does not classify; take the output as it is",
}
LONGEST_NAME = 64
Parameters = Mapping[str, pb.InferParameter]


def read_parameters(request: pb.ModelInferRequest, output: Output, pooling: str) -> Options:
    """What the parameters of a request, its inputs and its outputs ask for.

    Args:
        request: Holds them.
        output: What its outputs are made of.
        pooling: Of the encoder, which has one.

    Raises:
        InvalidRequestError: One is unknown, not supported, or of another type.
    """
    # KServe's client says over gRPC, too, how many bytes an input has.
    sizes = (BINARY_SIZE,) if request.raw_input_contents else ()
    for tensor in request.inputs:
        if tensor.parameters:
            _refuse_unknown(tensor.parameters, f"of {shown(tensor.name)}", sizes)
    for wanted in request.outputs:
        if wanted.parameters:
            _refuse_unknown(wanted.parameters, f"of {shown(wanted.name)}", ())
    # Vectors of tokens come as a tensor that is padded.
    padded = output is Output.TOKENS
    parameters = request.parameters
    if not parameters:
        return Options(output, padded=padded)
    _refuse_unknown(parameters, "of the request", HONORED)
    # As elsewhere, a time-out of 0 is none.
    microseconds = _number(parameters, TIMEOUT, "is in microseconds and")
    _one_of(parameters, POOLING, {pooling: None}, pooling)
    return Options(
        output,
        truncate=_flag(parameters, TRUNCATE),
        timeout=microseconds / 1e6 if microseconds else None,
        normalize=_flag(parameters, NORMALIZE),
        element_type=_one_of(parameters, ELEMENT_TYPE, ELEMENT_TYPES, "FP32"),
        priority=PRIORITIES.get(_number(parameters, PRIORITY, "ranks from 1, the most urgent, and"), Priority.LOW),
        padded=padded,
    )


def _refuse_unknown(parameters: Parameters, where: str, known: Collection[str]) -> None:
    for name in parameters:
        if name in known or name in HINTS or name.startswith(HINT_PREFIX):
            continue
        for start, reason in UNSUPPORTED.items():
            if name.startswith(start):
                raise InvalidRequestError(f"parameter {shown(name)} {where} is not supported: {reason}")
        close = difflib.get_close_matches(name[:LONGEST_NAME], known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        listed = f"known are {', '.join(known)}" if known else "there are none"
        raise InvalidRequestError(f"unknown parameter {shown(name)} {where}; {listed}{hint}")


def _flag(parameters: Parameters, name: str) -> bool:
    return bool(_read(parameters, name, "bool_param"))


def _one_of(parameters: Parameters, name: str, known: Mapping[str, K], default: str) -> K:
    text = str(_read(parameters, name, "string_param") or default)
    if text not in known:
        raise InvalidRequestError(f"parameter {name!r} must be {' or '.join(known)}, got {shown(text)}")
    return known[text]


def _number(parameters: Parameters, name: str, meaning: str) -> int:
    number = int(_read(parameters, name, "int64_param", "uint64_param") or 0)
    if number < 0:
        raise InvalidRequestError(f"parameter {name!r} {meaning} must not be negative, got {number}")
    return number


def _read(parameters: Parameters, name: str, *kinds: str) -> bool | int | str | None:
    """Value of a parameter; None where there is none."""
    if name not in parameters:
        return None
    kind = parameters[name].WhichOneof("parameter_choice")
    if kind not in kinds:
        raise InvalidRequestError(f"parameter {name!r} must be {' or '.join(kinds)}, got {kind or 'no value'}")
    value: bool | int | str = getattr(parameters[name], kind)
    return value
