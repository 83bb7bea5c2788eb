"""What int8 promises beyond the other precisions: exact products, and the same bits on every instruction set."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from birnn_bundle.cells import CELLS, GRU, GRU_RESET_FIRST, LSTM, RNN_RELU, RNN_TANH, Cell, find_cell
from birnn_bundle.ragged import offsets_of
from birnn_native.kernel import Kernel, Layer, Pooling, obstacle
from birnn_native.library import NativeUnavailableError, instruction_sets
from tests.native.reference import int8_states, random_layers

try:
    SETS = [name for name, precisions in instruction_sets().items() if "int8" in precisions]
except NativeUnavailableError as error:
    pytest.skip(str(error), allow_module_level=True)

CELLS_WITH_INT8 = [GRU, GRU_RESET_FIRST, LSTM, RNN_TANH]
by_name = pytest.mark.parametrize("cell", CELLS_WITH_INT8, ids=lambda cell: cell.name)


def kernels(
    cell: Cell, layers: list[Layer], embedding: NDArray[np.float32] | None, table: int = 1 << 26
) -> list[Kernel]:
    """One for each instruction set."""
    return [
        Kernel(cell, layers, embedding, precision="int8", instruction_set=name, most_table_bytes=table) for name in SETS
    ]


@by_name
@pytest.mark.parametrize("name", SETS)
def test_the_products_are_those_of_whole_numbers(name: str, cell: Cell) -> None:
    # With weights as large, a sum that is off by 1 moves a state by some 1e-4: far more than rounding in gates does.
    random = np.random.default_rng(5)
    for sizes in ([7], [16, 16], [50, 3], [5, 40, 33]):
        layers = random_layers(random, cell, sizes, 6)
        layers = [Layer(layer.W * 3, layer.R * 3, layer.B) for layer in layers]
        features = random.normal(size=(40, 6)).astype(np.float32)
        offsets = np.array([0, 40])
        below = features
        for depth in range(len(sizes)):
            # The states of a layer are the result of an encoder that ends there.
            kernel = Kernel(cell, layers[: depth + 1], None, precision="int8", instruction_set=name)
            found = kernel.run(features, offsets, Pooling.TOKENS)
            inputs, states = below.astype(np.float64), found.astype(np.float64)
            for direction, known in enumerate(np.split(states, 2, axis=1)):
                step = -1 if direction else 1
                expected = int8_states(
                    cell, layers[depth], direction, inputs[::step], known[::step], first_layer=depth == 0
                )
                np.testing.assert_allclose(known[::step], expected, rtol=0, atol=2e-6)
            below = found


@st.composite
def models(draw: st.DrawFn) -> tuple[Cell, list[Layer], NDArray[np.float32] | None, int]:
    """Any cell, sizes, weights and kind of input: layers, embedding, and memory that a table may take."""
    cell = draw(st.sampled_from(CELLS_WITH_INT8))
    sizes = draw(st.lists(st.integers(1, 70), min_size=1, max_size=3))
    inputs = draw(st.integers(1, 20))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    layers = random_layers(random, cell, sizes, inputs, bias=draw(st.booleans()))
    growth = draw(st.sampled_from([1, 1e-3, 4, 100]))
    layers = [Layer(np.float32(growth) * layer.W, np.float32(growth) * layer.R, layer.B) for layer in layers]
    embedding = random.normal(size=(11, inputs)).astype(np.float32) if draw(st.booleans()) else None
    return cell, layers, embedding, draw(st.sampled_from([0, 1 << 20]))


def random_batch(
    random: np.random.Generator, layers: list[Layer], embedding: NDArray[np.float32] | None
) -> tuple[NDArray[np.int32] | NDArray[np.float32], NDArray[np.int64]]:
    offsets = offsets_of(random.integers(1, 30, random.integers(1, 25)))
    if embedding is not None:
        return random.integers(0, len(embedding), offsets[-1]).astype(np.int32), offsets
    return random.normal(size=(offsets[-1], layers[0].W.shape[2])).astype(np.float32), offsets


@given(models(), st.integers(0, 2**32), st.sampled_from(Pooling), st.sampled_from([1, 2]))
@settings(deadline=None, max_examples=100)
def test_every_instruction_set_gives_the_same_bits(
    model: tuple[Cell, list[Layer], NDArray[np.float32] | None, int], seed: int, pooling: Pooling, threads: int
) -> None:
    cell, layers, embedding, table = model
    batch = random_batch(np.random.default_rng(seed), layers, embedding)
    results = [kernel.run(*batch, pooling, threads) for kernel in kernels(cell, layers, embedding, table)]
    assert len({result.tobytes() for result in results}) == 1


@pytest.mark.slow
@by_name
def test_every_instruction_set_gives_the_same_bits_for_ten_thousand_batches(cell: Cell) -> None:
    random = np.random.default_rng(11)
    for _ in range(50):
        sizes, inputs = random.integers(1, 100, random.integers(1, 4)).tolist(), int(random.integers(1, 30))
        layers = random_layers(random, cell, sizes, inputs, bias=bool(random.integers(2)))
        embedding = random.normal(size=(30, inputs)).astype(np.float32) if random.integers(3) else None
        made = kernels(cell, layers, embedding, int(random.integers(2)) << 24)
        for _ in range(50):
            batch, pooling = random_batch(random, layers, embedding), Pooling(int(random.integers(len(Pooling))))
            assert len({kernel.run(*batch, pooling).tobytes() for kernel in made}) == 1


@pytest.mark.parametrize("kind", [torch.nn.GRU, torch.nn.LSTM], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("depth", [1, 2])
def test_the_cosine_to_pytorch_in_float64_is_high(kind: type[torch.nn.GRU | torch.nn.LSTM], depth: int) -> None:
    torch.manual_seed(3)
    cell = GRU if kind is torch.nn.GRU else LSTM
    module = kind(64, 128, depth, bidirectional=True, batch_first=True).double()
    layers = []
    for number in range(depth):
        parts = []
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            both = [getattr(module, f"{name}_l{number}{suffix}").detach().numpy() for suffix in ("", "_reverse")]
            gates = [np.split(part.astype(np.float32), len(cell.gates)) for part in both]
            parts.append(np.array([np.concatenate([part[g] for g in cell.onnx_from_torch]) for part in gates]))
        layers.append(Layer(parts[0], parts[1], np.concatenate(parts[2:], axis=1)))
    module.load_state_dict({name: value.float().double() for name, value in module.state_dict().items()})
    random = np.random.default_rng(0)
    embedding = random.normal(size=(50, 64)).astype(np.float32)
    offsets = offsets_of(random.integers(20, 80, 50))
    ids = random.integers(0, 50, offsets[-1]).astype(np.int32)
    found = Kernel(cell, layers, embedding, precision="int8").run(ids, offsets, Pooling.MEAN).astype(np.float64)
    with torch.inference_mode():
        expected = np.array(
            [
                module(torch.from_numpy(embedding[ids[start:end]].astype(np.float64))[None])[0][0].mean(dim=0).numpy()
                for start, end in itertools.pairwise(offsets)
            ]
        )
    cosines = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.9999


def test_states_without_bound_are_refused_with_advice() -> None:
    layers = random_layers(np.random.default_rng(0), RNN_RELU, [16], 4)
    reason = r"int8 .* RNN, relu have no bound \(its activation is relu\); use bf16 or fp32"
    with pytest.raises(ValueError, match=reason):
        Kernel(RNN_RELU, layers, None, precision="int8")
    assert obstacle(RNN_RELU, "fp32") is None
    assert all(obstacle(cell, "int8") is None for cell in CELLS if cell.kernel is not None and cell != RNN_RELU)
    assert "onnxruntime serves it" in str(obstacle(find_cell("bilstm", "relu"), "int8"))


@pytest.mark.parametrize("weight", [np.nan, np.inf, -2e30])
@pytest.mark.parametrize("part", ["W", "R", "B"])
def test_weights_without_a_scale_are_refused(weight: float, part: str) -> None:
    layers = random_layers(np.random.default_rng(0), LSTM, [5, 5], 4)
    getattr(layers[1], part).flat[3] = weight
    with pytest.raises(ValueError, match=f"{part} holds .*; in int8 weights are finite, and 1e30 at most"):
        Kernel(LSTM, layers, None, precision="int8")
    Kernel(LSTM, layers, None)


@pytest.mark.parametrize("name", SETS)
def test_features_that_would_overflow_are_refused(name: str) -> None:
    layers = random_layers(np.random.default_rng(0), RNN_TANH, [5], 4)
    kernel = Kernel(RNN_TANH, layers, None, precision="int8", instruction_set=name)
    for wrong in (np.nan, -np.inf, 1e37):
        features = np.zeros((3, 4), dtype=np.float32)
        features[1, 2] = wrong
        with pytest.raises(ValueError, match=r"an input is .*; in int8 this encoder reads up to"):
            kernel.run(features, np.array([0, 3]), Pooling.FINAL)
    large = np.full((3, 4), 1e34, dtype=np.float32)
    assert np.isfinite(kernel.run(large, np.array([0, 3]), Pooling.FINAL)).all()
    with pytest.raises(ValueError, match="an input is inf"):
        Kernel(RNN_TANH, layers, np.full((3, 4), np.inf, dtype=np.float32), precision="int8")


@by_name
def test_weights_that_are_zero_and_the_largest_sums_are_exact(cell: Cell) -> None:
    # States at their bounds and weights all alike: the largest sums that a size can have, and rows that have no scale.
    for hidden in (40, 600):
        rows = len(cell.gates) * hidden
        W = np.full((2, rows, 1), 30, dtype=np.float32)
        R = np.full((2, rows, hidden), 0.5, dtype=np.float32)
        R[:, ::3] = 0
        features = np.ones((4, 1), dtype=np.float32)
        results = [
            kernel.run(features, np.array([0, 4]), Pooling.TOKENS)
            for kernel in kernels(cell, [Layer(W, R, None)], None)
        ]
        assert len({result.tobytes() for result in results}) == 1
        assert np.isfinite(results[0]).all()


def test_int8_takes_a_quarter_of_the_memory_beside_the_table() -> None:
    layers = random_layers(np.random.default_rng(0), GRU, [256, 256], 64)
    features = {precision: Kernel(GRU, layers, None, precision=precision).bytes for precision in ("fp32", "int8")}
    first = layers[0].W.nbytes
    assert features["int8"] - first < 0.27 * (features["fp32"] - first)
