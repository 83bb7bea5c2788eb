from birnn.openinference import inference_pb2 as pb
from birnn_service.protocols.message_json import plain


def test_shapes_are_numbers() -> None:
    tensor = pb.ModelMetadataResponse.TensorMetadata(name="text", datatype="BYTES", shape=[-1, 1])
    told = plain(pb.ModelMetadataResponse(name="a", versions=["1"], platform="birnn", inputs=[tensor]))
    assert told["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}]
    model = pb.ModelConfig(name="a", output=[pb.ModelOutput(name="embedding", data_type=pb.TYPE_FP32, dims=[4])])
    assert plain(model)["output"] == [{"name": "embedding", "data_type": "TYPE_FP32", "dims": [4]}]
