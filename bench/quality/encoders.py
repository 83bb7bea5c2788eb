"""Encoders whose vectors are judged: bundles on onnxruntime, checkpoints and untrained ones on PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_bundle.manifest import MANIFEST_FILE
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.tokenizer import Tokenizer
from birnn_export.encoders import EncoderConfig, SequenceEncoder
from birnn_export.training.checkpoint import load_encoder
from birnn_service.engine.engine import Engine, Output
from birnn_service.engine.loading import load_engine

ROWS = 32
"""Of a batch. On a CPU more rows are no faster."""


class Encoder(Protocol):
    """Turns SMILES into vectors."""

    @property
    def name(self) -> str:
        """For reports."""

    @property
    def shape(self) -> str:
        """Architecture and sizes, for reports."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""

    def run(self, batch: RaggedBatch) -> NDArray[np.float32]:
        """Vectors [n, D] of a batch."""


@dataclass(frozen=True)
class BundleEncoder:
    """A bundle, served in this process by onnxruntime on one thread of a CPU."""

    bundle: Bundle
    engine: Engine

    @property
    def name(self) -> str:
        """Name and version."""
        return self.bundle.label

    @property
    def shape(self) -> str:
        """Architecture and sizes."""
        m = self.bundle.manifest
        return _shape(m.architecture, m.layer_sizes, m.pooling)

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's."""
        return self.bundle.tokenizer

    def run(self, batch: RaggedBatch) -> NDArray[np.float32]:
        """Vectors [n, D] of a batch."""
        return self.engine.run(batch, Output.POOLED)


@dataclass(frozen=True)
class TorchEncoder:
    """An encoder on PyTorch: a checkpoint or one without training."""

    name: str
    encoder: SequenceEncoder
    tokenizer: Tokenizer

    @property
    def shape(self) -> str:
        """Architecture and sizes."""
        c = self.encoder.config
        return _shape(c.architecture, c.layer_sizes, c.pooling)

    def run(self, batch: RaggedBatch) -> NDArray[np.float32]:
        """Vectors [n, D] of a batch."""
        ids = torch.from_numpy(np.ascontiguousarray(batch.padded().T)).long()
        with torch.inference_mode():
            vectors: NDArray[np.float32] = self.encoder(ids, torch.from_numpy(batch.lengths)).numpy()
        return vectors


def open_encoder(path: Path) -> BundleEncoder | TorchEncoder:
    """A bundle or the best weights of a training run. Raises BundleError, StartupError or CheckpointError."""
    if (path / MANIFEST_FILE).exists():
        bundle = Bundle.load(path)
        return BundleEncoder(bundle, load_engine(bundle, "cpu", engine="onnxruntime", slots=1).engine)
    loaded = load_encoder(path)
    return TorchEncoder(path.resolve().name, loaded.encoder, loaded.tokenizer)


def untrained(encoder: BundleEncoder | TorchEncoder, seed: int) -> TorchEncoder:
    """An encoder of the same shape with random weights, as training begins with."""
    if isinstance(encoder, TorchEncoder):
        config = encoder.encoder.config
    else:
        m = encoder.bundle.manifest
        config = EncoderConfig(
            m.architecture,
            m.vocab_size,
            m.embedding_size,
            m.hidden_size,
            m.layers,
            bias=m.bias,
            pooling=m.pooling,
            nonlinearity=m.nonlinearity or "tanh",
            linear_before_reset=m.linear_before_reset,
            hidden_sizes=tuple(m.hidden_sizes or ()),
            gate_activation=m.gate_activation,
        )
    torch.manual_seed(seed)
    return TorchEncoder(f"untrained {encoder.name}", SequenceEncoder(config).eval(), encoder.tokenizer)


def encode(encoder: Encoder, smiles: Sequence[str]) -> NDArray[np.float32]:
    """Vectors [n, D] of `smiles`, in batches of like length. Raises ValueError where one cannot be tokenized."""
    tokenized = encoder.tokenizer.tokenize([one.encode() for one in smiles], max_length=1 << 20)
    if tokenized.errors:
        raise ValueError(f"{smiles[tokenized.errors[0].index]!r}: {tokenized.errors[0].reason}")
    order = np.argsort(tokenized.batch.lengths, kind="stable")
    vectors = [encoder.run(tokenized.batch.take(order[start : start + ROWS])) for start in range(0, len(order), ROWS)]
    encoded = np.concatenate(vectors)
    return encoded[np.argsort(order)]


def _shape(architecture: str, sizes: Sequence[int], pooling: str) -> str:
    uniform = f"{len(sizes)} x {sizes[0]}"
    return f"{architecture}, {uniform if len(set(sizes)) == 1 else ' + '.join(map(str, sizes))}, {pooling}"
