from typing import Any

import pytest

from birnn.openinference import inference_pb2 as pb
from birnn_service.errors import InvalidRequestError
from birnn_service.pipeline import Options
from birnn_service.protocols.openinference.parameters import read_parameters

Parameter = pb.InferParameter


def request(**parameters: pb.InferParameter) -> pb.ModelInferRequest:
    return pb.ModelInferRequest(parameters=parameters)


@pytest.mark.parametrize(
    ("parameters", "options"),
    [
        ({}, Options()),
        ({"truncate": Parameter(bool_param=True)}, Options(truncate=True)),
        ({"truncate": Parameter(bool_param=False)}, Options()),
        ({"timeout": Parameter(int64_param=2_500_000)}, Options(timeout=2.5)),
        ({"timeout": Parameter(uint64_param=1)}, Options(timeout=1e-6)),
        ({"timeout": Parameter(int64_param=0)}, Options()),
        ({"priority": Parameter(uint64_param=0)}, Options()),
        ({"triton_enable_empty_final_response": Parameter(bool_param=True)}, Options()),
        ({"headers": Parameter(string_param="x")}, Options()),
    ],
)
def test_what_is_known_is_read(parameters: dict[str, Any], options: Options) -> None:
    assert read_parameters(request(**parameters)) == options


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"timeout": Parameter(double_param=1.0)}, "'timeout' must be int64_param or uint64_param, got double_param"),
        ({"timeout": Parameter()}, "'timeout' must be .*, got no value"),
        ({"truncate": Parameter(int64_param=1)}, "'truncate' must be bool_param, got int64_param"),
        ({"priority": Parameter(int64_param=-1)}, "'priority' must be 0"),
        ({"time_out": Parameter(int64_param=1)}, "unknown parameter 'time_out' .* did you mean 'timeout'"),
        ({"binary_data_size": Parameter(int64_param=1)}, "'binary_data_size' of the request is not supported"),
        (
            {"x" * 10_000: Parameter()},
            rf"'{'x' * 60}'\.\.\. \(10000 characters\) of the request; known are truncate",
        ),
    ],
)
def test_what_is_not_is_refused(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        read_parameters(request(**parameters))


def test_parameters_of_tensors_are_looked_at_too() -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name="text", parameters={"truncate": Parameter(bool_param=True)})
    with pytest.raises(InvalidRequestError, match="unknown parameter 'truncate' of 'text'; there are none"):
        read_parameters(pb.ModelInferRequest(inputs=[tensor]))
    output = pb.ModelInferRequest.InferRequestedOutputTensor(name="embedding")
    output.parameters["shared_memory_region"].string_param = "r"
    with pytest.raises(InvalidRequestError, match="'shared_memory_region' of 'embedding' is not supported"):
        read_parameters(pb.ModelInferRequest(outputs=[output]))
