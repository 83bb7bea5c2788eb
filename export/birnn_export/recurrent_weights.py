"""Recurrent weights in the layout of the ONNX operators, from a state_dict of a `SequenceEncoder`.

The equations, and the order of the gates on both sides, stand in `birnn_bundle.cells`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from birnn_export.encoders import EncoderConfig

Weights = Mapping[str, NDArray[np.float32]]
Layer = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32] | None]


class WeightsError(Exception):
    """A weight is missing, of the wrong shape or type, or not finite; says which and how."""


def recurrent_layers(config: EncoderConfig, weights: Weights) -> Iterator[Layer]:
    """W [2, G H, I], R [2, G H, H] and B [2, 2 G H] (None without bias) of each layer, forward direction first.

    G is the number of gates; I is the embedding size in the first layer and 2H of the layer below in the others.

    Raises:
        WeightsError: A weight is missing, of the wrong shape or not finite.
    """
    for layer in range(config.layers):
        sides = [_direction(config, weights, layer, backward) for backward in (False, True)]
        W, R = (np.stack([side[part] for side in sides]) for part in (0, 1))
        B = np.stack([side[2] for side in sides]) if config.bias else None
        yield W, R, B


def without_embedding(
    embedding: NDArray[np.float32], W: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The same first layer on one-hot tokens: the identity [V, V] as embedding, and W' [2, G H, V] = W embedding^T.

    W (embedding^T onehot) = (W embedding^T) onehot, with V columns in place of E: so the input products, a third of the
    work of a layer with E = H / 2, shrink to V / E.

    Args:
        embedding: Rows of all ids [V, E].
        W: Input weights of the first layer [2, G H, E].
    """
    folded = W.astype(np.float64) @ embedding.astype(np.float64).T
    return np.eye(len(embedding), dtype=np.float32), folded.astype(np.float32)


def weight(weights: Weights, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """One weight, checked.

    Raises:
        WeightsError: It is missing, has another shape or type than float32, or holds NaN or infinity.
    """
    if name not in weights:
        raise WeightsError(f"weight {name} is missing")
    values = weights[name]
    if values.shape != shape:
        raise WeightsError(f"weight {name} has shape {list(values.shape)}, the configuration says {list(shape)}")
    if values.dtype != np.float32:
        raise WeightsError(f"weight {name} is {values.dtype}, float32 expected")
    refuse_non_finite(name, values)
    return values


def refuse_non_finite(name: str, values: NDArray[np.floating[Any]]) -> None:
    """Check that a weight holds numbers only.

    Raises:
        WeightsError: It holds NaN or infinity; names the first place.
    """
    wrong = ~np.isfinite(values)
    if wrong.any():
        place = tuple(int(axis) for axis in np.argwhere(wrong)[0])
        raise WeightsError(
            f"weight {name} is not finite: {values[place]} at {list(place)}, {int(wrong.sum())} such value(s) in all; "
            "export an earlier checkpoint, or train again with a lower learning rate"
        )


class Names(NamedTuple):
    """Names of the parameters of one direction of one layer; "" for a bias that does not exist."""

    W: str
    R: str
    input_bias: str
    hidden_bias: str


def parameter_names(config: EncoderConfig, layer: int, backward: bool) -> Names:
    """How the `state_dict` of a `SequenceEncoder` names the parameters of one direction of one layer."""
    # Layers of different sizes are cores of their own.
    core, number = (f"core.layers.{layer}", 0) if config.hidden_sizes else ("core", layer)
    if config.architecture == "birnn-scratch":
        prefix = f"{core}.{'backward' if backward else 'forward'}_rnns.{number}"
        return Names(f"{prefix}.W_xh", f"{prefix}.W_hh", f"{prefix}.b_h" if config.bias else "", "")
    suffix = f"_l{number}{'_reverse' if backward else ''}"
    biases = (f"{core}.rnn.bias_ih{suffix}", f"{core}.rnn.bias_hh{suffix}") if config.bias else ("", "")
    return Names(f"{core}.rnn.weight_ih{suffix}", f"{core}.rnn.weight_hh{suffix}", *biases)


def _direction(
    config: EncoderConfig, weights: Weights, layer: int, backward: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """W [G H, I], R [G H, H] and B [2 G H] (zeros where there is no bias) of one direction of one layer."""
    H, inputs = config.layer_sizes[layer], config.input_sizes[layer]
    W_name, R_name, input_bias, hidden_bias = parameter_names(config, layer, backward)
    gates = config.cell.onnx_from_torch
    rows = len(gates) * H
    if config.architecture == "birnn-scratch":
        # x W_xh there, W x here.
        W = weight(weights, W_name, (inputs, H)).T
        R = weight(weights, R_name, (H, H)).T
    else:
        W = reorder_gates(weight(weights, W_name, (rows, inputs)), gates)
        R = reorder_gates(weight(weights, R_name, (rows, H)), gates)
    biases = [
        reorder_gates(weight(weights, name, (rows,)), gates) if name else np.zeros(rows, dtype=np.float32)
        for name in (input_bias, hidden_bias)
    ]
    return W, R, np.concatenate(biases)


def reorder_gates(values: NDArray[np.float32], gates: tuple[int, ...]) -> NDArray[np.float32]:
    """The blocks of H rows of `values` [G H, ...], one a gate, in the order `gates`."""
    blocks = np.split(values, len(gates))
    return np.concatenate([blocks[gate] for gate in gates])
