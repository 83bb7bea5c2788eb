"""The encoder as CPUs with bf16 instructions compute it: operands of products in few digits, all else in float32.

The equations stand at the head of `birnn_export.graph`. Rounded are the recurrent weights and the state they
are multiplied with, and the input weights and inputs as well. Only the first layer's products of an embedding may be a
table, made in full precision, where that is not too large. Sums, gates, states and pooling stay float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from birnn_bundle.golden import Golden
from birnn_bundle.ragged import RaggedBatch
from birnn_export.directions import read_both_ways
from birnn_export.encoders import EncoderConfig, SequenceEncoder
from birnn_export.recurrent_weights import Layer, recurrent_layers
from birnn_export.verification import one_by_one

# W [G H, I], R [G H, H], the input biases and the hidden biases [G H] of one direction, in ONNX's order of gates.
Direction = tuple[Tensor, Tensor, Tensor, Tensor]
# [B, K] times the transpose of [N, K].
Product = Callable[[Tensor, Tensor], Tensor]


def with_rounded_products(encoder: SequenceEncoder, batch: RaggedBatch, dtype: torch.dtype, table: bool) -> Golden:
    """Encodings of `batch`, each sequence alone, where operands of products are rounded to `dtype`.

    With `table`, the first layer's products of an embedding are not; features have none.

    Raises:
        WeightsError: A weight is not finite.
    """
    config = encoder.config
    weights = {name: tensor.numpy(force=True) for name, tensor in encoder.state_dict().items()}
    layers = [_directions(layer) for layer in recurrent_layers(config, weights)]

    def run(values: Tensor) -> tuple[Tensor, Tensor]:
        lengths = torch.tensor([values.shape[1]])
        outputs = values if batch.features else torch.from_numpy(weights["embedding.weight"])[values]
        for number, directions in enumerate(layers):
            exact_inputs = table and number == 0 and not batch.features
            forward, backward = (partial(_read, config, one, dtype, exact_inputs) for one in directions)
            outputs, final = read_both_ways(outputs, lengths, forward, backward)
        return outputs, final

    return one_by_one(encoder, batch, run)


def _directions(layer: Layer) -> list[Direction]:
    W, R = torch.from_numpy(layer[0]), torch.from_numpy(layer[1])
    rows = W.shape[1]
    biases = torch.zeros(2, 2 * rows) if layer[2] is None else torch.from_numpy(layer[2])
    return [(W[side], R[side], biases[side, :rows], biases[side, rows:]) for side in (0, 1)]


def _read(config: EncoderConfig, side: Direction, dtype: torch.dtype, exact_inputs: bool, x: Tensor) -> Tensor:
    """States h_1..h_T, [B, T, H], of one direction after reading x [B, T, I] from its first step to its last."""

    def product(values: Tensor, weights: Tensor) -> Tensor:
        return values.to(dtype).float() @ weights.to(dtype).float().T

    W, R, input_bias, hidden_bias = side
    W_x = (x @ W.T if exact_inputs else product(x, W)) + input_bias
    h = c = x.new_zeros(x.shape[0], config.hidden_size)
    states = []
    for W_x_t in W_x.unbind(1):
        match config.architecture:
            case "bigru":
                h = _gru(config, W_x_t, R, hidden_bias, h, product)
            case "bilstm":
                i, o, f, g = (W_x_t + product(h, R) + hidden_bias).chunk(4, dim=1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
            case "birnn" | "birnn-scratch":
                total = W_x_t + product(h, R) + hidden_bias
                h = torch.relu(total) if config.nonlinearity == "relu" else torch.tanh(total)
        states.append(h)
    return torch.stack(states, dim=1)


def _gru(config: EncoderConfig, W_x: Tensor, R: Tensor, bias: Tensor, h: Tensor, product: Product) -> Tensor:
    H = config.hidden_size
    W_zr, W_n = W_x[:, : 2 * H], W_x[:, 2 * H :]
    z, r = torch.sigmoid(W_zr + product(h, R[: 2 * H]) + bias[: 2 * H]).chunk(2, dim=1)
    if config.linear_before_reset:
        n = torch.tanh(W_n + r * (product(h, R[2 * H :]) + bias[2 * H :]))
    else:
        n = torch.tanh(W_n + product(r * h, R[2 * H :]) + bias[2 * H :])
    return (1 - z) * n + z * h
