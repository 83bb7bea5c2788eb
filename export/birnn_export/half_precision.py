"""What half precision costs an encoder, measured on a CPU before anything runs in it."""

from dataclasses import dataclass

import numpy as np
import torch

from birnn_bundle.golden import Golden, Vectors
from birnn_bundle.manifest import ReducedPrecision
from birnn_export.encoders import SequenceEncoder
from birnn_export.rounded_products import with_rounded_products
from birnn_export.verification import reference

MIN_COSINE = 0.9999
# Devices add in another order than PyTorch on a CPU does.
MARGIN = 2.0
LARGEST_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class HalfPrecisionError:
    """Largest absolute error, and least cosine of an encoding, against float64; pooled and per token."""

    largest: float
    cosine: float


def half_precision_error(encoder: SequenceEncoder, golden: Golden, dtype: torch.dtype) -> HalfPrecisionError:
    """How far `encoder` is off in `dtype`, as the devices that are served with it compute.

    In bf16, CPUs round the operands of products and nothing else (see `birnn_export.rounded_products`; the worse
    case is taken, with a table or without). In fp16, GPUs round every intermediate value and add up products in
    float32, as PyTorch on a CPU does.

    Args:
        encoder: The encoder, in float32.
        golden: Sequences and their encodings in float64.
        dtype: torch.float16 or torch.bfloat16.
    """
    if dtype == torch.bfloat16:
        computed = [with_rounded_products(encoder, golden.batch, dtype, table) for table in (False, True)]
    else:
        computed = [reference(encoder, golden.batch, dtype)]
    pairs = [pair for one in computed for pair in ((one.pooled, golden.pooled), (one.tokens, golden.tokens))]
    # NaN and infinity, of weights beyond the range of float16, are errors like any other.
    largest = max(float(np.nan_to_num(np.abs(one - exact), nan=np.inf).max()) for one, exact in pairs)
    return HalfPrecisionError(largest, min(_least_cosine(one, exact) for one, exact in pairs))


def reduced_precision(encoder: SequenceEncoder, golden: Golden) -> ReducedPrecision | None:
    """With which errors engines may serve `encoder` in half precision; None where either is too far off to allow it."""
    fp16 = half_precision_error(encoder, golden, torch.float16)
    bf16 = half_precision_error(encoder, golden, torch.bfloat16)
    tolerance = MARGIN * max(fp16.largest, bf16.largest)
    if min(fp16.cosine, bf16.cosine) < MIN_COSINE or not 0 < tolerance <= LARGEST_TOLERANCE:
        return None
    return ReducedPrecision(
        tolerance=float(f"{tolerance:.1e}"),
        min_cosine=MIN_COSINE,
        error_fp16=fp16.largest,
        error_bf16=bf16.largest,
    )


def _least_cosine(found: Vectors, exact: Vectors) -> float:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1)
    # A reference of zeros has no cosine.
    cosines = (found * exact).sum(axis=1)[norms > 0] / norms[norms > 0]
    return float(np.nan_to_num(cosines, nan=-1.0).min(initial=1.0))
