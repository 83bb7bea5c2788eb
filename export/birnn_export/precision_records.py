"""What reduced precisions cost an encoder: measured with the engines where they are here, otherwise simulated.

The native kernels measure bf16 and int8 themselves. Where this processor lacks the instructions for bf16, or the
kernels were not built, PyTorch rounds what they would round (see `birnn_export.rounded_products`): the errors are as
large within a factor of two, and the record says that they were simulated. fp16 is computed on GPUs only, and always
simulated: GPUs round every intermediate value and add up products in float32, as PyTorch on a CPU does.
"""

from collections.abc import Callable
from pathlib import Path

import onnx
import torch

from birnn_bundle.agreement import agreement
from birnn_bundle.golden import Golden
from birnn_bundle.precisions import Agreement, ReducedPrecision, record_of
from birnn_export.encoders import SequenceEncoder
from birnn_export.rounded_products import with_rounded_products
from birnn_export.verification import reference
from birnn_native.kernel import POOLINGS
from birnn_native.library import NativeUnavailableError, precisions
from birnn_native.precision_measurement import Material, Measured, measure_precisions
from birnn_native.recurrent_graph import UnsupportedGraphError, read_graph

SIMULATED = f"PyTorch {torch.__version__}, simulated"
NOT_FINITE = "some of its encodings are not finite numbers"


def precision_records(encoder: SequenceEncoder, graph: Path, material: Material) -> Measured:
    """Measure every reduced precision.

    Args:
        encoder: The encoder, in float32.
        graph: Its exported graph of pooled encodings.
        material: What to measure with; simulations see the golden sequences only.

    Raises:
        QualityError: A quality set cannot be used.
    """
    try:
        kernels = read_graph(onnx.load(str(graph)))
        found = measure_precisions(kernels, POOLINGS[encoder.config.pooling], material)
    except (NativeUnavailableError, UnsupportedGraphError, ValueError) as error:
        found = Measured({}, {"bf16": str(error), "int8": str(error)})
    simulations: dict[ReducedPrecision, Callable[[SequenceEncoder, Golden], Agreement | None]] = {
        "fp16": fp16_agreement
    }
    if encoder.config.cell.kernel is not None and not _multiplies_bf16():
        simulations["bf16"] = bf16_agreement
    for precision, simulate in simulations.items():
        golden = simulate(encoder, material.golden)
        if golden is None:
            found.problems[precision] = NOT_FINITE
        else:
            found.problems.pop(precision, None)
            found.records[precision] = record_of(precision, golden, SIMULATED, material.min_cosines[precision])
    return found


def fp16_agreement(encoder: SequenceEncoder, golden: Golden) -> Agreement | None:
    """How far `encoder` is off in fp16; None where its numbers leave the range of float16."""
    return _agreement(reference(encoder, golden.batch, torch.float16), golden)


def bf16_agreement(encoder: SequenceEncoder, golden: Golden) -> Agreement | None:
    """How far `encoder` is off in bf16, with a table of the first layer's products or without, whichever is worse."""
    found = [
        _agreement(with_rounded_products(encoder, golden.batch, torch.bfloat16, table), golden)
        for table in (False, True)
    ]
    known = [one for one in found if one is not None]
    return (
        min(known, key=lambda one: min(one.least_cosine, one.least_token_cosine)) if len(known) == len(found) else None
    )


def _agreement(found: Golden, expected: Golden) -> Agreement | None:
    return agreement((found.pooled, expected.pooled), [(found.tokens, expected.tokens)])


def _multiplies_bf16() -> bool:
    try:
        return "bf16" in precisions()
    except NativeUnavailableError:
        return False
