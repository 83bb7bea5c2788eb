"""What a caller sent comes back in an error only in part, and nothing of the server's folders does."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from birnn.openinference import inference_pb2 as oip
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.e2e.server_process import PATIENCE_SECONDS, ServerProcess

LONG = "\u0661\x1b[31m" + "n" * 20_000
NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT


def encode(**fields: Any) -> Callable[[grpc.Channel], object]:
    return lambda channel: EncoderServiceStub(channel).Encode(
        pb.EncodeRequest(sequences=[b"C"], **fields), timeout=PATIENCE_SECONDS
    )


def infer(name: str = "smiles", version: str = "", tensor: dict[str, Any] | None = None, **fields: Any) -> Any:
    good = {"name": "text", "datatype": "BYTES", "shape": [1]}
    given = oip.ModelInferRequest.InferInputTensor(**{**good, **(tensor or {})})
    given.contents.bytes_contents.append(b"C")
    request = oip.ModelInferRequest(model_name=name, model_version=version, inputs=[given], **fields)
    return lambda channel: GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=PATIENCE_SECONDS)


def metadata(name: str, version: str = "") -> Callable[[grpc.Channel], object]:
    request = oip.ModelMetadataRequest(name=name, version=version)
    return lambda channel: GRPCInferenceServiceStub(channel).ModelMetadata(request, timeout=PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (encode(encoder=LONG), NOT_FOUND),
        (encode(encoder="smiles", version=LONG), NOT_FOUND),
        (infer(LONG), NOT_FOUND),
        (infer(version=LONG), NOT_FOUND),
        (metadata(LONG), NOT_FOUND),
        (metadata("smiles", LONG), NOT_FOUND),
        (infer(tensor={"name": LONG}), INVALID),
        (infer(tensor={"datatype": LONG}), INVALID),
        (infer(tensor={"parameters": {LONG: oip.InferParameter(bool_param=True)}}), INVALID),
        (infer(parameters={LONG: oip.InferParameter(bool_param=True)}), INVALID),
        (infer(outputs=[oip.ModelInferRequest.InferRequestedOutputTensor(name=LONG)]), INVALID),
    ],
)
def test_a_long_text_is_shortened_and_escaped(
    server: ServerProcess, call: Callable[[grpc.Channel], object], code: grpc.StatusCode
) -> None:
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        call(channel)
    assert isinstance(caught.value, grpc.Call)
    details = caught.value.details() or ""
    assert caught.value.code() is code, details
    assert "\\x1b[31mnnn" in details
    assert details.isprintable()
    assert len(details) < 1000


@pytest.mark.parametrize("version", ["١", "०", "01", "+1", " 1", "1 ", "1_0", "1e0", "1.0", "-1", "0", "9" * 30])
def test_a_version_is_spelt_in_one_way_in_every_protocol(server: ServerProcess, version: str) -> None:
    with grpc.insecure_channel(server.address) as channel:
        for call in (encode(encoder="smiles", version=version), infer(version=version), metadata("smiles", version)):
            with pytest.raises(grpc.RpcError) as caught:
                call(channel)
            assert isinstance(caught.value, grpc.Call)
            assert caught.value.code() is NOT_FOUND
        reply = EncoderServiceStub(channel).Encode(pb.EncodeRequest(encoder="smiles", version="1", sequences=[b"C"]))
        assert reply.version == "1"
