from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birnn_bundle.ragged import RaggedBatch
from birnn_export.graph import IR_VERSION, OPSET, write_graphs
from birnn_export.recurrent_weights import WeightsError
from birnn_export.verification import reference
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
    weights_of,
)

RECURRENT = {"GRU", "LSTM", "RNN"}


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(("architecture", "nonlinearity"), CORES)
def test_every_encoder_gives_in_onnxruntime_what_pytorch_gives_in_float64(
    tmp_path: Path, architecture: str, nonlinearity: str, layers: int, bias: bool, pooling: str
) -> None:
    encoder = small_encoder(architecture, pooling, layers=layers, bias=bias, nonlinearity=nonlinearity)
    pooled, tokens = map(session_of, graphs_of(encoder, tmp_path))
    batch = random_batch([3, 1, 9, 12, 5])
    expected = reference(encoder, batch)
    ids = batch.padded()
    assert np.abs(run_graph(pooled, ids, batch.lengths.tolist()) - expected.pooled).max() < 1e-5
    assert np.abs(run_graph(tokens, ids, batch.lengths.tolist()) - dense_tokens(expected, 12)).max() < 1e-5


@pytest.mark.parametrize("architecture", ["bigru", "bilstm"])
def test_sizes_of_a_real_encoder_agree_too(tmp_path: Path, architecture: str) -> None:
    encoder = small_encoder(architecture, "mean+max", embedding_size=64, hidden_size=256, layers=2)
    pooled, tokens = map(session_of, graphs_of(encoder, tmp_path))
    batch = random_batch([1, 40, 17])
    expected = reference(encoder, batch)
    ids = batch.padded()
    assert np.abs(run_graph(pooled, ids, batch.lengths.tolist()) - expected.pooled).max() < 1e-5
    assert np.abs(run_graph(tokens, ids, batch.lengths.tolist()) - dense_tokens(expected, 40)).max() < 1e-5


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("architecture", "nonlinearity"), CORES)
def test_a_vocabulary_smaller_than_the_embedding_takes_its_place_and_the_answer_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, nonlinearity: str, layers: int
) -> None:
    encoder = small_encoder(
        architecture, "mean", layers=layers, nonlinearity=nonlinearity, embedding_size=24, hidden_size=8
    )
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    after = graphs_of(encoder, tmp_path / "after")
    monkeypatch.setattr("birnn_export.graph.without_embedding", lambda embedding, W: (embedding, W))
    before = graphs_of(encoder, tmp_path / "before")
    batch = random_batch([3, 1, 9, 12, 5])
    for one, other in zip(before, after, strict=True):
        shapes = [
            {tensor.name: list(tensor.dims) for tensor in onnx.load(path).graph.initializer} for path in (one, other)
        ]
        assert [shape["embedding"] for shape in shapes] == [[VOCABULARY, 24], [VOCABULARY, VOCABULARY]]
        assert [shape["W0"][2] for shape in shapes] == [24, VOCABULARY]
        found = [run_graph(session_of(path), batch.padded(), batch.lengths.tolist()) for path in (one, other)]
        assert 0 < np.abs(found[0] - found[1]).max() < 1e-6


@pytest.mark.parametrize("architecture", ["birnn-scratch", "birnn", "bigru", "bilstm"])
def test_pooled_graph_with_final_pooling_has_no_per_token_output_of_the_last_layer(
    tmp_path: Path, architecture: str
) -> None:
    encoder = small_encoder(architecture, "final", layers=2)
    model = onnx.load(graphs_of(encoder, tmp_path)[0])
    first, last = [node for node in model.graph.node if node.op_type in RECURRENT]
    assert list(first.output) == ["Y0"]
    assert list(last.output) == ["", "Y_h"]


@pytest.mark.parametrize(("architecture", "nonlinearity"), CORES)
def test_recurrent_nodes_have_only_attributes_that_every_provider_runs(
    tmp_path: Path, architecture: str, nonlinearity: str
) -> None:
    encoder = small_encoder(architecture, nonlinearity=nonlinearity)
    expected = {"direction", "hidden_size"}
    if architecture == "bigru":
        expected.add("linear_before_reset")
    if nonlinearity == "relu":
        expected.add("activations")
    for path in graphs_of(encoder, tmp_path):
        (node,) = [node for node in onnx.load(path).graph.node if node.op_type in RECURRENT]
        assert {attribute.name for attribute in node.attribute} == expected
        assert node.input[4] == "lengths"


@pytest.mark.parametrize("pooling", POOLINGS)
def test_graphs_declare_time_major_ids_of_any_shape(tmp_path: Path, pooling: str) -> None:
    encoder = small_encoder(pooling=pooling)
    shapes = {"pooled": ["B", encoder.config.dimension], "tokens": ["T", "B", encoder.config.token_dimension]}
    for path in graphs_of(encoder, tmp_path):
        session = session_of(path)
        assert [(one.name, one.type, one.shape) for one in session.get_inputs()] == [
            ("ids", "tensor(int32)", ["T", "B"]),
            ("lengths", "tensor(int32)", ["B"]),
        ]
        (output,) = session.get_outputs()
        assert (output.name, output.type) == (path.stem, "tensor(float)")
        assert output.shape == shapes[path.stem]
        model = onnx.load(path, load_external_data=False)
        assert (model.ir_version, [one.version for one in model.opset_import]) == (IR_VERSION, [OPSET])


def test_both_graphs_share_one_weights_file_that_holds_each_tensor_once_and_aligned(tmp_path: Path) -> None:
    encoder = small_encoder(layers=2)
    places = []
    for path in graphs_of(encoder, tmp_path):
        model = onnx.load(path, load_external_data=False)
        external = {
            tensor.name: {entry.key: entry.value for entry in tensor.external_data}
            for tensor in model.graph.initializer
            if tensor.data_location == onnx.TensorProto.EXTERNAL
        }
        places.append(external)
    assert places[0] == places[1]
    assert set(places[0]) == {"embedding", "W0", "R0", "B0", "W1", "R1", "B1"}
    assert {place["location"] for place in places[0].values()} == {"weights.bin"}
    begins = sorted(int(place["offset"]) for place in places[0].values())
    ends = sorted(int(place["offset"]) + int(place["length"]) for place in places[0].values())
    assert all(begin % 4096 == 0 for begin in begins)
    assert all(end <= begin for end, begin in zip(ends, begins[1:], strict=False))
    assert (tmp_path / "weights.bin").stat().st_size == ends[-1]


def test_the_same_weights_give_the_same_bytes(tmp_path: Path) -> None:
    encoder = small_encoder()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        graphs_of(encoder, tmp_path / folder)
    for file in ("pooled.onnx", "tokens.onnx", "weights.bin"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("architecture", ["bigru", "bilstm"])
def test_rows_of_length_zero_give_zeros_and_leave_their_neighbors_alone(
    tmp_path: Path, architecture: str, pooling: str
) -> None:
    encoder = small_encoder(architecture, pooling, layers=2)
    pooled, tokens = map(session_of, graphs_of(encoder, tmp_path))
    batch = random_batch([4, 7])
    expected = reference(encoder, batch)
    ids = np.concatenate([batch.padded(), np.full((7, 2), 5, dtype=np.int32)], axis=1)
    found = run_graph(pooled, ids, [4, 7, 0, 0])
    assert np.abs(found[:2] - expected.pooled).max() < 1e-5
    assert (found[2:] == 0).all()
    assert (run_graph(tokens, ids, [4, 7, 0, 0])[:, 2:] == 0).all()


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for architecture, pooling in (("bigru", "final"), ("bilstm", "mean+max"), ("birnn-scratch", "max")):
        encoder = small_encoder(architecture, pooling, layers=2)
        paths = graphs_of(encoder, tmp_path_factory.mktemp(architecture))
        found += [(path.stem, session_of(path)) for path in paths]
    return found


sequences = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=20)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(sequences, min_size=1, max_size=6), further=st.integers(0, 6), seed=st.integers(0, 1000))
def test_padding_and_neighbors_never_change_an_answer(
    sessions: list[tuple[str, object]], rows: list[list[int]], further: int, seed: int
) -> None:
    batch = RaggedBatch.from_lists(rows)
    lengths = batch.lengths
    ids = batch.padded(steps=int(lengths.max()) + further)
    is_padding = np.arange(len(ids))[:, None] >= lengths
    ids[is_padding] = np.random.default_rng(seed).integers(0, VOCABULARY, ids.shape)[is_padding]
    for output, session in sessions:
        together = run_graph(session, ids, lengths.tolist())
        for row, sequence in enumerate(rows):
            alone = run_graph(session, np.array(sequence, dtype=np.int32)[:, None], [len(sequence)])
            if output == "pooled":
                assert np.abs(together[row] - alone[0]).max() < 1e-6
            else:
                assert np.abs(together[: len(sequence), row] - alone[:, 0]).max() < 1e-6
                assert (together[len(sequence) :, row] == 0).all()


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    encoder = small_encoder()
    weights = {name: values for name, values in weights_of(encoder).items() if name != "core.rnn.bias_hh_l0_reverse"}
    with pytest.raises(WeightsError, match=r"core\.rnn\.bias_hh_l0_reverse is missing"):
        write_graphs(encoder.config, weights, tmp_path, "small", 1)


def test_a_weight_of_the_wrong_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    encoder = small_encoder()
    weights = {**weights_of(encoder), "core.rnn.weight_ih_l0": np.zeros((12, 6), dtype=np.float32)}
    with pytest.raises(WeightsError, match=r"weight_ih_l0 has shape \[12, 6\], the configuration says \[12, 5\]"):
        write_graphs(encoder.config, weights, tmp_path, "small", 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_named_with_its_place(tmp_path: Path, value: float) -> None:
    encoder = small_encoder("birnn-scratch")
    weights = {name: values.copy() for name, values in weights_of(encoder).items()}
    weights["core.backward_rnns.0.W_hh"][2, 1] = value
    with pytest.raises(WeightsError, match=r"core\.backward_rnns\.0\.W_hh is not finite: .* at \[2, 1\], 1 such"):
        write_graphs(encoder.config, weights, tmp_path, "small", 1)
