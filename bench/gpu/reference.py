"""The encoder of a bundle in PyTorch, made from the weights of its graph and not from a checkpoint."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from birnn_bundle.bundle import Bundle
from birnn_bundle.cells import Cell
from birnn_bundle.ragged import RaggedBatch
from birnn_native.kernel import Layer
from birnn_native.recurrent_graph import read_graph
from birnn_service.engine.engine import Output
from birnn_service.engine.stored_graph import stored_graph

# Rows that are computed together, sorted by length.
ROWS = 256


class TorchEncoder(nn.Module):
    """torch.nn's recurrences on packed sequences, and the pooling of a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        """Read the weights of a bundle.

        Raises:
            UnsupportedGraphError: Its cell has no module in torch.nn.
        """
        super().__init__()
        graph = read_graph(stored_graph(bundle, Output.POOLED).complete())
        self.pooling = bundle.manifest.pooling
        self.embedding = None if graph.embedding is None else nn.Embedding(*graph.embedding.shape)
        if self.embedding is not None and graph.embedding is not None:
            self.embedding.weight = nn.Parameter(_copy(graph.embedding))
        self.layers = nn.ModuleList(_module(graph.cell, layer) for layer in graph.layers)

    def packed(self, batch: RaggedBatch) -> PackedSequence:
        """What the first layer reads, on the device of the weights."""
        weights = next(self.layers.parameters())
        inputs = torch.from_numpy(batch.padded()).to(weights.device)
        values = inputs.to(weights.dtype) if self.embedding is None else self.embedding(inputs.long())
        return pack_padded_sequence(values, torch.from_numpy(batch.lengths), enforce_sorted=False)

    def recur(self, inputs: PackedSequence) -> tuple[PackedSequence, Tensor]:
        """States of the last layer, and its last ones [2, B, H]."""
        last = torch.empty(0)
        for layer in self.layers:
            inputs, state = layer(inputs)
            last = state[0] if isinstance(state, tuple) else state
        return inputs, last

    def forward(self, batch: RaggedBatch) -> Tensor:
        """Vectors [B, D]."""
        states, last = self.recur(self.packed(batch))
        if self.pooling == "final":
            return torch.cat([last[0], last[1]], dim=1)
        values, lengths = pad_packed_sequence(states)
        lengths = lengths.to(values.device)
        parts = []
        if self.pooling in ("mean", "mean+max"):
            parts.append(values.sum(dim=0) / lengths[:, None])
        if self.pooling in ("max", "mean+max"):
            padding = torch.arange(len(values), device=values.device)[:, None] >= lengths
            parts.append(values.masked_fill(padding[:, :, None], -torch.inf).amax(dim=0))
        return torch.cat(parts, dim=1)


def float64_vectors(bundle: Bundle, batch: RaggedBatch) -> NDArray[np.float64]:
    """Vectors [n, D] of a batch, computed in float64 on the CPU."""
    encoder = TorchEncoder(bundle).double()
    vectors = np.empty((len(batch), bundle.manifest.dimension))
    with torch.inference_mode():
        for rows in _by_length(batch):
            vectors[rows] = encoder(batch.take(rows)).numpy()
    return vectors


def _by_length(batch: RaggedBatch) -> Iterator[NDArray[np.intp]]:
    order = np.argsort(batch.lengths, kind="stable")
    return (order[start : start + ROWS] for start in range(0, len(order), ROWS))


def _module(cell: Cell, layer: Layer) -> nn.Module:
    """One bidirectional layer; `layer` has the gates in ONNX's order."""
    _, rows, inputs = layer.W.shape
    hidden = rows // len(cell.gates)
    options = {"nonlinearity": cell.nonlinearity} if cell.operator == "RNN" else {}
    module: nn.RNNBase = getattr(nn, cell.operator)(
        inputs, hidden, bidirectional=True, bias=layer.B is not None, **options
    )
    order = [cell.gates.index(gate) for gate in cell.torch_gates]

    def reordered(values: NDArray[np.float32]) -> Tensor:
        return _copy(values.reshape(len(cell.gates), hidden, -1)[order].reshape(values.shape))

    with torch.no_grad():
        for direction, suffix in enumerate(("l0", "l0_reverse")):
            getattr(module, f"weight_ih_{suffix}").copy_(reordered(layer.W[direction]))
            getattr(module, f"weight_hh_{suffix}").copy_(reordered(layer.R[direction]))
            if layer.B is not None:
                getattr(module, f"bias_ih_{suffix}").copy_(reordered(layer.B[direction][:rows]))
                getattr(module, f"bias_hh_{suffix}").copy_(reordered(layer.B[direction][rows:]))
    return module


def _copy(values: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.array(values))
