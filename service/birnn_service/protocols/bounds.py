"""How many elements the request messages of each method may hold."""

from collections.abc import Mapping

from birnn_service.protocols.wire import Limit
from birnn_service.settings import Settings

# Of the Open Inference Protocol: a legal request has two inputs, one output, and tensors of two dimensions.
MOST_TENSORS = 16
MOST_DIMENSIONS = 16
MOST_PARAMETERS = 64
# Floats outside of raw contents become Python objects, some ten million a second.
MOST_TYPED_FLOATS = 1 << 16
ENCODE, MODEL_INFER = "Encode", "ModelInfer"

Limits = Mapping[int, Limit]


def limits_of(settings: Settings) -> Mapping[str, Limits]:
    """Limits on the requests of each method that has any, by field number; other methods' fields occur once."""
    return {ENCODE: _encode(settings), MODEL_INFER: _model_infer(settings)}


def _encode(settings: Settings) -> Limits:
    most, advice = settings.max_sequences, "split it, or raise --max-sequences"
    return {3: Limit("sequences", most, advice), 8: Limit("lengths", most, advice, width=0)}


def _model_infer(settings: Settings) -> Limits:
    most, advice = settings.max_sequences, "split it, or raise --max-sequences"
    unused = "typed contents are bytes_contents, fp32_contents and int_contents"
    parameters = Limit("parameters", MOST_PARAMETERS)
    contents = {
        1: Limit("bool_contents", 0, unused, width=0),
        2: Limit("int_contents", most, advice, width=0),
        3: Limit("int64_contents", 0, unused, width=0),
        4: Limit("uint_contents", 0, unused, width=0),
        5: Limit("uint64_contents", 0, unused, width=0),
        6: Limit("fp32_contents", MOST_TYPED_FLOATS, "send them as raw_input_contents", width=4),
        7: Limit("fp64_contents", 0, unused, width=8),
        8: Limit("sequences", most, advice),
    }
    tensor = {
        3: Limit("dimensions of a tensor", MOST_DIMENSIONS, "one or two are expected", width=0),
        4: parameters,
        5: Limit("contents of a tensor", 1, inside=contents),
    }
    return {
        4: parameters,
        5: Limit("inputs", MOST_TENSORS, "one or two are expected", inside=tensor),
        6: Limit("outputs", MOST_TENSORS, "one is expected", inside={2: parameters}),
        7: Limit("raw contents", MOST_TENSORS, "one for each input is expected"),
    }
