"""Strings in, vectors out, the way one writes it for any server: tokenize, pad, run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.onnxruntime import ort
from birnn_bundle.smiles import SmilesTokenizer

# Longer than any sequence of a benchmark; none is to fail.
MAX_LENGTH = 1024


class OnnxEncoder:
    """The pooled graph of a bundle behind its tokenizer."""

    def __init__(self, bundle: Path) -> None:
        """Load tokenizer.json and pooled.onnx of a bundle folder; a run takes one thread."""
        self._tokenizer = SmilesTokenizer.from_json((bundle / "tokenizer.json").read_text(encoding="utf-8"))
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(bundle / "pooled.onnx", options, providers=["CPUExecutionProvider"])

    def encode(self, sequences: Sequence[bytes]) -> NDArray[np.float32]:
        """Encode sequences as one padded batch, float32 [n, D].

        Raises:
            ValueError: One of them is not SMILES.
        """
        return self.run(self.feed(sequences))

    def feed(self, sequences: Sequence[bytes]) -> dict[str, NDArray[np.int32]]:
        """Inputs of the graph: ids int32 [T, B], padded to the longest, and lengths int32 [B].

        Raises:
            ValueError: One of the sequences is not SMILES.
        """
        tokenized = self._tokenizer.tokenize(sequences, MAX_LENGTH)
        if tokenized.errors:
            raise ValueError(f"{len(tokenized.errors)} sequences cannot be read: {tokenized.errors[0].reason}")
        return {"ids": tokenized.batch.padded(), "lengths": tokenized.batch.lengths.astype(np.int32)}

    def run(self, feed: dict[str, NDArray[np.int32]]) -> NDArray[np.float32]:
        """The graph by itself, float32 [B, D]."""
        (pooled,) = self._session.run(["pooled"], feed)
        encodings: NDArray[np.float32] = pooled
        return encodings
