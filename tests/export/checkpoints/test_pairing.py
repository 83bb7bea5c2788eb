"""Two modules of one direction each, and cells, against what their own loops compute in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import birnn_export
from birnn_bundle.golden import Golden
from birnn_bundle.ragged import RaggedBatch
from birnn_export.checkpoints.adoption import adopt
from birnn_export.checkpoints.pairing import OneWay, with_pairs
from birnn_export.checkpoints.recurrence import Direction, Recurrence
from birnn_export.checkpoints.selection import Choices, select
from birnn_export.checkpoints.stored_weights import StoredWeights, from_state_dict
from birnn_export.training.checkpoint import CheckpointError
from birnn_export.verification import reference

F, H = 5, 3
BATCH = RaggedBatch.from_features(
    [np.random.default_rng(length).standard_normal((length, F), dtype=np.float32) for length in (1, 2, 6)]
)


def stored(module: nn.Module) -> StoredWeights:
    return StoredWeights("file.pt", from_state_dict(module.state_dict()))


def encodings(module: nn.Module, **choices: object) -> Golden:
    adopted = adopt(stored(module), None, Choices(pooling="final", embedding="none", **choices))  # type: ignore[arg-type]
    return reference(adopted.checkpoint.encoder, BATCH)


def one_way(rnn: nn.Module, x: Tensor) -> Tensor:
    """Outputs [T, H] of one direction that reads x [T, I] from its first row to its last."""
    if not isinstance(rnn, nn.RNNCellBase):
        outputs: Tensor = rnn(x)[0]
        return outputs
    states, state = [], None
    for row in x:
        state = rnn(row, state)
        states.append(state[0] if isinstance(state, tuple) else state)
    return torch.stack(states)


def both_ways(forward: nn.Module, backward: nn.Module, x: Tensor) -> Tensor:
    """Outputs [T, 2H]: the backward ones reversed back."""
    return torch.cat([one_way(forward, x), one_way(backward, x.flip(0)).flip(0)], dim=1)


def assert_same(found: Golden, *pairs: tuple[nn.Module, nn.Module]) -> None:
    """Per-token and final encodings are those of these pairs, each of which reads the outputs of the one before."""
    for row, values in enumerate(BATCH.row(row) for row in range(len(BATCH))):
        x = torch.from_numpy(values).double()
        with torch.inference_mode():
            for forward, backward in pairs:
                x = both_ways(forward.double(), backward.double(), x)
        begin, end = BATCH.offsets[row : row + 2]
        assert np.abs(found.tokens[begin:end] - x.numpy()).max() < 1e-12
        final = torch.cat([x[-1, :H], x[0, H:]])
        assert np.abs(found.pooled[row] - final.numpy()).max() < 1e-12


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM, nn.RNN, nn.GRUCell, nn.LSTMCell, nn.RNNCell])
def test_two_modules_of_one_direction_encode_as_their_own_loop_does(kind: type[nn.Module], bias: bool) -> None:
    torch.manual_seed(2)
    model = nn.ModuleDict({"fwd": kind(F, H, bias=bias), "bwd": kind(F, H, bias=bias)})
    choices = {"nonlinearity": "tanh"} if "RNN" in kind.__name__ else {}
    assert_same(encodings(model, **choices), (model["fwd"], model["bwd"]))


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        ("f", "b"),
        ("lstm_fw", "lstm_bw"),
        ("forward_lstm", "backward_lstm"),
        ("forwardLSTM", "backwardLSTM"),
        ("rnnFwd", "rnnBwd"),
        ("fw1", "bw1"),
        ("gru_l2r", "gru_r2l"),
        ("encoder_forward_cell", "encoder_backward_cell"),
    ],
)
def test_directions_are_told_by_one_word_of_their_names(forward: str, backward: str) -> None:
    torch.manual_seed(2)
    model = nn.ModuleDict({backward: nn.GRU(F, H), forward: nn.GRU(F, H)})
    assert_same(encodings(model), (model[forward], model[backward]))


def test_several_layers_of_each_direction_read_their_own_direction_only() -> None:
    torch.manual_seed(2)
    model = nn.ModuleDict({"fwd": nn.LSTM(F, H, num_layers=3), "bwd": nn.LSTM(F, H, num_layers=3)})
    assert_same(encodings(model), (model["fwd"], model["bwd"]))


def test_lists_of_cells_are_layers_that_read_both_directions() -> None:
    torch.manual_seed(2)
    sizes = (F, 2 * H, 2 * H)
    cells = {name: [nn.GRUCell(size, H) for size in sizes] for name in ("forward_cells", "backward_cells")}
    model = nn.ModuleDict({name: nn.ModuleList(layers) for name, layers in cells.items()})
    pairs = list(zip(cells["forward_cells"], cells["backward_cells"], strict=True))
    assert_same(encodings(model), *pairs)
    assert select(stored(model), Choices(embedding="none")).recurrence.place == "forward_cells and backward_cells"


def scratch_gru(place: str, inputs: int) -> dict[str, Tensor]:
    """Parameters of a GRU from scratch, which resets before the product."""
    shapes = {"W_x": (inputs, H), "W_h": (H, H), "b_": (H,)}
    return {f"{place}.{kind}{gate}": torch.randn(shape) for kind, shape in shapes.items() for gate in "rzh"}


def test_layers_of_different_kinds_are_no_stack() -> None:
    torch.manual_seed(2)
    below = scratch_gru("fw.0", F) | scratch_gru("bw.0", F)
    cells = {
        f"{way}.1.{name}": value for way in ("fw", "bw") for name, value in nn.GRUCell(2 * H, H).state_dict().items()
    }
    message = r"fw\.0 and bw\.0, fw\.1 and bw\.1 cannot be one bidirectional recurrence: are of different kinds"
    with pytest.raises(CheckpointError, match=message):
        select(StoredWeights("file.pt", from_state_dict(below | cells)), Choices(embedding="none"))
    above = scratch_gru("fw.1", 2 * H) | scratch_gru("bw.1", 2 * H)
    found = select(StoredWeights("file.pt", from_state_dict(below | above)), Choices(embedding="none")).recurrence
    assert len(found.layers) == 2
    assert found.linear_before_reset is False


def test_layers_keep_the_activation_of_their_gates() -> None:
    def one(place: str, inputs: int) -> OneWay:
        direction = Direction(np.zeros((4 * H, inputs), np.float32), np.zeros((4 * H, H), np.float32))
        return OneWay(place, "lstm", (direction,), frozenset({place}), gate_activation="hard_sigmoid")

    (found,) = with_pairs(one(f"{way}.{layer}", size) for way in ("fw", "bw") for layer, size in enumerate((F, 2 * H)))
    assert isinstance(found, Recurrence)
    assert (found.place, found.gate_activation) == ("fw and bw", "hard_sigmoid")


def test_layers_that_read_something_else_than_both_directions_are_refused() -> None:
    cells = {name: nn.ModuleList(nn.GRUCell(size, H) for size in (F, H)) for name in ("fw_cells", "bw_cells")}
    with pytest.raises(CheckpointError, match=r"cannot be one bidirectional recurrence: the input weights of layer 1"):
        encodings(nn.ModuleDict(cells))


def test_the_pair_is_said_and_how_it_is_understood() -> None:
    selection = select(stored(nn.ModuleDict({"fwd": nn.GRU(F, H), "bwd": nn.GRU(F, H)})), Choices(embedding="none"))
    assert str(selection.recurrence) == "fwd and bwd: bidirectional GRU, 1 layer, 5 -> 2 x 3"
    assert selection.notes == (
        "fwd and bwd are taken for the two directions of one recurrence: bwd reads each sequence from its last token, "
        "and its outputs are put back in the order of the tokens; --expect proves it",
    )


def test_a_pair_whose_names_do_not_tell_is_asked_for_and_then_taken() -> None:
    torch.manual_seed(2)
    model = nn.ModuleDict({"rnn1": nn.GRU(F, H), "rnn2": nn.GRU(F, H), "decoder": nn.GRU(2 * H, H)})
    with pytest.raises(CheckpointError) as raised:
        encodings(model)
    assert "rnn1 runs in one direction only" in str(raised.value)
    assert "if it is one direction and rnn2 the other, say which is which with --forward NAME --backward NAME" in str(
        raised.value
    )
    assert_same(encodings(model, pairs=(("rnn2", "rnn1"),)), (model["rnn2"], model["rnn1"]))


def test_named_pairs_are_stacked_in_their_order() -> None:
    torch.manual_seed(2)
    sizes = {"a": F, "b": F, "c": 2 * H, "d": 2 * H}
    model = nn.ModuleDict({name: nn.LSTM(size, H) for name, size in sizes.items()})
    found = encodings(model, pairs=(("a", "b"), ("c", "d")))
    assert_same(found, (model["a"], model["b"]), (model["c"], model["d"]))
    with pytest.raises(CheckpointError, match="cannot be one stack"):
        encodings(model, pairs=(("c", "d"), ("a", "b")))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (nn.LSTM(F, H), "are of different kinds"),
        (nn.GRU(F, H, num_layers=2), "have 1 and 2 layers"),
        (nn.GRU(F, 4), "the input weights of layer 0, backward, come to"),
        (nn.GRU(4, H), "the input weights of layer 0, backward, come to"),
    ],
)
def test_modules_that_do_not_fit_together_are_no_pair(other: nn.Module, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"fwd.* bwd cannot be one bidirectional recurrence: {message}"):
        encodings(nn.ModuleDict({"fwd": nn.GRU(F, H), "bwd": other}))
    with pytest.raises(CheckpointError, match=f"one and two cannot be one bidirectional layer: {message}"):
        encodings(nn.ModuleDict({"one": nn.GRU(F, H), "two": other}), pairs=(("one", "two"),))


def test_a_name_of_no_module_of_one_direction_is_refused() -> None:
    model = nn.ModuleDict({"one": nn.GRU(F, H), "two": nn.GRU(F, H), "both": nn.GRU(F, H, bidirectional=True)})
    with pytest.raises(CheckpointError, match=r"at --backward 'both'\. Such are: one, two"):
        encodings(model, pairs=(("one", "both"),))
    with pytest.raises(CheckpointError, match="both name 'one'"):
        encodings(model, pairs=(("one", "one"),))


def test_a_bidirectional_module_beside_a_pair_is_asked_about() -> None:
    model = nn.ModuleDict({"fwd": nn.GRU(F, H), "bwd": nn.GRU(F, H), "both": nn.GRU(F, H, bidirectional=True)})
    with pytest.raises(CheckpointError, match="holds several recurrences"):
        encodings(model)
    for prefix, place in (("fwd", "fwd and bwd"), ("bwd", "fwd and bwd"), ("both", "both")):
        assert select(stored(model), Choices(prefixes=(prefix,), embedding="none")).recurrence.place == place


@pytest.mark.parametrize("kind", [nn.RNN, nn.RNNCell])
def test_from_python_the_modules_say_their_nonlinearity(tmp_path: Path, kind: type[nn.RNN] | type[nn.RNNCell]) -> None:
    model = nn.ModuleDict({name: kind(F, H, nonlinearity="relu") for name in ("one", "two")})
    bundle = birnn_export.export_encoder(
        model, None, tmp_path / "m" / "1", pooling="final", pairs=[("one", "two")], embedding="none", max_length=20
    )
    assert bundle.manifest.nonlinearity == "relu"


@pytest.mark.parametrize("kind", [nn.RNN, nn.RNNCell])
def test_from_python_layers_that_hold_both_directions_say_their_nonlinearity(
    tmp_path: Path, kind: type[nn.RNN] | type[nn.RNNCell]
) -> None:
    layers = [
        nn.ModuleDict({way: kind(size, H, nonlinearity="relu") for way in ("fwd_rnn", "bwd_rnn")})
        for size in (F, 2 * H)
    ]
    model = nn.ModuleDict({"layers": nn.ModuleList(layers)})
    bundle = birnn_export.export_encoder(
        model, None, tmp_path / "m" / "1", pooling="final", embedding="none", max_length=20
    )
    assert (bundle.manifest.layers, bundle.manifest.nonlinearity) == (2, "relu")
