"""How many elements a ModelInfer request may hold."""

from collections.abc import Mapping

from birnn_service.protocols.wire import Limit

# A legal request has two inputs, two outputs, and tensors of two dimensions.
MOST_TENSORS = 16
MOST_DIMENSIONS = 16
MOST_PARAMETERS = 64
# Numbers outside of raw contents become Python objects, some ten million a second.
MOST_TYPED_NUMBERS = 1 << 16

# Of an order to load or unload.
ORDER_LIMITS: Mapping[int, Limit] = {3: Limit("parameters", MOST_PARAMETERS)}


def limits_of(most: int) -> Mapping[int, Limit]:
    """Limits on a request of at most `most` sequences, by field number."""
    advice = "split it, or raise --max-sequences"
    unused = "typed contents are bytes_contents, fp32_contents and int_contents"
    parameters = Limit("parameters", MOST_PARAMETERS)
    contents = {
        1: Limit("bool_contents", 0, unused, width=0),
        2: Limit("int_contents", max(most, MOST_TYPED_NUMBERS), "send them as raw_input_contents", width=0),
        3: Limit("int64_contents", 0, unused, width=0),
        4: Limit("uint_contents", 0, unused, width=0),
        5: Limit("uint64_contents", 0, unused, width=0),
        6: Limit("fp32_contents", MOST_TYPED_NUMBERS, "send them as raw_input_contents", width=4),
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
        6: Limit("outputs", MOST_TENSORS, "one or two are expected", inside={2: parameters}),
        7: Limit("raw contents", MOST_TENSORS, "one for each input is expected"),
    }
