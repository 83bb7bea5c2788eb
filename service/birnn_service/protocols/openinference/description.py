"""What the protocol says of an encoder: its inputs and outputs, and whether it is ready.

Listed is what a request holds that asks for nothing special. perf_analyzer asks for every output that is listed, and
takes all inputs of a model that is batched to have a batch dimension, which packed ids do not. So what may be sent or
asked for instead is not listed; it stands in docs/serving.md.
"""

from birnn.openinference import inference_pb2 as pb
from birnn_service.catalog import Encoder
from birnn_service.protocols.openinference.inputs import TEXT
from birnn_service.protocols.openinference.outputs import EMBEDDING
from birnn_service.protocols.openinference.ragged_tensors import FEATURES, LENGTHS
from birnn_service.statistics import Part, Tally, Totals

PLATFORM = "birnn"
TYPES = {"BYTES": pb.TYPE_STRING, "FP32": pb.TYPE_FP32, "INT32": pb.TYPE_INT32}


def metadata_of(encoder: Encoder, versions: list[int]) -> pb.ModelMetadataResponse:
    """Inputs and outputs of an encoder, the batch dimension included, and all its versions."""
    tensor = pb.ModelMetadataResponse.TensorMetadata
    return pb.ModelMetadataResponse(
        name=encoder.manifest.name,
        versions=map(str, versions),
        platform=PLATFORM,
        inputs=[tensor(name=name, datatype=datatype, shape=shape) for name, datatype, shape in _inputs(encoder)],
        outputs=[tensor(name=EMBEDDING, datatype="FP32", shape=[-1, encoder.manifest.dimension])],
    )


def config_of(encoder: Encoder, most: int) -> pb.ModelConfig:
    """Configuration of an encoder that takes at most `most` sequences; its dimensions leave out the batch."""
    # Features and lengths have no batch dimension in common.
    batched = not encoder.manifest.features
    dims = [encoder.manifest.dimension] if batched else [-1, encoder.manifest.dimension]
    return pb.ModelConfig(
        name=encoder.manifest.name,
        platform=PLATFORM,
        backend="birnn",
        max_batch_size=most if batched else 0,
        input=[
            pb.ModelInput(name=name, data_type=TYPES[datatype], dims=shape[1:] if batched else shape)
            for name, datatype, shape in _inputs(encoder)
        ],
        output=[pb.ModelOutput(name=EMBEDDING, data_type=pb.TYPE_FP32, dims=dims)],
    )


def statistics_of(encoder: Encoder, totals: Totals) -> pb.ModelStatistics:
    """What was counted of an encoder; which part is which, by the protocol's names."""
    parts = totals.parts
    return pb.ModelStatistics(
        name=encoder.manifest.name,
        version=str(encoder.manifest.version),
        last_inference=totals.last,
        inference_count=totals.sequences,
        execution_count=sum(tally.count for tally in totals.batches.values()),
        inference_stats=pb.InferStatistics(
            success=_duration(parts[Part.SUCCESS]),
            fail=_duration(parts[Part.FAIL]),
            queue=_duration(parts[Part.QUEUE]),
            compute_input=_duration(parts[Part.TOKENIZE]),
            compute_infer=_duration(parts[Part.COMPUTE]),
            compute_output=_duration(parts[Part.REPLY]),
            cache_hit=_duration(parts[Part.HIT]),
            cache_miss=_duration(parts[Part.MISS]),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=size, compute_infer=_duration(tally))
            for size, tally in totals.batches.items()
        ],
    )


def _duration(tally: Tally) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=tally.count, ns=tally.nanoseconds)


def _inputs(encoder: Encoder) -> list[tuple[str, str, list[int]]]:
    """Name, type and shape of each input, the batch dimension included."""
    if features := encoder.manifest.features:
        return [(FEATURES, "FP32", [-1, features]), (LENGTHS, "INT32", [-1])]
    return [(TEXT, "BYTES", [-1, 1])]
