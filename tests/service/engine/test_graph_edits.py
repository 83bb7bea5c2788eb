from pathlib import Path

import numpy as np
import onnx
import pytest

from birnn_bundle.onnxruntime import ort
from birnn_export.verification import reference
from birnn_service.engine.directions import Directions
from birnn_service.engine.graph_edits import in_half_precision, split_directions
from tests.export.small_encoders import (
    CORES,
    POOLINGS,
    VOCABULARY,
    dense_tokens,
    graphs_of,
    random_batch,
    run_graph,
    session_of,
    small_encoder,
)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("architecture", "nonlinearity"), CORES)
def test_directions_side_by_side_give_the_bits_of_the_whole_graph(
    tmp_path: Path, architecture: str, nonlinearity: str, layers: int, pooling: str, bias: bool
) -> None:
    encoder = small_encoder(architecture, pooling, layers=layers, bias=bias, nonlinearity=nonlinearity, hidden_size=20)
    random = np.random.default_rng(1)
    for path in graphs_of(encoder, tmp_path):
        whole, directions = session_of(path), Directions(onnx.load(path), path.name)
        for rows in (1, 1, 2, 8, 33):
            lengths = random.integers(1, 50, rows).astype(np.int32)
            # Random ids behind the ends, too.
            ids = random.integers(0, VOCABULARY, (int(lengths.max()), rows), dtype=np.int32)
            assert np.array_equal(
                directions.run({"ids": ids, "lengths": lengths}), run_graph(whole, ids, lengths.tolist())
            )


@pytest.mark.parametrize("sizes", [(6, 3), (4, 9, 5)], ids=str)
def test_directions_of_layers_of_different_sizes_give_the_bits_of_the_whole_graph(
    tmp_path: Path, sizes: tuple[int, ...]
) -> None:
    encoder = small_encoder("bigru", "mean+max", layers=len(sizes), hidden_size=sizes[-1], hidden_sizes=sizes)
    ids = np.random.default_rng(1).integers(0, VOCABULARY, (9, 3), dtype=np.int32)
    lengths = np.array([4, 9, 1], dtype=np.int32)
    for path in graphs_of(encoder, tmp_path):
        found = Directions(onnx.load(path), path.name).run({"ids": ids, "lengths": lengths})
        assert np.array_equal(found, run_graph(session_of(path), ids, lengths.tolist()))


@pytest.mark.parametrize("layers", [1, 3])
def test_each_direction_keeps_half_of_the_weights_and_conforms_to_the_standard(tmp_path: Path, layers: int) -> None:
    path = graphs_of(small_encoder("bilstm", "mean+max", layers=layers), tmp_path)[0]
    stages = split_directions(onnx.load(path))
    assert len(stages) == layers
    for stage in stages:
        for graph, direction in zip(stage.graphs, (b"forward", b"reverse"), strict=True):
            model = onnx.load_from_string(graph)
            onnx.checker.check_model(model, full_check=True)
            (node,) = [node for node in model.graph.node if node.op_type == "LSTM"]
            assert [a.s for a in node.attribute if a.name == "direction"] == [direction]
            weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
            assert [weights[name][0] for name in node.input[1:4]] == [1, 1, 1]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("architecture", "nonlinearity"), CORES)
def test_half_precision_is_close_to_pytorch_in_float64(
    tmp_path: Path, architecture: str, nonlinearity: str, layers: int, pooling: str
) -> None:
    """On a CPU onnxruntime computes these graphs in float32, on weights and outputs of layers in float16."""
    encoder = small_encoder(
        architecture, pooling, layers=layers, nonlinearity=nonlinearity, embedding_size=32, hidden_size=64
    )
    batch = random_batch([3, 1, 30, 60, 5])
    expected = reference(encoder, batch)
    for path in graphs_of(encoder, tmp_path):
        graph = in_half_precision(onnx.load(path))
        onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)
        session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
        found = run_graph(session, batch.padded(), batch.lengths.tolist())
        wanted = expected.pooled if path.stem == "pooled" else dense_tokens(expected, 60)
        assert found.dtype == np.float32
        difference = np.abs(found - wanted).max()
        # Not in float32 by mistake, and not wrong.
        assert 1e-6 < difference < 2e-3
        cosine = (found * wanted).sum() / np.linalg.norm(found) / np.linalg.norm(wanted)
        assert cosine > 0.99999


@pytest.mark.parametrize("pooling", POOLINGS)
def test_half_precision_is_of_the_recurrence_and_its_weights_and_of_nothing_else(tmp_path: Path, pooling: str) -> None:
    for path in graphs_of(small_encoder("bigru", pooling, layers=2), tmp_path):
        model = onnx.shape_inference.infer_shapes(onnx.load_from_string(in_half_precision(onnx.load(path))))
        half = onnx.TensorProto.FLOAT16
        types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
        types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
        recurrent = [node for node in model.graph.node if node.op_type == "GRU"]
        for node in recurrent:
            assert {types[name] for name in node.input[:4]} == {half}
        assert {name for name in types if types[name] == half} == {
            "embedding", "W0", "R0", "B0", "W1", "R1", "B1", "embedded", "Y0", "outputs0_by_row", "outputs0",
            *(name for name in recurrent[-1].output if name),
        }  # fmt: skip
        assert [one.type.tensor_type.elem_type for one in model.graph.output] == [onnx.TensorProto.FLOAT]
