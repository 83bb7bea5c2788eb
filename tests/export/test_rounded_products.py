"""Encodings with operands of products in few digits, as CPUs with bf16 instructions compute them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from birnn_bundle.ragged import RaggedBatch
from birnn_export.encoders import SequenceEncoder
from birnn_export.rounded_products import with_rounded_products
from birnn_export.verification import reference
from birnn_native.kernel import Kernel, Pooling
from birnn_native.library import NativeUnavailableError, instruction_sets
from birnn_native.recurrent_graph import read_graph
from tests.export.small_encoders import CORES, graphs_of, random_batch, small_encoder

EVERY_CORE = [(*core, True) for core in CORES] + [("bigru", "tanh", False)]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("architecture", "nonlinearity", "linear_before_reset"), EVERY_CORE)
def test_without_rounding_it_is_the_encoder(
    architecture: str, nonlinearity: str, linear_before_reset: bool, layers: int
) -> None:
    more = {"nonlinearity": nonlinearity, "linear_before_reset": linear_before_reset, "layers": layers}
    encoder = small_encoder(architecture, "mean+max", **more)
    expected = reference(encoder, random_batch([1, 9, 4]))
    found = with_rounded_products(encoder, expected.batch, torch.float32, table=False)
    np.testing.assert_allclose(found.pooled, expected.pooled, atol=1e-6)
    np.testing.assert_allclose(found.tokens, expected.tokens, atol=1e-6)


def test_layers_may_have_different_sizes() -> None:
    encoder = small_encoder("bilstm", "mean", layers=3, hidden_size=4, hidden_sizes=(7, 2, 4))
    expected = reference(encoder, random_batch([1, 9, 4]))
    found = with_rounded_products(encoder, expected.batch, torch.float32, table=False)
    np.testing.assert_allclose(found.tokens, expected.tokens, atol=1e-6)


def without_recurrence(**more: Any) -> SequenceEncoder:
    encoder = small_encoder("birnn", "mean", bias=False, **more)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "weight_hh" in name:
                parameter.zero_()
    return encoder


def test_features_are_operands_of_a_product_and_so_are_embeddings_without_a_table() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    features, ids = RaggedBatch(values, np.array([0, 4])), random_batch([4])
    of_features, of_ids = without_recurrence(vocab_size=0, embedding_size=3), without_recurrence()
    for encoder, batch, table, rounds in (
        (of_features, features, True, True),
        (of_ids, ids, True, False),
        (of_ids, ids, False, True),
    ):
        exact = reference(encoder, batch)
        error = np.abs(with_rounded_products(encoder, batch, torch.bfloat16, table).pooled - exact.pooled).max()
        assert (error > 1e-5) == rounds


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("architecture", "nonlinearity", "linear_before_reset"), EVERY_CORE)
def test_the_native_engine_is_as_far_off_in_bf16(
    tmp_path: Path, architecture: str, nonlinearity: str, linear_before_reset: bool, layers: int, table: bool
) -> None:
    try:
        sets = instruction_sets()
    except NativeUnavailableError as error:
        pytest.skip(str(error))
    if not any("bf16" in has for has in sets.values()):
        pytest.skip("this processor cannot multiply bf16")
    # More ids than the embedding is wide: its rows stay in the graph.
    sizes = {"vocab_size": 40, "embedding_size": 32, "hidden_size": 64, "layers": layers}
    more = {"nonlinearity": nonlinearity, "linear_before_reset": linear_before_reset}
    encoder = small_encoder(architecture, "mean", **sizes, **more)
    expected = reference(encoder, random_batch([1, 50, 20]))
    graph = read_graph(onnx.load(graphs_of(encoder, tmp_path)[0]))
    kernel = Kernel(graph.cell, graph.layers, graph.embedding, precision="bf16", most_table_bytes=table * 10**9)
    native = kernel.run(expected.batch.values, expected.batch.offsets, Pooling.TOKENS) - expected.tokens
    emulated = with_rounded_products(encoder, expected.batch, torch.bfloat16, table).tokens - expected.tokens
    assert np.abs(emulated).max() == pytest.approx(np.abs(native).max(), rel=0.5)
    # Both round the same numbers: their errors are alike, not only as large.
    assert np.corrcoef(native.ravel(), emulated.ravel())[0, 1] > 0.5
