"""Small encoders with random weights, their graphs and their checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from birnn_bundle.cells import CELLS, architecture_of
from birnn_bundle.golden import Golden
from birnn_bundle.onnxruntime import ort
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.smiles import SmilesTokenizer
from birnn_export.encoders import EncoderConfig, SequenceEncoder
from birnn_export.graph import POOLED_FILE, TOKENS_FILE, write_graphs
from birnn_export.recurrent_weights import Weights
from birnn_export.training.checkpoint import write_start, write_weights

# Every kind of recurrent core: architecture and nonlinearity.
CORES = [
    ("birnn-scratch", "tanh"),
    *((architecture_of(cell.family), cell.nonlinearity) for cell in CELLS if cell.torch),
]
POOLINGS = ["final", "mean", "max", "mean+max"]
VOCABULARY = 13
MOLECULES = [
    "C",
    "CCO",
    "c1ccccc1",
    "CC(=O)Oc1ccccc1C(=O)O",
    "CN1C=NC2=C1C(=O)N(C(=O)N2C)C",
    "O=[Si]=O",
    "Cl\\C=C/Cl",
    "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O",
]
FACTS: dict[str, Any] = {
    "data": ["molecules.smi"],
    "recipe": "birnn train molecules.smi",
    "objective": "masked",
    "sequences": 8,
    "metrics": {"validation_total": 1.5},
}


def small_encoder(architecture: str = "bigru", pooling: str = "final", **more: Any) -> SequenceEncoder:
    torch.manual_seed(3)
    options: dict[str, Any] = {"vocab_size": VOCABULARY, "embedding_size": 5, "hidden_size": 4, **more}
    encoder = SequenceEncoder(EncoderConfig(architecture, pooling=pooling, **options)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            # Biases of a fresh scratch RNN are zero, and would prove nothing.
            if name.endswith("b_h"):
                parameter.uniform_(-0.5, 0.5)
    return encoder


def make_stiff(encoder: SequenceEncoder, largest: float = 1.4) -> SequenceEncoder:
    """Give it weights that let rounding errors grow; training mostly leaves some 0.3."""
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in encoder.core.parameters():
            weight.uniform_(-largest, largest)
    return encoder


def weights_of(encoder: SequenceEncoder) -> Weights:
    return {name: tensor.numpy() for name, tensor in encoder.state_dict().items()}


def graphs_of(encoder: SequenceEncoder, folder: Path) -> tuple[Path, Path]:
    write_graphs(encoder.config, weights_of(encoder), folder, "small", 1)
    return folder / POOLED_FILE, folder / TOKENS_FILE


def session_of(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run_graph(session: ort.InferenceSession, ids: NDArray[np.int32], lengths: Sequence[int]) -> NDArray[np.float32]:
    (values,) = session.run(None, {"ids": ids, "lengths": np.array(lengths, dtype=np.int32)})
    result: NDArray[np.float32] = values
    return result


def dense_tokens(expected: Golden, steps: int) -> NDArray[np.float64]:
    dense = np.zeros((steps, len(expected.batch), expected.tokens.shape[1]))
    for row, length in enumerate(expected.batch.lengths):
        begin = expected.batch.offsets[row]
        dense[:length, row] = expected.tokens[begin : begin + length]
    return dense


def random_batch(lengths: Sequence[int], seed: int = 0) -> RaggedBatch:
    random = np.random.default_rng(seed)
    return RaggedBatch.from_lists([random.integers(0, VOCABULARY, length, dtype=np.int32) for length in lengths])


def write_checkpoint(folder: Path, pooling: str = "final", **more: Any) -> SequenceEncoder:
    tokenizer = SmilesTokenizer.train(MOLECULES, minimum_count=1)
    encoder = small_encoder(pooling=pooling, **{"vocab_size": tokenizer.vocab_size, **more})
    write_start(folder, encoder.config, tokenizer, max_length=40, training=FACTS)
    write_weights(folder, encoder)
    return encoder
