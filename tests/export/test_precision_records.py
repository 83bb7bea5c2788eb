"""What an export records of each reduced precision."""

from pathlib import Path

import numpy as np
import pytest
import torch

from birnn_bundle.golden import Golden
from birnn_bundle.precisions import MIN_COSINES, PrecisionRecord
from birnn_export import precision_records as module
from birnn_export.encoders import SequenceEncoder
from birnn_export.precision_records import SIMULATED, bf16_agreement, fp16_agreement, precision_records
from birnn_export.verification import reference
from birnn_native.library import NativeUnavailableError, precisions
from birnn_native.precision_measurement import Material, Measured
from tests.export.small_encoders import CORES, POOLINGS, graphs_of, random_batch, small_encoder

try:
    HERE = precisions()
except NativeUnavailableError as error:
    pytest.skip(str(error), allow_module_level=True)

needs_bf16 = pytest.mark.skipif("bf16" not in HERE, reason="this processor cannot multiply bf16")


def records_of(encoder: SequenceEncoder, golden: Golden, folder: Path, bf16: float = 0.9999) -> Measured:
    material = Material(golden, random_batch([3, 30]), min_cosines=MIN_COSINES | {"bf16": bf16})
    return precision_records(encoder, graphs_of(encoder, folder)[0], material)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("architecture", "nonlinearity"), CORES)
def test_rounding_costs_what_the_digits_of_each_format_promise(
    architecture: str, nonlinearity: str, pooling: str
) -> None:
    encoder = small_encoder(architecture, pooling, nonlinearity=nonlinearity, embedding_size=32, hidden_size=64)
    golden = reference(encoder, random_batch([1, 50, 20]))
    fp16, bf16 = fp16_agreement(encoder, golden), bf16_agreement(encoder, golden)
    assert fp16 is not None
    assert bf16 is not None
    # 11 binary digits of all values, and 8 of the operands of products.
    assert 1e-5 < fp16.max_error < 5e-3
    assert 1e-5 < bf16.max_error < 3e-2
    assert 0.99999 < fp16.least_token_cosine < 1
    assert 0.9999 < bf16.least_token_cosine < 1


@needs_bf16
@pytest.mark.parametrize(("architecture", "nonlinearity"), CORES)
def test_what_the_kernels_compute_is_recorded_and_a_simulation_would_have_said_nearly_the_same(
    tmp_path: Path, architecture: str, nonlinearity: str
) -> None:
    sizes = {"vocab_size": 40, "embedding_size": 32, "hidden_size": 64, "layers": 2}
    encoder = small_encoder(architecture, "mean", nonlinearity=nonlinearity, **sizes)
    golden = reference(encoder, random_batch([1, 50, 20]))
    record = records_of(encoder, golden, tmp_path).records["bf16"]
    assert record.engine.startswith("native ")
    simulated = bf16_agreement(encoder, golden)
    assert record.golden is not None
    assert simulated is not None
    assert 0.5 < record.golden.max_error / simulated.max_error < 2
    assert 0.2 < (1 - record.golden.least_token_cosine) / (1 - simulated.least_token_cosine) < 5


def test_fp16_is_simulated_and_so_is_bf16_on_a_processor_that_lacks_it_and_the_record_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (module, "birnn_native.precision_measurement"):
        target = f"{place}.precisions" if isinstance(place, str) else f"{place.__name__}.precisions"
        monkeypatch.setattr(target, lambda: ("fp32",))
    encoder = small_encoder(embedding_size=32, hidden_size=64)
    golden = reference(encoder, random_batch([1, 50, 20]))
    found = records_of(encoder, golden, tmp_path)
    assert found.records["fp16"].golden == fp16_agreement(encoder, golden)
    assert found.records["bf16"].golden == bf16_agreement(encoder, golden)
    assert found.records["fp16"].engine == found.records["bf16"].engine == SIMULATED
    assert "int8" not in found.records
    assert "lacks the instructions" in found.problems["int8"]


def test_errors_are_allowed_with_a_margin_above_what_was_measured(tmp_path: Path) -> None:
    encoder = small_encoder(embedding_size=32, hidden_size=64)
    found = records_of(encoder, reference(encoder, random_batch([1, 50, 20])), tmp_path, bf16=0.97)
    for record in found.records.values():
        assert record.golden is not None
        assert record.tolerance == pytest.approx(2 * record.golden.max_error, rel=0.06)
    assert found.records["fp16"].min_cosine == MIN_COSINES["fp16"]
    assert found.records["bf16"].min_cosine == 0.97


def test_an_encoder_whose_weights_float16_cannot_hold_has_no_record_of_it(tmp_path: Path) -> None:
    encoder = small_encoder("birnn", nonlinearity="relu")
    with torch.no_grad():
        encoder.state_dict()["embedding.weight"].mul_(1e6)
    found = records_of(encoder, reference(encoder, random_batch([4, 9])), tmp_path)
    assert "fp16" not in found.records
    assert "not finite" in found.problems["fp16"]


@needs_bf16
def test_an_encoder_that_is_too_far_off_is_recorded_as_not_allowed(tmp_path: Path) -> None:
    encoder = small_encoder(embedding_size=32, hidden_size=64)
    found = records_of(encoder, reference(encoder, random_batch([1, 50, 20])), tmp_path, bf16=1 - 1e-12)
    assert isinstance(found.records["bf16"], PrecisionRecord)
    assert "demanded" in found.records["bf16"].refusal


@needs_bf16
def test_a_cell_without_a_kernel_has_a_record_of_fp16_only(tmp_path: Path) -> None:
    encoder = small_encoder("bigru", nonlinearity="relu")
    golden = Golden(random_batch([1, 2]), np.ones((2, 8)), np.ones((3, 8)))
    found = records_of(encoder, golden, tmp_path)
    assert set(found.records) == {"fp16"}
    assert "no kernel" in found.problems["bf16"]
