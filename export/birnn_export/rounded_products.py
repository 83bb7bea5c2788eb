"""The encoder as CPUs with bf16 instructions compute it: operands of products in few digits, all else in float32.

The equations stand in `birnn_bundle.cells`. Rounded are the recurrent weights and the state they
are multiplied with, and the input weights and inputs as well. Only the first layer's products of an embedding may be a
table, made in full precision, where that is not too large. Sums, gates, states and pooling stay float32.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from birnn_bundle.golden import Golden
from birnn_bundle.ragged import RaggedBatch
from birnn_export.directions import Reader, read_layers
from birnn_export.encoders import SequenceEncoder
from birnn_export.equations import Direction, product, read
from birnn_export.recurrent_weights import Layer, recurrent_layers
from birnn_export.verification import one_by_one


def with_rounded_products(encoder: SequenceEncoder, batch: RaggedBatch, dtype: torch.dtype, table: bool) -> Golden:
    """Encodings of `batch`, each sequence alone, where operands of products are rounded to `dtype`.

    With `table`, the first layer's products of an embedding are not; features have none.

    Raises:
        WeightsError: A weight is not finite.
    """
    config = encoder.config
    weights = {name: tensor.numpy(force=True) for name, tensor in encoder.state_dict().items()}
    layers = [_directions(layer) for layer in recurrent_layers(config, weights)]

    def rounded(values: Tensor, weights: Tensor) -> Tensor:
        return product(values.to(dtype).float(), weights.to(dtype).float())

    def reader(number: int, direction: Direction) -> Reader:
        of_inputs = product if table and number == 0 and not batch.features else rounded
        return partial(read, config.cell, direction, of_inputs=of_inputs, of_states=rounded)

    readers = [(reader(number, one), reader(number, other)) for number, (one, other) in enumerate(layers)]

    def run(values: Tensor) -> tuple[Tensor, Tensor]:
        x = values if batch.features else torch.from_numpy(weights["embedding.weight"])[values]
        return read_layers(x, torch.tensor([values.shape[1]]), readers)

    return one_by_one(encoder, batch, run)


def _directions(layer: Layer) -> list[Direction]:
    W, R = torch.from_numpy(layer[0]), torch.from_numpy(layer[1])
    rows = W.shape[1]
    biases = torch.zeros(2, 2 * rows) if layer[2] is None else torch.from_numpy(layer[2])
    return [Direction(W[side], R[side], biases[side, :rows], biases[side, rows:]) for side in (0, 1)]
