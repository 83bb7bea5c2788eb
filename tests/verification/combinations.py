"""Every combination of recurrence, layers and biases, and how far the engines are from PyTorch float64 on it.

`python -m tests.verification.combinations` (make verification-table) writes docs/verification.md.
"""

import copy
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from birnn_bundle.bundle import Bundle
from birnn_bundle.cells import CELLS, architecture_of, find_cell
from birnn_bundle.golden import Golden
from birnn_bundle.manifest import Graphs, Manifest, Pooling, TokenizerEntry, Training, Verification, pooled_dimension
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.smiles import SmilesTokenizer
from birnn_export.encoders import EncoderConfig, SequenceEncoder
from birnn_export.graph import OPSET, POOLED_FILE, TOKENS_FILE, write_graphs
from birnn_export.verification import TOLERANCE
from birnn_service.engine.engine import Engine, Output
from birnn_service.engine.native_engine import NativeEngine
from birnn_service.engine.onnx_engine import OnnxEngine

TABLE = Path(__file__).parents[2] / "docs" / "verification.md"
VOCABULARY, EMBEDDING, HIDDEN = 17, 12, 20
LENGTHS = (1, 2, 31, 7, 3, 18, 1, 40)
POOLINGS = get_args(Pooling)
COLUMNS = (*POOLINGS, "tokens")
ENGINES = ("onnxruntime", "native")

# Cells with other activations, which have no kernels.
OTHERS = (
    find_cell("bigru", "relu"),
    find_cell("bigru", gate_activation="hard_sigmoid"),
    find_cell("bigru", "relu", False, "hard_sigmoid_keras2"),
    find_cell("bilstm", "relu", gate_activation="hard_sigmoid"),
    find_cell("bilstm", gate_activation="hard_sigmoid_keras2"),
)
CORES: dict[str, dict[str, Any]] = {
    "RNN from scratch": {"architecture": "birnn-scratch"},
    **{
        cell.name: {
            "architecture": architecture_of(cell.family),
            "nonlinearity": cell.nonlinearity,
            "gate_activation": cell.gate_activation,
            "linear_before_reset": cell.linear_before_reset,
        }
        for cell in (*CELLS, *OTHERS)
    },
}


@dataclass(frozen=True)
class Combination:
    """One row of the table."""

    core: str
    sizes: tuple[int, ...]
    bias: bool

    @property
    def cells(self) -> tuple[str, ...]:
        """How the table names it."""
        count = str(len(self.sizes))
        layers = count if len(set(self.sizes)) == 1 else f"{count}: {', '.join(map(str, self.sizes))}"
        return self.core, layers, "yes" if self.bias else "no"

    @property
    def has_kernel(self) -> bool:
        """Whether the native engine runs it."""
        return find_cell(**CORES[self.core]).kernel is not None

    @property
    def engines(self) -> tuple[str, ...]:
        """Who serves it, of `ENGINES`."""
        return ENGINES if self.has_kernel else ENGINES[:1]


# Hidden sizes of the layers.
SIZES = ((HIDDEN,), (HIDDEN,) * 2, (HIDDEN,) * 3, (28, HIDDEN), (7, 33, HIDDEN))
COMBINATIONS = [
    Combination(core, sizes, bias)
    for core, sizes, bias in product(CORES, SIZES, (True, False))
    if Combination(core, sizes, bias).has_kernel or (bias and sizes in ((HIDDEN,), (28, HIDDEN)))
]


# Largest absolute errors by engine and column.
Errors = dict[str, dict[str, float]]


def errors(combination: Combination, engines: Sequence[str], folder: Path) -> Errors:
    """How far engines are off, each sequence alone and all in one batch.

    Args:
        combination: What to build.
        engines: Which of `ENGINES`.
        folder: Where to put its graphs.
    """
    encoder = _encoder(combination)
    random = np.random.default_rng(1)
    batch = RaggedBatch.from_lists([random.integers(0, VOCABULARY, length, dtype=np.int32) for length in LENGTHS])
    expected = _reference(encoder, batch)
    found: Errors = {engine: {} for engine in engines}
    for pooling in POOLINGS:
        encoder.config = replace(encoder.config, pooling=pooling)
        for engine, loaded in _engines(encoder, engines, folder / pooling):
            found[engine][pooling] = _largest(loaded, Output.POOLED, batch, expected[pooling])
            if pooling == POOLINGS[-1]:
                found[engine]["tokens"] = _largest(loaded, Output.TOKENS, batch, expected["tokens"])
    return found


def _reference(encoder: SequenceEncoder, batch: RaggedBatch) -> dict[str, NDArray[np.float64]]:
    """What PyTorch computes in float64, by column, each sequence alone and without padding."""
    exact = copy.deepcopy(encoder).double()
    rows: dict[str, list[NDArray[np.float64]]] = {column: [] for column in COLUMNS}
    with torch.inference_mode():
        for row in range(len(batch)):
            lengths = torch.tensor([batch.lengths[row]])
            outputs, final = exact.run(torch.from_numpy(batch.row(row)).long()[None], lengths)
            rows["tokens"].append(outputs[0].numpy())
            for pooling in POOLINGS:
                exact.config = replace(exact.config, pooling=pooling)
                rows[pooling].append(exact.pool(outputs, final, lengths).numpy())
    return {column: np.concatenate(parts) for column, parts in rows.items()}


def _largest(engine: Engine, output: Output, batch: RaggedBatch, expected: NDArray[np.float64]) -> float:
    alone = [engine.run(batch.take(np.array([row])), output) for row in range(len(batch))]
    both = (engine.run(batch, output), np.concatenate(alone))
    return max(float(np.abs(values - expected).max()) for values in both)


def _encoder(combination: Combination) -> SequenceEncoder:
    torch.manual_seed(11)
    config = EncoderConfig(
        vocab_size=VOCABULARY,
        embedding_size=EMBEDDING,
        hidden_size=HIDDEN,
        layers=len(combination.sizes),
        hidden_sizes=combination.sizes if len(set(combination.sizes)) > 1 else (),
        bias=combination.bias,
        **CORES[combination.core],
    )
    encoder = SequenceEncoder(config).eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            # Those of a fresh scratch RNN are zero, and would prove nothing.
            if name.endswith("b_h"):
                parameter.uniform_(-0.5, 0.5)
    return encoder


def _engines(encoder: SequenceEncoder, engines: Sequence[str], folder: Path) -> Iterator[tuple[str, Engine]]:
    """The engines, loaded; what the service does around that, the golden gate included, has tests of its own."""
    folder.mkdir(parents=True)
    weights = {name: tensor.numpy() for name, tensor in encoder.state_dict().items()}
    write_graphs(encoder.config, weights, folder, "combination", 1)
    golden = Golden(RaggedBatch.from_lists([[1]]), np.zeros((1, 1)), np.zeros((1, 1)))
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    bundle = Bundle(folder, _manifest(encoder.config), SmilesTokenizer(["C"]), golden, "", files)
    for engine in engines:
        yield engine, OnnxEngine(bundle, slots=1) if engine == "onnxruntime" else NativeEngine(bundle, slots=1)


def _manifest(config: EncoderConfig) -> Manifest:
    digests = dict.fromkeys((POOLED_FILE, TOKENS_FILE, "tokenizer.json", "golden.safetensors"), "0" * 64)
    return Manifest(
        name="combination",
        version=1,
        description="",
        architecture=config.architecture,
        nonlinearity=config.nonlinearity,
        gate_activation=config.gate_activation,
        linear_before_reset=config.linear_before_reset,
        vocab_size=config.vocab_size,
        embedding_size=config.embedding_size,
        hidden_size=config.hidden_size,
        hidden_sizes=list(config.hidden_sizes) or None,
        layers=config.layers,
        bias=config.bias,
        pooling=config.pooling,
        dimension=pooled_dimension(config.pooling, config.hidden_size),
        token_dimension=config.token_dimension,
        dtype="float32",
        opset=OPSET,
        max_length=max(LENGTHS),
        tokenizer=TokenizerEntry(kind="smiles"),
        graphs=Graphs(),
        tolerance=TOLERANCE,
        verification=Verification(
            max_error_pooled=0, max_error_tokens=0, cases=1, torch="", onnxruntime="", provider=""
        ),
        training=Training(data=[], recipe="", objective="", sequences=0, metrics={}),
        files=digests,
    )


def rendered(table: dict[Combination, Errors]) -> str:
    """The text of docs/verification.md."""
    largest = max(error for found in table.values() for columns in found.values() for error in columns.values())
    parts = [
        "# Verification",
        "Every kind of encoder on every engine, against PyTorch in float64.",
        "The tables give the largest absolute error in float32 on a CPU, over "
        f"{len(LENGTHS)} sequences of {min(LENGTHS)} to {max(LENGTHS)} tokens, all in\none batch and each alone. "
        f"The largest of all is {largest:.1e}. The tolerance is {TOLERANCE:g}, here and in the golden gate that an "
        "encoder\npasses before it is served.",
        f"The encoders read {EMBEDDING} features per token and have {HIDDEN} hidden units per direction, unless a row "
        "gives the sizes of its layers.\nTheir weights are random. `tokens` are per-token encodings.",
        "Some kinds have no module in torch.nn: the RNN from scratch, the GRU that resets before the product, and relu "
        "or hard_sigmoid in\nGRU and LSTM. They are written out from their equations in PyTorch. The last kind runs on "
        "onnxruntime only.",
        "`make verification-table` measures the tables. `make test` measures every entry and compares it with the same "
        "tolerance.",
    ]
    for engine in next(iter(table.values())):
        head = ("recurrence", "layers", "biases", *COLUMNS)
        lines = [head, ("---",) * len(head)]
        lines += [
            (*row.cells, *(f"{found[engine][column]:.1e}" for column in COLUMNS))
            for row, found in table.items()
            if engine in found
        ]
        parts += [f"## {engine}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
    return "\n\n".join(parts) + "\n"


def entries(text: str) -> Iterator[tuple[tuple[str, ...], dict[str, float]]]:
    """Engine and combination of each row of a written table, with its errors by column."""
    engine = ""
    for line in text.splitlines():
        if line.startswith("## "):
            engine = line.removeprefix("## ")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if engine and len(cells) == 3 + len(COLUMNS) and cells[1][:1].isdecimal():
            yield (engine, *cells[:3]), dict(zip(COLUMNS, map(float, cells[3:]), strict=True))


def main() -> None:
    """Measure everything and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        table = {
            each: errors(each, each.engines, Path(folder, str(number))) for number, each in enumerate(COMBINATIONS)
        }
    TABLE.write_text(rendered(table), encoding="utf-8")
    sys.stdout.write(f"{TABLE} written\n")


if __name__ == "__main__":
    main()
