"""Graphs that are wrong in the ways that exporters have been wrong before must be caught, and the place named."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from birnn_bundle.manifest import Verification
from birnn_export.encoders import SequenceEncoder
from birnn_export.engine_errors import VerificationError
from birnn_export.id_source import IdSource
from birnn_export.recurrent_weights import WeightsError, reorder_gates
from birnn_export.verification import Proof, allowed_error, grid, reference, verify_graphs
from tests.export.small_encoders import CORES, POOLINGS, VOCABULARY, graphs_of, make_stiff, random_batch, small_encoder

MAX_LENGTH = 20
STIFF: dict[str, Any] = {"architecture": "bilstm", "layers": 2, "hidden_size": 32}
needs_kernels = pytest.mark.skipif(
    importlib.util.find_spec("birnn_native._kernels") is None, reason="the native kernels were not built"
)
PLACE = re.compile(
    r"(?P<graph>pooled|tokens)\.onnx: disagrees with PyTorch in float64: B=\d+, T=\d+, "
    r"(in one batch|in one batch with random ids as padding|each row alone): row \d+ of length \d+, "
    r"(step \d+( \(padding\))?, )?dimension \d+: expected \S+, got \S+, off by \S+ \(tolerance 1e-05; "
    r"PyTorch in float32 is off by \S+ there and by up to (?P<rounding>\S+) in this run\)\. (?P<advice>.+)"
)


def verify(encoder: SequenceEncoder, pooled: Path, tokens: Path, tolerance: float | None = None) -> Verification:
    return prove(encoder, pooled, tokens, tolerance=tolerance).verification


def prove(
    encoder: SequenceEncoder, pooled: Path, tokens: Path, max_length: int = MAX_LENGTH, tolerance: float | None = None
) -> Proof:
    return verify_graphs(
        encoder, pooled, tokens, max_length=max_length, source=IdSource(VOCABULARY, seed=0), tolerance=tolerance
    )


def change(path: Path, edit: Callable[[onnx.GraphProto], None]) -> None:
    model = onnx.load(path)
    edit(model.graph)
    onnx.save_model(model, path)


def change_tensor(
    graph: onnx.GraphProto, name: str, edit: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> None:
    (tensor,) = [one for one in graph.initializer if one.name == name]
    tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor).copy()), name))


def recurrent_node(graph: onnx.GraphProto) -> onnx.NodeProto:
    (node,) = [one for one in graph.node if one.op_type in ("GRU", "LSTM", "RNN")]
    return node


def use_gate_order(gates: tuple[int, ...]) -> Callable[[onnx.GraphProto], None]:
    def reorder(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.stack([reorder_gates(direction, gates) for direction in values])

    def edit(graph: onnx.GraphProto) -> None:
        change_tensor(graph, "W0", reorder)
        change_tensor(graph, "R0", reorder)

    return edit


def reset_before_product(graph: onnx.GraphProto) -> None:
    (attribute,) = [one for one in recurrent_node(graph).attribute if one.name == "linear_before_reset"]
    attribute.i = 0


def merge_hidden_bias(graph: onnx.GraphProto) -> None:
    def merge(B: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs, hidden = np.split(B, 2, axis=1)
        return np.concatenate([inputs + hidden, np.zeros_like(hidden)], axis=1)

    change_tensor(graph, "B0", merge)


def ignore_lengths(graph: onnx.GraphProto) -> None:
    recurrent_node(graph).input[4] = ""


def swap_directions(graph: onnx.GraphProto) -> None:
    for name in ("W0", "R0", "B0"):
        change_tensor(graph, name, lambda values: values[::-1].copy())


def let_padding_win(graph: onnx.GraphProto) -> None:
    (node,) = [one for one in graph.node if one.op_type == "ReduceMax"]
    node.input[0] = "Y0"


MISTAKES = {
    "gates of a GRU in PyTorch's order": ("bigru", "final", use_gate_order((1, 0, 2))),
    "gates of an LSTM in PyTorch's order": ("bilstm", "final", use_gate_order((0, 2, 3, 1))),
    "linear_before_reset = 0": ("bigru", "final", reset_before_product),
    "b_hn merged into the input bias": ("bigru", "final", merge_hidden_bias),
    "lengths ignored": ("bigru", "final", ignore_lengths),
    "lengths ignored, pooling mean": ("bilstm", "mean", ignore_lengths),
    "directions swapped": ("birnn", "final", swap_directions),
    "zeros of the padding in a maximum": ("bigru", "max", let_padding_win),
}


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize(("architecture", "nonlinearity"), CORES)
def test_right_graphs_pass_with_errors_of_float32_rounding(
    tmp_path: Path, architecture: str, nonlinearity: str, pooling: str
) -> None:
    encoder = small_encoder(architecture, pooling, nonlinearity=nonlinearity)
    found = verify(encoder, *graphs_of(encoder, tmp_path))
    assert 0 < found.max_error_pooled < 2e-6
    assert 0 < found.max_error_tokens < 2e-6
    # Two graphs; of each batch two paddings and every row alone.
    assert found.cases == 2 * sum(2 + len(batch) for batch in grid(IdSource(VOCABULARY, 0), MAX_LENGTH))
    assert (found.torch, found.provider) == (torch.__version__, "CPUExecutionProvider")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_pooled_graph_is_refused_and_the_place_named(tmp_path: Path, mistake: str) -> None:
    architecture, pooling, edit = MISTAKES[mistake]
    encoder = small_encoder(architecture, pooling)
    pooled, tokens = graphs_of(encoder, tmp_path)
    change(pooled, edit)
    with pytest.raises(VerificationError) as raised:
        verify(encoder, pooled, tokens)
    place = PLACE.fullmatch(str(raised.value))
    assert place, str(raised.value)
    assert place["graph"] == "pooled"
    assert float(place["rounding"]) < 1e-6
    assert "more than rounding" in place["advice"]


@pytest.mark.parametrize("mistake", [name for name, (_, pooling, _) in MISTAKES.items() if pooling == "final"])
def test_a_wrong_tokens_graph_is_refused_and_the_place_named(tmp_path: Path, mistake: str) -> None:
    architecture, pooling, edit = MISTAKES[mistake]
    encoder = small_encoder(architecture, pooling)
    pooled, tokens = graphs_of(encoder, tmp_path)
    change(tokens, edit)
    with pytest.raises(VerificationError) as raised:
        verify(encoder, pooled, tokens)
    place = PLACE.fullmatch(str(raised.value))
    assert place, str(raised.value)
    assert place["graph"] == "tokens"


def test_ignored_lengths_are_found_in_a_batch_because_rows_alone_are_right(tmp_path: Path) -> None:
    encoder = small_encoder()
    pooled, tokens = graphs_of(encoder, tmp_path)
    change(pooled, ignore_lengths)
    with pytest.raises(VerificationError, match="in one batch"):
        verify(encoder, pooled, tokens)


def test_values_on_padding_are_refused_as_such(tmp_path: Path) -> None:
    encoder = small_encoder()
    pooled, tokens = graphs_of(encoder, tmp_path)

    def mark_padding(graph: onnx.GraphProto) -> None:
        """Add one to what is exactly zero."""
        graph.node[-1].output[0] = "zeroed"
        graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
        graph.node.append(onnx.helper.make_node("Equal", ["zeroed", "nothing"], ["is_zero"]))
        graph.node.append(onnx.helper.make_node("Cast", ["is_zero"], ["one_if_zero"], to=onnx.TensorProto.FLOAT))
        graph.node.append(onnx.helper.make_node("Add", ["zeroed", "one_if_zero"], ["tokens"]))

    change(tokens, mark_padding)
    with pytest.raises(VerificationError, match=r"step \d+ \(padding\), dimension \d+: expected 0, got 1, off by 1 "):
        verify(encoder, pooled, tokens)


def test_a_tolerance_below_float32_is_refused_and_blamed_on_rounding(tmp_path: Path) -> None:
    encoder = small_encoder(hidden_size=32)
    with pytest.raises(VerificationError) as raised:
        verify(encoder, *graphs_of(encoder, tmp_path), tolerance=1e-9)
    rounding = re.search(r"by up to (\S+) in this run", str(raised.value))
    assert rounding
    assert float(rounding[1]) > 1e-9


def test_a_graph_that_returns_nan_is_refused(tmp_path: Path) -> None:
    encoder = small_encoder()
    pooled, tokens = graphs_of(encoder, tmp_path)

    def spoil(graph: onnx.GraphProto) -> None:
        graph.node[-1].output[0] = "right"
        graph.initializer.append(numpy_helper.from_array(np.float32(np.nan), "nan"))
        graph.node.append(onnx.helper.make_node("Add", ["right", "nan"], ["pooled"]))

    change(pooled, spoil)
    with pytest.raises(VerificationError, match="got nan"):
        verify(encoder, pooled, tokens)


def test_a_graph_of_another_encoder_is_refused_by_its_shape(tmp_path: Path) -> None:
    encoder = small_encoder()
    (tmp_path / "other").mkdir()
    wider, _ = graphs_of(small_encoder(hidden_size=6), tmp_path / "other")
    _, tokens = graphs_of(encoder, tmp_path)
    with pytest.raises(VerificationError, match=r"pooled has shape \[1, 12\], \[1, 8\] expected"):
        verify(encoder, wider, tokens)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    encoder = small_encoder()
    pooled, tokens = graphs_of(encoder, tmp_path)
    tokens.write_bytes(tokens.read_bytes()[:100])
    with pytest.raises(VerificationError, match=r"tokens\.onnx: onnxruntime cannot load it"):
        verify(encoder, pooled, tokens)


def test_a_graph_that_cannot_run_is_refused_with_the_case(tmp_path: Path) -> None:
    encoder = small_encoder()
    pooled, tokens = graphs_of(encoder, tmp_path)
    change(pooled, lambda graph: change_tensor(graph, "embedding", lambda values: values[:4]))
    with pytest.raises(VerificationError, match=r"pooled\.onnx, B=\d+, T=\d+, .*: onnxruntime cannot run it"):
        verify(encoder, pooled, tokens)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_weight_that_is_not_finite_is_named_before_anything_runs(tmp_path: Path, value: float) -> None:
    encoder = small_encoder()
    paths = graphs_of(encoder, tmp_path)
    with torch.no_grad():
        encoder.embedding.weight[3, 2] = value
    with pytest.raises(WeightsError, match=r"embedding\.weight is not finite: .* at \[3, 2\], 1 such value"):
        verify(encoder, *paths)


def test_an_encoder_in_training_stays_so(tmp_path: Path) -> None:
    encoder = small_encoder(dropout=0.5).train()
    assert verify(encoder, *graphs_of(encoder, tmp_path)).max_error_pooled < 2e-6
    assert encoder.training
    assert encoder.core.training


def test_golden_sequences_are_cases_too(tmp_path: Path) -> None:
    encoder = small_encoder()
    pooled, tokens = graphs_of(encoder, tmp_path)
    golden = reference(encoder, random_batch([2, 5]))
    golden.pooled[1, 3] += 1e-3
    with pytest.raises(VerificationError, match=r"golden sequences, B=2, T=5, .*row 1 of length 5, dimension 3"):
        verify_graphs(encoder, pooled, tokens, max_length=9, source=IdSource(VOCABULARY, 0), golden=golden)


def test_the_grid_mixes_lengths_from_one_token_to_the_longest() -> None:
    batches = list(grid(IdSource(VOCABULARY, 0), MAX_LENGTH))
    assert {len(batch) for batch in batches} == {1, 2, 3, 4, 16, 32}
    assert max(int(batch.lengths.max()) for batch in batches) == MAX_LENGTH
    for batch in batches:
        if len(batch) > 1:
            assert batch.lengths.min() == 1


def test_the_reference_is_the_mean_of_the_encoder_s_own_outputs_in_float64() -> None:
    encoder = small_encoder(pooling="mean")
    batch = random_batch([4, 1])
    found = reference(encoder, batch)
    assert found.tokens.dtype == np.float64
    assert np.abs(found.tokens[:4].mean(axis=0) - found.pooled[0]).max() < 1e-15
    assert next(encoder.parameters()).dtype == torch.float32


def test_a_gru_that_resets_before_the_product_is_proven_against_its_own_equations(tmp_path: Path) -> None:
    encoder = small_encoder(layers=2, linear_before_reset=False)
    pooled, tokens = graphs_of(encoder, tmp_path)
    assert verify(encoder, pooled, tokens).max_error_pooled < 1e-6

    def reset_after_product(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name == "linear_before_reset":
                    attribute.i = 1

    change(pooled, reset_after_product)
    with pytest.raises(VerificationError, match=r"pooled\.onnx: disagrees"):
        verify(encoder, pooled, tokens)


def test_an_encoder_is_judged_by_what_float32_can_do(tmp_path: Path) -> None:
    encoder = make_stiff(small_encoder(**STIFF))
    proof = prove(encoder, *graphs_of(encoder, tmp_path), max_length=60)
    found = proof.verification
    assert found.max_error_float32 is not None
    assert found.max_error_float32 > 1e-5
    assert 1e-5 < max(found.max_error_pooled, found.max_error_tokens) <= proof.tolerance <= 1e-3
    assert proof.tolerance == allowed_error(found.max_error_float32)


@needs_kernels
def test_the_native_kernels_are_measured_too(tmp_path: Path) -> None:
    encoder = small_encoder("bilstm", "mean+max", layers=2)
    found = verify(encoder, *graphs_of(encoder, tmp_path)).max_error_native
    assert found is not None
    assert 0 < found < 2e-6


@pytest.mark.parametrize(
    ("own", "allowed"), [(0.0, 1e-5), (2.4e-6, 1e-5), (3e-6, 1.2e-5), (1.234e-5, 5e-5), (2.5e-4, 1e-3), (0.3, 1e-3)]
)
def test_what_is_allowed_is_four_times_what_float32_is_off_within_bounds(own: float, allowed: float) -> None:
    assert allowed_error(own) == allowed


def test_the_options_that_decide_are_named_and_do(tmp_path: Path) -> None:
    encoder = make_stiff(small_encoder(**STIFF))
    paths = graphs_of(encoder, tmp_path)
    with pytest.raises(VerificationError) as raised:
        prove(encoder, *paths, max_length=60, tolerance=1e-5)
    advice = re.search(
        r"lets rounding errors grow.*Up to (\d+) tokens all agree: .*add --max-length \1 or less\. "
        r"--sequences FILE verifies with real.*--tolerance (\S+) accepts errors of that size",
        str(raised.value),
    )
    assert advice, str(raised.value)
    assert prove(encoder, *paths, max_length=int(advice[1]) // 2, tolerance=1e-5).tolerance == 1e-5
    assert prove(encoder, *paths, max_length=60, tolerance=float(advice[2])).tolerance == float(advice[2])


def test_sequences_on_which_float32_itself_is_lost_are_refused(tmp_path: Path) -> None:
    encoder = make_stiff(small_encoder(**STIFF), largest=2.8)
    with pytest.raises(VerificationError, match=r"tolerance 0\.001; .*add --max-length \d+ or less"):
        prove(encoder, *graphs_of(encoder, tmp_path), max_length=500)


@needs_kernels
def test_native_kernels_that_compute_something_else_are_refused_by_name(tmp_path: Path) -> None:
    encoder = small_encoder(layers=2)
    pooled, tokens = graphs_of(encoder, tmp_path)

    def double_and_halve(graph: onnx.GraphProto) -> None:
        """The same for onnxruntime; the kernels read weights, and know nothing of what stands between layers."""
        _, upper = [one for one in graph.node if one.op_type == "GRU"]
        graph.initializer.append(numpy_helper.from_array(np.float32(2), "two"))
        double = onnx.helper.make_node("Mul", [upper.input[0], "two"], ["doubled"])
        graph.node.insert(list(graph.node).index(upper), double)
        upper.input[0] = "doubled"
        change_tensor(graph, upper.input[1], lambda values: values / np.float32(2))

    change(pooled, double_and_halve)
    with pytest.raises(VerificationError, match=r"^the native kernels \(\w+\): disagrees with PyTorch"):
        verify(encoder, pooled, tokens)
