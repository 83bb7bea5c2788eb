"""What is missing, wrong or ambiguous in a checkpoint is said, with what was found."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from birnn_export.checkpoints.selection import Choices, select
from birnn_export.checkpoints.stored_weights import StoredWeights, from_state_dict
from birnn_export.training.checkpoint import CheckpointError
from tests.export.checkpoints.foreign_modules import Model, scratch_parameters


def stored(weights: dict[str, Tensor]) -> StoredWeights:
    return StoredWeights("file.pt", from_state_dict(weights))


def refusal(weights: dict[str, Tensor], choices: Choices | None = None) -> str:
    with pytest.raises(CheckpointError) as raised:
        select(stored(weights), choices or Choices())
    return str(raised.value)


def gru() -> dict[str, Tensor]:
    return Model(nn.GRU).state_dict()


def test_a_wrong_prefix_lists_what_is_there() -> None:
    message = refusal(gru(), Choices(prefixes=("decoder",)))
    assert message == (
        "file.pt: no recurrence is at --prefix 'decoder'. Found: encoder.rnn: bidirectional GRU, 1 layer, 5 -> 2 x 3"
    )


@pytest.mark.parametrize("prefix", ["encoder.rnn", "encoder.rnn.", "encoder"])
def test_a_prefix_is_the_place_or_what_stands_before_it(prefix: str) -> None:
    assert select(stored(gru()), Choices(prefixes=(prefix,))).recurrence.place == "encoder.rnn"


def test_missing_reverse_weights_are_named() -> None:
    weights = gru()
    del weights["encoder.rnn.weight_hh_l0_reverse"]
    assert "file.pt cannot be exported: encoder.rnn lacks weight_hh_l0_reverse; has bias_hh_l0" in refusal(weights)


def test_one_direction_is_refused_as_such() -> None:
    message = refusal({f"rnn.{name}": values for name, values in nn.LSTM(4, 3).state_dict().items()})
    assert "rnn runs in one direction only" in message
    assert "train with bidirectional=True" in message


def test_a_decoder_of_one_direction_does_not_hide_the_encoder() -> None:
    decoder = {f"decoder.{name}": values for name, values in nn.GRU(5, 3).state_dict().items()}
    selection = select(stored({**decoder, **gru()}), Choices())
    assert selection.recurrence.place == "encoder.rnn"
    assert "decoder.weight_ih_l0" in selection.unused


def test_one_direction_from_scratch_and_one_that_is_missing_are_refused() -> None:
    weights = scratch_parameters("h", ("f_rnn", "b_rnn"))
    assert "f_rnn runs in one direction only" in refusal({k: v for k, v in weights.items() if "b_rnn" not in k})
    assert "b_rnn runs in one direction only" in refusal({k: v for k, v in weights.items() if "f_rnn" not in k})
    assert "rnn runs in one direction only" in refusal({"rnn.W_xh": torch.ones(5, 3), "rnn.W_hh": torch.ones(3, 3)})


def test_a_gate_missing_from_scratch_is_named() -> None:
    weights = scratch_parameters("rzh", ("f", "b"))
    del weights["b.W_hr"]
    assert "b lacks W_hr; has b.W_hh" in refusal(weights)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named_with_its_place(value: float) -> None:
    weights = gru()
    weights["encoder.rnn.bias_ih_l0"][4] = value
    assert f"encoder.rnn.bias_ih_l0 is not finite: {value} at [4]" in refusal(weights)


def test_what_is_not_exported_need_not_be_finite() -> None:
    weights = gru()
    weights["head.bias"][0] = np.nan
    assert select(stored(weights), Choices()).recurrence.place == "encoder.rnn"


def test_weights_without_any_recurrence_are_listed() -> None:
    message = refusal({"conv.weight": torch.ones(2, 3)})
    assert message.startswith("file.pt: holds no recurrent weights that are known here, as those of nn.GRU")
    assert message.endswith("found: conv.weight [2, 3]")
    assert refusal({}).endswith("found: no floating point tensor")


def test_several_recurrences_are_listed_to_choose_from() -> None:
    weights = gru() | {
        f"other.{name}": values for name, values in nn.LSTM(5, 2, bidirectional=True).state_dict().items()
    }
    message = refusal(weights)
    assert "choose one with --prefix" in message
    assert (
        "encoder.rnn: bidirectional GRU, 1 layer, 5 -> 2 x 3; other: bidirectional LSTM, 1 layer, 5 -> 2 x 2" in message
    )
    assert select(stored(weights), Choices(prefixes=("other",))).recurrence.family == "lstm"


def test_a_plain_rnn_needs_its_nonlinearity() -> None:
    weights = Model(nn.RNN).state_dict()
    assert "add --nonlinearity tanh or --nonlinearity relu" in refusal(weights)
    assert select(stored(weights), Choices(nonlinearity="relu")).recurrence.nonlinearity == "relu"


@pytest.mark.parametrize(
    "choices", [Choices(nonlinearity="relu"), Choices(reset="before")], ids=["nonlinearity", "reset"]
)
def test_choices_that_contradict_the_weights_are_refused(choices: Choices) -> None:
    assert "does not fit encoder.rnn: bidirectional GRU" in refusal(gru(), choices)


def test_a_projection_is_refused() -> None:
    assert "is an LSTM with proj_size" in refusal(nn.LSTM(4, 3, proj_size=2, bidirectional=True).state_dict())


def test_the_top_level_is_a_place_too() -> None:
    recurrence = select(stored(nn.GRU(4, 3, bidirectional=True).state_dict()), Choices()).recurrence
    assert str(recurrence) == "the top level: bidirectional GRU, 1 layer, 4 -> 2 x 3"


def test_hidden_weights_of_no_known_recurrence_are_refused_with_their_shape() -> None:
    weights = {
        name: values[: len(values) // 2 * 2] for name, values in nn.GRU(4, 3, bidirectional=True).state_dict().items()
    }
    weights = {name: values[:8] for name, values in weights.items()}
    assert "hidden weights of shape [8, 3] are of no RNN, GRU or LSTM" in refusal(weights)


def test_two_embeddings_are_listed_to_choose_from() -> None:
    weights = gru() | {"position_embedding.weight": torch.ones(7, 5)}
    message = refusal(weights)
    assert "Add --embedding NAME" in message
    assert "token_embedding.weight [10, 5]; position_embedding.weight [7, 5]" in message
    assert (
        select(stored(weights), Choices(embedding="token_embedding.weight")).embedding_name == "token_embedding.weight"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [("head.weight", r"has shape \[1, 6\].* reads vectors of 5: \[vocabulary, 5\] expected"), ("nothing", "no tensor")],
)
def test_an_embedding_that_cannot_be_is_refused(name: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        select(stored(gru()), Choices(embedding=name))


@pytest.mark.parametrize(
    "name",
    [
        "decoder.weight",
        "lookup.weight",
        "ensemble.weight",
        "attn.in_proj_weight",
        "cell.weight_ih",
        "embed_proj.weight",
    ],
)
def test_a_tensor_is_no_embedding_by_its_width_alone(name: str) -> None:
    weights = gru() | {name: torch.ones(7, 5)}
    assert select(stored(weights), Choices()).embedding_name == "token_embedding.weight"
    del weights["token_embedding.weight"]
    assert f"one-hot for one-hot tokens. Found: {name} [7, 5]" in refusal(weights)


@pytest.mark.parametrize("name", ["posterior.embedding.weight", "pos_tagger.emb.weight", "inputEmbedding.weight"])
def test_an_embedding_is_known_by_its_own_name(name: str) -> None:
    weights = gru()
    weights[name] = weights.pop("token_embedding.weight")
    assert select(stored(weights), Choices()).embedding_name == name


@pytest.mark.parametrize("name", ["pos_emb.weight", "positional_embedding.weight", "posEmbed.weight"])
def test_positions_are_no_tokens(name: str) -> None:
    weights = gru() | {name: torch.ones(7, 5)}
    assert f"{name} [7, 5]" in refusal(weights)
    del weights["token_embedding.weight"]
    assert f"Found: {name} [7, 5]" in refusal(weights)


@pytest.mark.parametrize("old", [False, True], ids=["parametrization", "hook"])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_a_head_with_a_norm_does_not_matter(old: bool) -> None:
    norm = nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm
    model = Model(nn.GRU)
    model.head = norm(nn.Linear(5, 2))
    assert select(stored(model.state_dict()), Choices()).embedding_name == "token_embedding.weight"


def test_a_dense_layer_is_no_embedding() -> None:
    weights = gru() | {"embed_proj.weight": torch.ones(7, 5), "embed_proj.bias": torch.ones(7)}
    assert select(stored(weights), Choices()).embedding_name == "token_embedding.weight"
    del weights["token_embedding.weight"]
    assert select(stored(weights), Choices()).embedding is None


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("old", [False, True], ids=["parametrization", "hook"])
def test_parts_of_a_weight_are_not_the_weight(old: bool) -> None:
    norm = nn.utils.weight_norm if old else nn.utils.parametrizations.weight_norm
    model = Model(nn.GRU)
    norm(model.token_embedding)
    assert "is a part of a weight that is computed in each forward pass" in refusal(model.state_dict())
    model = Model(nn.GRU)
    norm(model.encoder["rnn"], "weight_hh_l0")
    message = refusal(model.state_dict())
    assert "weight_hh_l0" in message
    assert "remove_parametrizations or remove_weight_norm takes away" in message


@pytest.mark.parametrize(
    "name", ["encoder.rnn.h0", "encoder.rnn.weight_ch_l0", "encoder.rnn.weight_ih_l0_scale", "encoder.weight_hh_l0_raw"]
)
def test_a_recurrence_with_more_than_torch_knows_is_refused(name: str) -> None:
    assert f"encoder.rnn holds {name} beside what torch.nn knows" in refusal(gru() | {name: torch.ones(3)})


def test_what_stands_beside_a_recurrence_at_the_top_level_does_not_matter() -> None:
    weights = {**nn.GRU(5, 3, bidirectional=True).state_dict(), "temperature": torch.ones(1)}
    assert select(stored(weights), Choices()).unused == ("temperature",)


def test_a_recurrence_does_not_stand_on_itself() -> None:
    assert "--prefix names encoder.rnn more than once" in refusal(gru(), Choices(prefixes=("encoder", "encoder.rnn")))


def scratch(*places: str) -> dict[str, Tensor]:
    weights = scratch_parameters("h", ("f_rnn", "b_rnn"))
    del weights["embedding.weight"]
    return {f"{place}{name}": values for place in places for name, values in weights.items()}


def test_models_side_by_side_from_scratch_are_no_layers() -> None:
    message = refusal(scratch("models.0.", "models.1."))
    assert "holds several recurrences" in message
    assert select(stored(scratch("models.0.", "models.1.")), Choices(prefixes=("models.1",))).recurrence.place == (
        "models.1.f_rnn and models.1.b_rnn"
    )
    assert select(stored(scratch("1.")), Choices()).recurrence.place == "1.f_rnn and 1.b_rnn"


def test_peepholes_are_refused_and_output_layers_left_out() -> None:
    weights = scratch_parameters("ifco", ("f", "b"))
    assert "f has peepholes (f.W_ci), which are not served" in refusal(weights | {"f.W_ci": torch.ones(3)})
    weights = scratch_parameters("h", ("f", "b"), bias=False)
    outputs = {"f.W_ho": torch.ones(3, 2), "b.W_ho": torch.ones(3, 2), "f.b_o": torch.ones(2)}
    selection = select(stored(weights | outputs), Choices())
    assert not selection.recurrence.bias
    assert selection.unused == ("b.W_ho", "f.W_ho", "f.b_o")
