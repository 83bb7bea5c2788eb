from typing import Any

import pytest

from birnn.openinference import inference_pb2 as pb
from birnn_service.engine.engine import Output
from birnn_service.errors import InvalidRequestError
from birnn_service.pipeline import Options
from birnn_service.protocols.openinference.parameters import read_parameters
from birnn_service.queueing.priority import Priority
from birnn_service.vectors import ElementType

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
        ({"priority": Parameter(int64_param=3)}, Options(priority=Priority.LOW)),
        ({"priority": Parameter(uint64_param=1)}, Options(priority=Priority.HIGH)),
        ({"priority": Parameter(uint64_param=2)}, Options(priority=Priority.NORMAL)),
        ({"pooling": Parameter(string_param="mean")}, Options()),
        ({"normalize": Parameter(bool_param=True)}, Options(normalize=True)),
        ({"element_type": Parameter(string_param="FP16")}, Options(element_type=ElementType.FLOAT16)),
        ({"element_type": Parameter(string_param="FP32")}, Options()),
        ({"sequence_id": Parameter(int64_param=1), "sequence_start": Parameter(bool_param=True)}, Options()),
        ({"triton_enable_empty_final_response": Parameter(bool_param=True)}, Options()),
        ({"headers": Parameter(string_param="x")}, Options()),
    ],
)
def test_what_is_known_is_read(parameters: dict[str, Any], options: Options) -> None:
    assert read_parameters(request(**parameters), Output.POOLED, "mean") == options


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"timeout": Parameter(double_param=1.0)}, "'timeout' must be int64_param or uint64_param, got double_param"),
        ({"timeout": Parameter()}, "'timeout' must be .*, got no value"),
        ({"truncate": Parameter(int64_param=1)}, "'truncate' must be bool_param, got int64_param"),
        ({"priority": Parameter(int64_param=-1)}, "'priority' ranks from 1.* must not be negative, got -1"),
        ({"priority": Parameter(string_param="high")}, "'priority' must be int64_param or uint64_param"),
        ({"element_type": Parameter(string_param="FP8")}, "'element_type' must be FP32 or FP16, got 'FP8'"),
        ({"pooling": Parameter(string_param="max")}, "'pooling' must be mean, got 'max'"),
        ({"pooling": Parameter(bool_param=True)}, "'pooling' must be string_param, got bool_param"),
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
        read_parameters(request(**parameters), Output.POOLED, "mean")


def test_the_size_of_raw_contents_may_be_told() -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="text", parameters={"binary_data_size": Parameter(int64_param=5)}
    )
    raw = pb.ModelInferRequest(inputs=[tensor], raw_input_contents=[b"\1\0\0\0C"])
    assert read_parameters(raw, Output.POOLED, "mean") == Options()
    with pytest.raises(InvalidRequestError, match="'binary_data_size' of 'text' is not supported"):
        read_parameters(pb.ModelInferRequest(inputs=[tensor]), Output.POOLED, "mean")


def test_parameters_of_tensors_are_looked_at_too() -> None:
    tensor = pb.ModelInferRequest.InferInputTensor(name="text", parameters={"truncate": Parameter(bool_param=True)})
    with pytest.raises(InvalidRequestError, match="unknown parameter 'truncate' of 'text'; there are none"):
        read_parameters(pb.ModelInferRequest(inputs=[tensor]), Output.POOLED, "mean")
    output = pb.ModelInferRequest.InferRequestedOutputTensor(name="embedding")
    output.parameters["shared_memory_region"].string_param = "r"
    with pytest.raises(InvalidRequestError, match="'shared_memory_region' of 'embedding' is not supported"):
        read_parameters(pb.ModelInferRequest(outputs=[output]), Output.POOLED, "mean")


def test_vectors_of_tokens_are_padded() -> None:
    assert read_parameters(request(), Output.TOKENS, "mean") == Options(Output.TOKENS, padded=True)
    truncated = request(truncate=Parameter(bool_param=True))
    assert read_parameters(truncated, Output.TOKENS, "mean") == Options(Output.TOKENS, truncate=True, padded=True)
