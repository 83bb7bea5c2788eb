"""Bidirectional recurrences in float64 numpy, one sequence and one step at a time, written from the equations."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.cells import GRU, GRU_RESET_FIRST, LSTM, RNN_RELU, RNN_TANH, Cell
from birnn_native.kernel import Layer, Pooling

Doubles = NDArray[np.float64]


def encode(cell: Cell, layers: Sequence[Layer], inputs: Doubles, pooling: Pooling) -> Doubles:
    """Encode one sequence [T, I]; [2H], [4H] or [T, 2H]. Equations and gate orders: head of `birnn_bundle/cells.py`."""
    x = inputs
    for layer in layers:
        forward, backward = _walk(cell, layer, 0, x), _walk(cell, layer, 1, x[::-1])[::-1]
        x = np.concatenate([forward, backward], axis=1)
    hidden = x.shape[1] // 2
    match pooling:
        case Pooling.FINAL:
            return np.concatenate([x[-1, :hidden], x[0, hidden:]])
        case Pooling.MEAN:
            return np.asarray(x.mean(axis=0))
        case Pooling.MAX:
            return np.asarray(x.max(axis=0))
        case Pooling.MEAN_MAX:
            return np.concatenate([x.mean(axis=0), x.max(axis=0)])
        case _:
            return x


def _walk(cell: Cell, layer: Layer, direction: int, inputs: Doubles) -> Doubles:
    """States [T, H] of one direction over inputs [T, I], in the order in which they are read."""
    W, R = layer.W[direction].astype(np.float64), layer.R[direction].astype(np.float64)
    rows, H = R.shape
    B = np.zeros(2 * rows) if layer.B is None else layer.B[direction].astype(np.float64)
    h, c, states = np.zeros(H), np.zeros(H), []
    for x in inputs:
        wx, rh = np.split(W @ x + B[:rows], len(cell.gates)), np.split(R @ h + B[rows:], len(cell.gates))
        if cell in (GRU, GRU_RESET_FIRST):
            z, r = _sigmoid(wx[0] + rh[0]), _sigmoid(wx[1] + rh[1])
            reset = r * rh[2] if cell == GRU else R[2 * H :] @ (r * h) + B[rows + 2 * H :]
            h = (1 - z) * np.tanh(wx[2] + reset) + z * h
        elif cell == LSTM:
            i, o, f = (_sigmoid(wx[gate] + rh[gate]) for gate in range(3))
            c = f * c + i * np.tanh(wx[3] + rh[3])
            h = o * np.tanh(c)
        elif cell == RNN_TANH:
            h = np.tanh(wx[0] + rh[0])
        elif cell == RNN_RELU:
            h = np.maximum(wx[0] + rh[0], 0)
        else:
            raise AssertionError(f"no equations of {cell.name} here")
        states.append(h)
    return np.array(states)


def _sigmoid(x: Doubles) -> Doubles:
    return 1 / (1 + np.exp(-x))


def random_layers(
    random: np.random.Generator, cell: Cell, sizes: Sequence[int], input_size: int, bias: bool = True
) -> list[Layer]:
    """Layers of hidden sizes `sizes` with weights as PyTorch draws them: uniform within 1 / sqrt(H)."""
    layers = []
    for hidden in sizes:
        rows, bound = len(cell.gates) * hidden, 1 / np.sqrt(hidden)
        shapes = ((2, rows, input_size), (2, rows, hidden), (2, 2 * rows))
        W, R, B = (random.uniform(-bound, bound, shape).astype(np.float32) for shape in shapes)
        layers.append(Layer(W, R, B if bias else None))
        input_size = 2 * hidden
    return layers
