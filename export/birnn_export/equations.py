"""The recurrent cells in PyTorch, written out from the equations in `birnn_bundle.cells`."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from birnn_bundle.cells import Cell, GateActivation, Nonlinearity

# [..., K] times the transpose of [N, K].
Product = Callable[[Tensor, Tensor], Tensor]

ACTIVATIONS: dict[Nonlinearity | GateActivation, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "hard_sigmoid": lambda x: (x / 6 + 0.5).clamp(0, 1),
    "hard_sigmoid_keras2": lambda x: (x / 5 + 0.5).clamp(0, 1),
    "tanh": torch.tanh,
    "relu": torch.relu,
}


class Direction(NamedTuple):
    """Weights of one direction of one layer, gates in ONNX's order: W [G H, I], R [G H, H] and two biases [G H]."""

    W: Tensor
    R: Tensor
    input_bias: Tensor
    hidden_bias: Tensor


def product(values: Tensor, weights: Tensor) -> Tensor:
    """values [..., K] times the transpose of weights [N, K]."""
    return values @ weights.T


def read(
    cell: Cell, weights: Direction, x: Tensor, of_inputs: Product = product, of_states: Product = product
) -> Tensor:
    """States h_1..h_T, [B, T, H], of one direction after reading x [B, T, I] from its first step to its last.

    Args:
        cell: The recurrence.
        weights: Of the direction.
        x: What it reads.
        of_inputs: Multiplies inputs.
        of_states: Multiplies states.
    """
    gate, state = ACTIVATIONS[cell.gate_activation], ACTIVATIONS[cell.nonlinearity]
    W_x = of_inputs(x, weights.W) + weights.input_bias
    h = c = x.new_zeros(x.shape[0], weights.R.shape[1])
    states = []
    for W_x_t in W_x.unbind(1):
        match cell.family:
            case "gru":
                h = _gru(cell, W_x_t, weights, h, of_states)
            case "lstm":
                i, o, f, g = (W_x_t + of_states(h, weights.R) + weights.hidden_bias).chunk(4, dim=1)
                c = gate(f) * c + gate(i) * state(g)
                h = gate(o) * state(c)
            case "rnn":
                h = state(W_x_t + of_states(h, weights.R) + weights.hidden_bias)
        states.append(h)
    return torch.stack(states, dim=1)


def _gru(cell: Cell, W_x: Tensor, weights: Direction, h: Tensor, of_states: Product) -> Tensor:
    gate, state = ACTIVATIONS[cell.gate_activation], ACTIVATIONS[cell.nonlinearity]
    H = h.shape[1]
    R, d = weights.R, weights.hidden_bias
    z, r = gate(W_x[:, : 2 * H] + of_states(h, R[: 2 * H]) + d[: 2 * H]).chunk(2, dim=1)
    W_n = W_x[:, 2 * H :]
    if cell.linear_before_reset:
        n = state(W_n + r * (of_states(h, R[2 * H :]) + d[2 * H :]))
    else:
        n = state(W_n + of_states(r * h, R[2 * H :]) + d[2 * H :])
    return (1 - z) * n + z * h
