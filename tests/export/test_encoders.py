"""The encoders against plain loops, each other, and every other way to batch the same sequences."""

from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from birnn_bundle.cells import GRU_RESET_FIRST, Architecture
from birnn_bundle.manifest import Pooling
from birnn_export.directions import reversed_steps
from birnn_export.encoders import (
    BiFromEquations,
    BiGRU,
    BiRNN,
    BiRNNScratch,
    BiStack,
    EncoderConfig,
    RNNScratch,
    SequenceEncoder,
)

ARCHITECTURES = get_args(Architecture)
POOLINGS = get_args(Pooling)
VOCABULARY = 11


def encoder(architecture: str, pooling: str = "final", layers: int = 2, **more: Any) -> SequenceEncoder:
    torch.manual_seed(7)
    options: dict[str, Any] = {"embedding_size": 5, "hidden_size": 6, **more}
    config = EncoderConfig(architecture, VOCABULARY, layers=layers, pooling=pooling, **options)  # type: ignore[arg-type]
    return SequenceEncoder(config).double().eval()


def padded(sequences: list[list[int]], steps: int | None = None, padding: int = 0) -> tuple[Tensor, Tensor]:
    steps = steps or max(map(len, sequences))
    ids = [sequence + [padding] * (steps - len(sequence)) for sequence in sequences]
    return torch.tensor(ids), torch.tensor([len(sequence) for sequence in sequences])


def one_direction(rnn: RNNScratch, inputs: list[Tensor]) -> list[Tensor]:
    h = torch.zeros(rnn.W_hh.shape[0], dtype=rnn.W_hh.dtype)
    states = []
    for x in inputs:
        h = torch.tanh(x @ rnn.W_xh + h @ rnn.W_hh + (0 if rnn.b_h is None else rnn.b_h))
        states.append(h)
    return states


def test_scratch_follows_the_equation_in_both_directions() -> None:
    torch.manual_seed(1)
    core = BiRNNScratch(3, 4, layers=2).double()
    x = torch.randn(1, 5, 3, dtype=torch.float64)
    outputs, final = core(x, torch.tensor([5]))

    steps = list(x[0])
    for forward_rnn, backward_rnn in zip(core.forward_rnns, core.backward_rnns, strict=True):
        assert isinstance(forward_rnn, RNNScratch)
        assert isinstance(backward_rnn, RNNScratch)
        f_states = one_direction(forward_rnn, steps)
        b_states = one_direction(backward_rnn, steps[::-1])
        steps = [torch.cat(pair) for pair in zip(f_states, b_states[::-1], strict=True)]
    torch.testing.assert_close(outputs[0], torch.stack(steps))
    torch.testing.assert_close(final[0], torch.cat([f_states[-1], b_states[-1]]))


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scratch_and_concise_agree_on_copied_weights(layers: int, bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    concise = BiRNN(5, 8, layers, bias).to(dtype)
    scratch = BiRNNScratch.from_concise(concise)
    x, lengths = torch.randn(4, 9, 5, dtype=dtype), torch.tensor([9, 1, 4, 8])
    for one, other in zip(concise(x, lengths), scratch(x, lengths), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    for one, other in zip(scratch(x, lengths), scratch.to_concise()(x, lengths), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_relu_birnn_cannot_become_scratch() -> None:
    with pytest.raises(ValueError, match="only a tanh BiRNN"):
        BiRNNScratch.from_concise(BiRNN(5, 8, nonlinearity="relu"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_final_is_last_forward_output_and_first_backward_output(architecture: str) -> None:
    model = encoder(architecture)
    ids, lengths = padded([[3, 4, 5, 6, 7], [8, 9], [10]])
    outputs, final = model.run(ids, lengths)
    hidden = model.config.hidden_size
    for row, length in enumerate(lengths):
        torch.testing.assert_close(final[row, :hidden], outputs[row, length - 1, :hidden])
        torch.testing.assert_close(final[row, hidden:], outputs[row, 0, hidden:])
        if length > 1:
            assert not torch.allclose(final[row, :hidden], outputs[row, 0, :hidden])
            assert not torch.allclose(final[row, hidden:], outputs[row, length - 1, hidden:])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_backward_outputs_are_flipped_back_to_their_tokens(architecture: str) -> None:
    model = encoder(architecture, layers=1)
    hidden = model.config.hidden_size
    ids, lengths = padded([[3, 4, 5, 6], [3, 4, 5, 9]])
    outputs = model.tokens(ids, lengths)
    # Only the last token differs: the forward half sees that at the last step alone, the backward half everywhere.
    torch.testing.assert_close(outputs[0, :3, :hidden], outputs[1, :3, :hidden])
    assert (outputs[0, :, hidden:] - outputs[1, :, hidden:]).abs().amax(dim=1).min() > 1e-6
    # The backward output at the last token depends on that token alone.
    alone = model.tokens(*padded([[6]]))
    torch.testing.assert_close(outputs[0, 3, hidden:], alone[0, 0, hidden:])


def test_reversed_steps_stay_inside_each_length_and_undo_themselves() -> None:
    index = reversed_steps(torch.tensor([4, 2, 1]), 4)
    assert index.tolist() == [[3, 2, 1, 0], [1, 0, 2, 3], [0, 1, 2, 3]]
    assert torch.equal(index.gather(1, index), torch.arange(4).expand(3, 4))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_equals_a_plain_loop_over_single_sequences(architecture: str, pooling: str) -> None:
    model = encoder(architecture, pooling)
    sequences = [[3], [4, 5, 6, 7, 8, 9], [10, 3], [5, 5, 5, 5]]
    pooled = model(*padded(sequences))
    hidden = model.config.hidden_size
    assert pooled.shape == (4, model.config.dimension)
    for row, sequence in enumerate(sequences):
        outputs = model.tokens(*padded([sequence]))[0]
        parts = {
            "final": torch.cat([outputs[-1, :hidden], outputs[0, hidden:]]),
            "mean": outputs.mean(dim=0),
            "max": outputs.max(dim=0).values,
        }
        expected = torch.cat([parts[name] for name in pooling.split("+")])
        torch.testing.assert_close(pooled[row], expected)


def test_max_pooling_of_negative_outputs_ignores_padding_zeros() -> None:
    model = encoder("birnn", "max", layers=1)
    with torch.no_grad():
        for name, parameter in model.core.named_parameters():
            parameter.fill_(-1.0 if "bias" in name else 0.0)
    pooled = model(*padded([[3, 4], [3, 4, 5, 6]]))
    assert pooled.max() < -0.9


sequences = st.lists(st.lists(st.integers(3, VOCABULARY - 1), min_size=1, max_size=9), min_size=1, max_size=5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@given(batch=sequences, extra=st.integers(0, 4), padding=st.integers(0, VOCABULARY - 1), data=st.data())
@settings(max_examples=15, deadline=None)
def test_padding_and_neighbors_never_change_an_answer(
    architecture: str, batch: list[list[int]], extra: int, padding: int, data: st.DataObject
) -> None:
    model = encoder(architecture, data.draw(st.sampled_from(POOLINGS)))
    steps = max(map(len, batch)) + extra
    with torch.inference_mode():
        together = model(*padded(batch, steps, padding))
        tokens = model.tokens(*padded(batch, steps, padding))
        for row, sequence in enumerate(batch):
            torch.testing.assert_close(together[row], model(*padded([sequence]))[0], atol=1e-12, rtol=0)
            alone = model.tokens(*padded([sequence]))[0]
            torch.testing.assert_close(tokens[row, : len(sequence)], alone, atol=1e-12, rtol=0)
            assert not tokens[row, len(sequence) :].any()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_do_not_flow_from_padding(architecture: str) -> None:
    model = encoder(architecture, "mean+max")
    model(*padded([[3, 4], [5, 6, 7]], steps=5)).sum().backward()
    assert model.embedding.weight.grad is not None
    assert not model.embedding.weight.grad[0].any()
    assert model.embedding.weight.grad[3:8].abs().sum(dim=1).min() > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_acts_in_training_only(architecture: str) -> None:
    model = encoder(architecture, dropout=0.5)
    batch = padded([[3, 4, 5], [6, 7]])
    assert torch.equal(model(*batch), model(*batch))
    model.train()
    assert not torch.equal(model(*batch), model(*batch))


@pytest.mark.parametrize("wrong", [[0, 3], [4, 1], [-1, 2]])
def test_impossible_lengths_are_refused(wrong: list[int]) -> None:
    with pytest.raises(ValueError, match="lengths must be between 1 and 3"):
        encoder("bigru")(torch.ones(2, 3, dtype=torch.long), torch.tensor(wrong))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be a whole number of at least 1"),
        ({"layers": True}, "layers must be"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"pooling": "sum"}, "pooling must be one of"),
        ({"architecture": "gru"}, "architecture must be one of"),
        ({"architecture": "birnn-scratch", "nonlinearity": "relu"}, "has the nonlinearity tanh only, not relu"),
        ({"architecture": "birnn", "gate_activation": "hard_sigmoid"}, "birnn has no gates"),
        ({"gate_activation": "softsign"}, "gate_activation must be one of"),
        ({"bias": 1}, "bias must be true or false"),
    ],
)
def test_impossible_configurations_are_refused(change: dict[str, Any], message: str) -> None:
    valid: dict[str, Any] = {"architecture": "bigru", "vocab_size": 5, "embedding_size": 4, "hidden_size": 3}
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**{**valid, **change})


def test_dimensions_follow_pooling() -> None:
    assert encoder("bigru", "final").config.dimension == 12
    assert encoder("bigru", "mean+max").config.dimension == 24
    assert encoder("bigru", "mean+max").config.token_dimension == 12


def gru_step(rnn: torch.nn.GRU, suffix: str, x: Tensor, h: Tensor) -> Tensor:
    """One step of one row of a GRU that resets before the product, gate by gate."""
    W, R = getattr(rnn, f"weight_ih_{suffix}").chunk(3), getattr(rnn, f"weight_hh_{suffix}").chunk(3)
    b, c = getattr(rnn, f"bias_ih_{suffix}").chunk(3), getattr(rnn, f"bias_hh_{suffix}").chunk(3)
    r, z = (torch.sigmoid(W[gate] @ x + b[gate] + R[gate] @ h + c[gate]) for gate in (0, 1))
    n = torch.tanh(W[2] @ x + b[2] + R[2] @ (r * h) + c[2])
    return (1 - z) * n + z * h


def test_a_gru_that_resets_before_the_product_follows_its_equations_in_both_directions() -> None:
    torch.manual_seed(2)
    core = BiFromEquations(GRU_RESET_FIRST, 3, 4, layers=2).double()
    x = torch.randn(1, 5, 3, dtype=torch.float64)
    outputs, final = core(x, torch.tensor([5]))

    steps = list(x[0])
    for layer in range(2):
        sides = []
        for suffix, order in ((f"l{layer}", steps), (f"l{layer}_reverse", steps[::-1])):
            h, states = torch.zeros(4, dtype=torch.float64), []
            for step in order:
                h = gru_step(core.rnn, suffix, step, h)
                states.append(h)
            sides.append(states)
        steps = [torch.cat(pair) for pair in zip(sides[0], sides[1][::-1], strict=True)]
        last = torch.cat([sides[0][-1], sides[1][-1]])
    assert (outputs[0] - torch.stack(steps)).abs().max() < 1e-12
    assert (final[0] - last).abs().max() < 1e-12


def test_the_two_places_of_a_reset_gate_give_different_encodings_and_share_parameter_names() -> None:
    torch.manual_seed(3)
    after, before = BiGRU(3, 4).double(), BiFromEquations(GRU_RESET_FIRST, 3, 4).double()
    before.load_state_dict(after.state_dict())
    x, lengths = torch.randn(2, 6, 3, dtype=torch.float64), torch.tensor([6, 4])
    assert (after(x, lengths)[1] - before(x, lengths)[1]).abs().max() > 1e-3


def test_a_gru_that_resets_before_the_product_reads_exact_lengths() -> None:
    together = encoder("bigru", "mean+max", linear_before_reset=False)
    ids, lengths = padded([[1, 2, 3, 4, 5], [6, 7], [8]], steps=8, padding=9)
    for row, length in enumerate(lengths.tolist()):
        alone = together(ids[row : row + 1, :length], lengths[row : row + 1])
        assert (together(ids, lengths)[row] - alone[0]).abs().max() < 1e-12


def test_only_a_gru_can_reset_before_the_product() -> None:
    with pytest.raises(ValueError, match="linear_before_reset false exists for bigru only, not for bilstm"):
        EncoderConfig("bilstm", 5, 4, 3, linear_before_reset=False)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_of_different_sizes_stand_on_each_other(architecture: Architecture) -> None:
    torch.manual_seed(1)
    config = EncoderConfig(architecture, 5, 4, 3, layers=2, pooling="mean", hidden_sizes=(6, 3))
    whole = SequenceEncoder(config).eval().double()
    assert isinstance(whole.core, BiStack)
    lower, upper = whole.core.layers
    ids, lengths = torch.tensor([[1, 2, 3, 4], [3, 2, 0, 0]]), torch.tensor([4, 2])
    outputs, final = upper(lower(whole.embedding(ids), lengths)[0], lengths)
    assert outputs.shape == (2, 4, 6)
    assert torch.equal(whole.tokens(ids, lengths), outputs)
    assert torch.equal(whole.run(ids, lengths)[1], final)
    assert config.layer_sizes == (6, 3)
    assert config.input_sizes == (4, 12)


@pytest.mark.parametrize("sizes", [(6,), (6, 4), (3, 3), (6, 6, 3), (0, 3), (2.5, 3)])
def test_hidden_sizes_that_contradict_the_others_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="hidden_sizes must be"):
        EncoderConfig("bigru", 5, 4, 3, layers=2, hidden_sizes=sizes)
