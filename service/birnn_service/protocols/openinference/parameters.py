"""Parameters of requests of the Open Inference Protocol: each is honored, known to be a hint, or refused."""

import difflib
from collections.abc import Collection, Mapping

from birnn.openinference import inference_pb2 as pb
from birnn_bundle.quoting import shown
from birnn_service.errors import InvalidRequestError
from birnn_service.pipeline import Options

TRUNCATE, TIMEOUT, PRIORITY = "truncate", "timeout", "priority"
# What clients of the protocol send along by themselves and what changes no encoding: sequences of requests (there is no
# state here), how Triton streams replies and names traces, and the form of outputs in HTTP, which gRPC does not have.
HINTS = ("sequence_id", "sequence_start", "sequence_end", "binary_data", "binary_data_output", "headers")
HINT_PREFIX = "triton_"
# What other servers do and this one does not, by the parameter or the start of its name.
UNSUPPORTED = {
    "shared_memory_": "this server has no shared memory with its callers; send the data in the request",
    "binary_data_size": "binary data of HTTP requests does not exist over gRPC; use raw_input_contents",
    "classification": "this server does not classify; take the output as it is",
}
LONGEST_NAME = 64


def read_parameters(request: pb.ModelInferRequest) -> Options:
    """What the parameters of a request, its inputs and its outputs ask for.

    Raises:
        InvalidRequestError: One is unknown, not supported, or of another type.
    """
    for tensor in request.inputs:
        if tensor.parameters:
            _refuse_unknown(tensor.parameters, f"of {shown(tensor.name)}", ())
    for output in request.outputs:
        if output.parameters:
            _refuse_unknown(output.parameters, f"of {shown(output.name)}", ())
    parameters = request.parameters
    if not parameters:
        return Options()
    _refuse_unknown(parameters, "of the request", (TRUNCATE, TIMEOUT, PRIORITY))
    if PRIORITY in parameters and _integer(PRIORITY, parameters[PRIORITY]) != 0:
        raise InvalidRequestError(
            "parameter 'priority' must be 0 or left out: this server ranks calls by their size and deadline"
        )
    truncate = TRUNCATE in parameters and _read(TRUNCATE, parameters[TRUNCATE], "bool_param")
    # As elsewhere, a time-out of 0 is none.
    microseconds = _integer(TIMEOUT, parameters[TIMEOUT]) if TIMEOUT in parameters else 0
    if microseconds < 0:
        raise InvalidRequestError(
            f"parameter 'timeout' is in microseconds and must not be negative, got {microseconds}"
        )
    return Options(truncate=bool(truncate), timeout=microseconds / 1e6 if microseconds else None)


def _refuse_unknown(parameters: Mapping[str, pb.InferParameter], where: str, known: Collection[str]) -> None:
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


def _integer(name: str, parameter: pb.InferParameter) -> int:
    return int(_read(name, parameter, "int64_param", "uint64_param"))


def _read(name: str, parameter: pb.InferParameter, *kinds: str) -> int:
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in kinds:
        raise InvalidRequestError(f"parameter {name!r} must be {' or '.join(kinds)}, got {kind or 'no value'}")
    value: int = getattr(parameter, kind)
    return value
