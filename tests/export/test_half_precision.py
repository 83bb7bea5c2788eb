import numpy as np
import pytest
import torch

from birnn_export.half_precision import MIN_COSINE, half_precision_error, reduced_precision
from birnn_export.verification import reference
from tests.export.small_encoders import CORES, POOLINGS, random_batch, small_encoder


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("architecture", "nonlinearity"), CORES)
def test_rounding_costs_what_the_digits_of_each_format_promise(
    architecture: str, nonlinearity: str, pooling: str
) -> None:
    encoder = small_encoder(architecture, pooling, nonlinearity=nonlinearity, embedding_size=32, hidden_size=64)
    golden = reference(encoder, random_batch([1, 50, 20]))
    fp16 = half_precision_error(encoder, golden, torch.float16)
    bf16 = half_precision_error(encoder, golden, torch.bfloat16)
    # 11 binary digits of all values, and 8 of the operands of products.
    assert 1e-5 < fp16.largest < 5e-3
    assert 1e-5 < bf16.largest < 3e-2
    assert 0.99999 < fp16.cosine < 1
    assert 0.9999 < bf16.cosine < 1


def test_half_precision_is_allowed_with_a_margin_above_what_was_measured() -> None:
    encoder = small_encoder(embedding_size=32, hidden_size=64)
    golden = reference(encoder, random_batch([1, 50, 20]))
    allowed = reduced_precision(encoder, golden)
    assert allowed is not None
    assert allowed.error_fp16 == half_precision_error(encoder, golden, torch.float16).largest
    assert allowed.error_bf16 == half_precision_error(encoder, golden, torch.bfloat16).largest
    assert allowed.tolerance == pytest.approx(2 * max(allowed.error_fp16, allowed.error_bf16), rel=0.06)
    assert allowed.min_cosine == MIN_COSINE


def test_an_encoder_whose_weights_float16_cannot_hold_is_not_served_in_half_precision() -> None:
    encoder = small_encoder("birnn", nonlinearity="relu")
    with torch.no_grad():
        encoder.state_dict()["embedding.weight"].mul_(1e6)
    golden = reference(encoder, random_batch([4, 9]))
    assert half_precision_error(encoder, golden, torch.float16).largest == np.inf
    assert reduced_precision(encoder, golden) is None
