import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from birnn_bundle.cells import CELLS, GRU, LSTM, RNN_RELU, RNN_TANH, Cell
from birnn_bundle.ragged import offsets_of
from birnn_native.kernel import Kernel, Layer, Pooling
from birnn_native.library import NativeUnavailableError, Precision, instruction_sets
from tests.native.reference import encode, random_layers

try:
    SETS = instruction_sets()
except NativeUnavailableError as error:
    pytest.skip(str(error), allow_module_level=True)

# Every way of computing that this processor has; those with VNNI have nothing of their own but int8.
WAYS = [
    (name, precision) for name, has in SETS.items() for precision in has if "vnni" not in name or precision == "int8"
]
TOLERANCE: dict[Precision, float] = {"fp32": 2e-6, "bf16": 2e-2, "int8": 3e-2}
VOCABULARY = 11
KERNELS = [cell for cell in CELLS if cell.kernel is not None]


def batch_of(random: np.random.Generator, rows: int, longest: int) -> NDArray[np.int64]:
    return offsets_of(random.integers(1, longest + 1, rows))


def reference(
    cell: Cell, layers: list[Layer], inputs: NDArray[np.float32], offsets: NDArray[np.int64], pooling: Pooling
) -> NDArray[np.float64]:
    sequences = [inputs[start:end].astype(np.float64) for start, end in itertools.pairwise(offsets)]
    encoded = [encode(cell, layers, sequence, pooling) for sequence in sequences]
    return np.concatenate(encoded) if pooling is Pooling.TOKENS else np.array(encoded)


# Sizes that fill no vector, fill some exactly, and leave a rest, of all layers or each; an odd number of inputs.
@pytest.mark.parametrize("inputs", [3, 8])
@pytest.mark.parametrize("sizes", [[5], [16], [50], [5, 5], [16, 16], [50, 50, 50], [33, 5], [3, 40, 16]], ids=str)
@pytest.mark.parametrize("cell", KERNELS, ids=lambda cell: cell.name)
@pytest.mark.parametrize(("name", "precision"), WAYS)
def test_every_instruction_set_agrees_with_the_equations_in_float64(
    name: str, precision: Precision, cell: Cell, sizes: list[int], inputs: int
) -> None:
    if precision == "int8" and cell == RNN_RELU:
        pytest.skip("its states have no bound")
    random = np.random.default_rng(sizes[0])
    for bias, source in itertools.product((True, False), ("table", "embedding", "features")):
        weights = random_layers(random, cell, sizes, inputs, bias)
        offsets = batch_of(random, int(random.integers(1, 20)), 12)
        embedding = random.normal(size=(VOCABULARY, inputs)).astype(np.float32)
        ids = random.integers(0, VOCABULARY, offsets[-1]).astype(np.int32)
        kernel = Kernel(
            cell,
            weights,
            None if source == "features" else embedding,
            precision=precision,
            instruction_set=name,
            most_table_bytes=1 << 24 if source == "table" else 0,
        )
        for pooling in Pooling:
            found = kernel.run(embedding[ids] if source == "features" else ids, offsets, pooling)
            expected = reference(cell, weights, embedding[ids], offsets, pooling)
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, atol=TOLERANCE[precision], rtol=TOLERANCE[precision])


def make_kernel(name: str, precision: Precision, cell: Cell = GRU, layers: int = 2, hidden: int = 40) -> Kernel:
    random = np.random.default_rng(7)
    embedding = random.normal(size=(VOCABULARY, 9)).astype(np.float32)
    weights = random_layers(random, cell, [hidden] * layers, 9)
    return Kernel(cell, weights, embedding, precision=precision, instruction_set=name)


@pytest.mark.parametrize(("name", "precision"), WAYS)
@pytest.mark.parametrize("cell", KERNELS, ids=lambda cell: cell.name)
def test_a_row_is_the_same_to_the_bit_alone_and_in_any_batch_and_on_two_threads(
    name: str, precision: Precision, cell: Cell
) -> None:
    if precision == "int8" and cell == RNN_RELU:
        pytest.skip("its states have no bound")
    kernel = make_kernel(name, precision, cell)

    @given(
        st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=30), min_size=1, max_size=40), st.data()
    )
    @settings(deadline=None, max_examples=25)
    def check(rows: list[list[int]], data: st.DataObject) -> None:
        pooling = data.draw(st.sampled_from(Pooling))
        ids = np.array([number for row in rows for number in row], dtype=np.int32)
        offsets = offsets_of(np.array([len(row) for row in rows]))
        together = kernel.run(ids, offsets, pooling, threads=data.draw(st.sampled_from([1, 2])))
        pieces = offsets if pooling is Pooling.TOKENS else np.arange(len(rows) + 1)
        for row, sequence in enumerate(rows):
            alone = kernel.run(np.array(sequence, dtype=np.int32), np.array([0, len(sequence)]), pooling)
            assert together[pieces[row] : pieces[row + 1]].tobytes() == alone.tobytes()

    check()


def test_batches_larger_than_a_workspace_are_cut_without_a_trace() -> None:
    kernel = make_kernel(next(iter(SETS)), "fp32")
    random = np.random.default_rng(3)
    offsets = offsets_of(np.concatenate([random.integers(1, 600, 60), [5000, 1]]))
    ids = random.integers(0, VOCABULARY, offsets[-1]).astype(np.int32)
    for pooling in Pooling:
        together = kernel.run(ids, offsets, pooling)
        pieces = offsets if pooling is Pooling.TOKENS else np.arange(len(offsets))
        for row in (0, 17, 60, 61):
            mine = ids[offsets[row] : offsets[row + 1]]
            alone = kernel.run(mine, np.array([0, len(mine)]), pooling)
            assert together[pieces[row] : pieces[row + 1]].tobytes() == alone.tobytes()


def test_values_that_are_no_numbers_stay_none() -> None:
    for cell in (GRU, LSTM, RNN_TANH, RNN_RELU):
        layers = random_layers(np.random.default_rng(0), cell, [16], 4)
        for name in SETS:
            kernel = Kernel(cell, layers, None, instruction_set=name)
            features = np.full((3, 4), np.nan, dtype=np.float32)
            assert np.isnan(kernel.run(features, np.array([0, 3]), Pooling.FINAL)).all()


@pytest.mark.parametrize(
    ("ids", "offsets", "message"),
    [
        ([0, VOCABULARY], [0, 2], "an id is 11"),
        ([0, -1], [0, 2], "an id is -1"),
        ([0, 1], [0, 0, 2], "an offset is 0, between 1 and 2 expected"),
        ([0, 1], [0, 3, 2], "an offset is 3, between 1 and 2 expected"),
        ([0, 1], [1, 2], "offsets must begin with 0"),
        ([0, 1], [0, 1], "offsets must end at the tokens"),
        ([0, 1], [0, 1 << 62], "offsets must end at the tokens"),
        ([0, 1], [0, -(1 << 63), 2], "an offset is -9223372036854775808"),
        ([0, 1], [0, (1 << 63) - 1, 2], "an offset is 9223372036854775807"),
        ([0], [0], "at least one row"),
        ([], [0, 0], "each row a token"),
    ],
)
def test_a_hostile_batch_is_refused(ids: list[int], offsets: list[int], message: str) -> None:
    kernel = make_kernel(next(iter(SETS)), "fp32")
    with pytest.raises(ValueError, match=message):
        kernel.run(np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int64), Pooling.FINAL)


@pytest.mark.parametrize(
    ("ids", "offsets"),
    [
        # In 32 bits it would be id 1, and the offset 2.
        (np.array([0, (1 << 32) + 1]), np.array([0, 2])),
        (np.array([0, 1], dtype=np.int32), np.array([0, 2.9])),
    ],
)
def test_numbers_that_a_conversion_would_change_are_refused(ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> None:
    with pytest.raises(ValueError, match=r"a batch holds (int64, int32|float64, int64) expected"):
        make_kernel(next(iter(SETS)), "fp32").run(ids, offsets, Pooling.FINAL)


@given(st.lists(st.integers(-3, 40), max_size=40), st.lists(st.integers(-5, 50), max_size=12), st.sampled_from(Pooling))
@settings(deadline=None, max_examples=500)
def test_whatever_comes_it_is_encoded_or_refused(ids: list[int], offsets: list[int], pooling: Pooling) -> None:
    kernel = make_kernel(next(iter(SETS)), "fp32")
    lengths = np.diff(offsets)
    good = (
        len(offsets) > 1
        and offsets[0] == 0
        and offsets[-1] == len(ids)
        and bool((lengths > 0).all())
        and all(0 <= number < VOCABULARY for number in ids)
    )
    try:
        found = kernel.run(np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int64), pooling)
    except ValueError:
        assert not good
    else:
        assert good
        assert np.isfinite(found).all()


def test_weights_that_do_not_belong_together_are_refused() -> None:
    random = np.random.default_rng(0)
    layers = random_layers(random, GRU, [16, 16], 9)
    embedding = random.normal(size=(VOCABULARY, 8)).astype(np.float32)
    with pytest.raises(ValueError, match="W of layer 0"):
        Kernel(GRU, layers, embedding)
    with pytest.raises(ValueError, match="of layer 0"):
        Kernel(LSTM, layers, None)
    with pytest.raises(ValueError, match="no kernels named mmx"):
        Kernel(GRU, layers, None, instruction_set="mmx")
    with pytest.raises(ValueError, match="bf16 needs a processor with AVX-512 BF16; portable has none"):
        Kernel(GRU, layers, None, instruction_set="portable", precision="bf16")


def test_tables_and_packed_weights_take_no_more_than_three_times_the_weights() -> None:
    random = np.random.default_rng(0)
    layers = random_layers(random, GRU, [256], 128)
    embedding = random.normal(size=(128, 128)).astype(np.float32)
    size = embedding.nbytes + sum(
        array.nbytes for layer in layers for array in (layer.W, layer.R, layer.B) if array is not None
    )
    assert Kernel(GRU, layers, embedding, most_table_bytes=2 * size).bytes <= 3 * size
