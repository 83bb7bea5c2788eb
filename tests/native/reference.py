"""Bidirectional recurrences in float64 numpy, one sequence and one step at a time, written from the equations."""

from collections.abc import Callable, Sequence
from functools import partial

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


def int8_states(
    cell: Cell, layer: Layer, direction: int, inputs: Doubles, known: Doubles, *, first_layer: bool
) -> Doubles:
    """States [T, H] of one direction in int8, each from the one before it as it is `known` [T, H], in reading order.

    Known states are those of a kernel: then nothing adds up over the steps, and a product of whole numbers that is off
    by 1 shows. `inputs` [T, I] of the first layer are not rounded; those of others are states of the layer below.
    """
    return _walk(cell, layer, direction, inputs, known=known, first_layer=first_layer)


def _walk(
    cell: Cell,
    layer: Layer,
    direction: int,
    inputs: Doubles,
    *,
    known: Doubles | None = None,
    first_layer: bool = True,
) -> Doubles:
    """States [T, H] of one direction over inputs [T, I], in reading order; in int8 where they are `known`."""
    W, R = layer.W[direction].astype(np.float64), layer.R[direction].astype(np.float64)
    rows, H = R.shape
    B = np.zeros(2 * rows) if layer.B is None else layer.B[direction].astype(np.float64)
    of_input = _product(W, rounds=known is not None and not first_layer)
    of_state, of_reset = (_product(weights, rounds=known is not None) for weights in (R, R[2 * H :]))
    h, c, states = np.zeros(H), np.zeros(H), []
    for step, x in enumerate(inputs):
        if known is not None and step:
            h = known[step - 1]
        wx, rh = (np.split(sums, len(cell.gates)) for sums in (of_input(x) + B[:rows], of_state(h) + B[rows:]))
        if cell in (GRU, GRU_RESET_FIRST):
            z, r = _sigmoid(wx[0] + rh[0]), _sigmoid(wx[1] + rh[1])
            reset = r * rh[2] if cell == GRU else of_reset(r * h) + B[rows + 2 * H :]
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


def _product(weights: Doubles, *, rounds: bool) -> Callable[[Doubles], Doubles]:
    """Multiplies weights [N, K] by values [K]; if it `rounds`, values are states and become multiples of 1 / 127."""
    if not rounds:
        return partial(np.matmul, weights)
    whole, units = _int8_weights(weights)
    return lambda states: np.asarray(whole @ np.rint(states * 127).astype(np.int64) * units / 127)


def _int8_weights(weights: Doubles) -> tuple[NDArray[np.int64], Doubles]:
    """Weights [N, K] as whole numbers of at most 127, and the unit of each row.

    The unit is a 127th of 60 to 100 % of the largest, whichever errs least in squares. Then the worst of those that
    were rounded to one side are rounded to the other, until the errors of a row cancel out.
    """
    largest = np.abs(weights).max(axis=1)
    candidates = [np.where(largest > 0, largest, 1) * percent / 12700 for percent in range(100, 59, -1)]
    rounded = [np.clip(np.rint(weights / unit[:, None]), -127, 127) for unit in candidates]
    squares = [
        ((whole * unit[:, None] - weights) ** 2).sum(axis=1) for whole, unit in zip(rounded, candidates, strict=True)
    ]
    rows, best = np.arange(len(weights)), np.argmin(squares, axis=0)
    whole, units = np.array(rounded)[best, rows], np.array(candidates)[best, rows]
    for row, errors in enumerate(whole - weights / units[:, None]):
        sign = np.sign(errors.sum())
        movable = (errors * sign > 0) & (whole[row] != -127 * sign)
        order = np.argsort(np.where(movable, -errors * sign, np.inf), kind="stable")
        whole[row, order[: min(int(np.rint(abs(errors.sum()))), movable.sum())]] -= sign
    return whole.astype(np.int64), units


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
