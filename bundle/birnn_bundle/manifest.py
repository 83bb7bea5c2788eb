"""The manifest: what a bundle says about itself."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from birnn_bundle.cells import Architecture, Cell, GateActivation, Nonlinearity, find_cell
from birnn_bundle.errors import BundleError
from birnn_bundle.files import SIGNATURE_FILE
from birnn_bundle.numerals import MOST_VERSION
from birnn_bundle.precisions import HalfPrecision, PrecisionRecord, ReducedPrecision
from birnn_bundle.quoting import shown
from birnn_bundle.strict_model import Count, Measured, StrictModel, Text

MANIFEST_FILE = "manifest.json"
# Most problems of a manifest that a message lists.
LISTED_PROBLEMS = 5

Pooling = Literal["final", "mean", "max", "mean+max"]
Inputs = Literal["ids", "features"]


def inside(file: str) -> str:
    """Check that a file name stays inside its folder."""
    path = PurePosixPath(file)
    # One spelling for each file, and none that means another place on another system.
    if (
        path.is_absolute()
        or {".", ".."} & {file, *path.parts}
        or path.as_posix() != file
        or re.search(r"[\\:\0]", file)
    ):
        raise ValueError(f"{shown(file)} is not a path inside the bundle")
    return file


FileName = Annotated[str, Field(max_length=255), AfterValidator(inside)]
# Far beyond any encoder, and small enough that nothing computed from them overflows or takes all memory.
VocabSize = Annotated[int, Field(ge=0, le=1 << 24)]
Width = Annotated[int, Field(ge=1, le=1 << 18)]
Layers = Annotated[int, Field(ge=1, le=256)]
Length = Annotated[int, Field(ge=1, le=1 << 20)]


class TokenizerEntry(StrictModel):
    """Which tokenizer reads the sequences."""

    kind: Annotated[str, Field(max_length=100)]
    file: FileName = "tokenizer.json"


class Graphs(StrictModel):
    """One ONNX graph for each output variant, so that asking for pooled vectors never pays for per-token ones."""

    pooled: FileName = "pooled.onnx"
    tokens: FileName = "tokens.onnx"


class Verification(StrictModel):
    """How the graphs were compared with PyTorch float64 when the bundle was written.

    `max_error_pooled` and `max_error_tokens` are the largest absolute differences of onnxruntime over `cases` runs.
    `max_error_float32` is the largest one of PyTorch itself in float32 on the same sequences, `max_error_native` that
    of the native kernels where they were built; older bundles say neither.
    """

    max_error_pooled: Measured
    max_error_tokens: Measured
    cases: Count
    torch: Text
    onnxruntime: Text
    provider: Text
    max_error_float32: Measured | None = None
    max_error_native: Measured | None = None


class Training(StrictModel):
    """Where the weights come from: data, the command, the objective, how many sequences, what came out."""

    data: Annotated[list[Text], Field(max_length=1000)]
    recipe: Text
    objective: Text
    sequences: Count
    metrics: Annotated[dict[Text, float], Field(max_length=1000)]


class Manifest(StrictModel):
    """Everything a server or a reader must know about a bundle.

    `dimension` is the width of a pooled encoding, `token_dimension` that of a per-token one. `tolerance` is the largest
    absolute error against the float64 reference with which an engine may serve the bundle in float32;
    `precisions` says the same of reduced precisions, and what is missing there is not allowed. Older bundles have
    `reduced_precision` instead, for fp16 and bf16; `records` is the same for both.
    `inputs` is what the graphs read: ids of a tokenizer, or float features, `embedding_size` of them a token; then
    there is no tokenizer and `vocab_size` is 0. `hidden_size` is that of the last layer; `hidden_sizes`, those of all,
    is there only where they differ. `nonlinearity` is the activation of the states, tanh where it is null, and
    `gate_activation` that of the gates (see `birnn_bundle.cells`). `linear_before_reset` is true for all but a GRU that
    resets its hidden state before the product.
    """

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
    version: Annotated[int, Field(ge=1, le=MOST_VERSION)]
    description: Text
    architecture: Architecture
    nonlinearity: Nonlinearity | None
    gate_activation: GateActivation = "sigmoid"
    linear_before_reset: bool = True
    inputs: Inputs = "ids"
    vocab_size: VocabSize
    embedding_size: Width
    hidden_size: Width
    hidden_sizes: list[Width] | None = None
    layers: Layers
    bias: bool
    pooling: Pooling
    dimension: Annotated[int, Field(ge=1, le=1 << 20)]
    token_dimension: Annotated[int, Field(ge=1, le=1 << 19)]
    dtype: Literal["float32"]
    opset: Annotated[int, Field(ge=1, le=1000)]
    max_length: Length
    tokenizer: TokenizerEntry | None
    graphs: Graphs = Graphs()
    golden: FileName = "golden.safetensors"
    tolerance: Annotated[float, Field(gt=0, le=0.1)]
    reduced_precision: HalfPrecision | None = None
    precisions: dict[ReducedPrecision, PrecisionRecord] = Field(default_factory=dict)
    verification: Verification
    training: Training
    files: Annotated[
        dict[FileName, Annotated[str, Field(pattern=re.compile(r"^[0-9a-f]{64}$"))]], Field(max_length=1000)
    ]

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        if (self.inputs == "ids") != (self.vocab_size > 0) or (self.inputs == "ids") != (self.tokenizer is not None):
            raise ValueError(
                f"inputs are {self.inputs!r}, vocab_size is {self.vocab_size} and the tokenizer "
                f"{self.tokenizer and shown(self.tokenizer.kind)}: ids need both, features neither"
            )
        if self.precisions and self.reduced_precision is not None:
            raise ValueError("both precisions and reduced_precision are given, one expected")
        # Raises where there is no such cell.
        _ = self.cell
        if self.hidden_sizes is not None and (
            len(self.hidden_sizes) != self.layers
            or self.hidden_sizes[-1] != self.hidden_size
            or len(set(self.hidden_sizes)) == 1
        ):
            raise ValueError(
                f"hidden_sizes are {self.hidden_sizes}: one for each of {self.layers} layers expected, the last one "
                f"{self.hidden_size}, and not all of them the same"
            )
        if self.token_dimension != 2 * self.hidden_size:
            raise ValueError(
                f"token_dimension is {self.token_dimension}, twice the hidden size {self.hidden_size} expected"
            )
        if self.dimension != pooled_dimension(self.pooling, self.hidden_size):
            raise ValueError(f"dimension {self.dimension} does not fit pooling {self.pooling!r}")
        _check_distinct(self.files)
        needed = {self.graphs.pooled, self.graphs.tokens, self.golden}
        if self.tokenizer is not None:
            needed.add(self.tokenizer.file)
        if missing := sorted(needed - self.files.keys()):
            raise ValueError(f"no digest for {', '.join(map(shown, missing))}")
        return self

    @property
    def cell(self) -> Cell:
        """The recurrence."""
        return find_cell(self.architecture, self.nonlinearity, self.linear_before_reset, self.gate_activation)

    @property
    def records(self) -> dict[ReducedPrecision, PrecisionRecord]:
        """What it says of each reduced precision that it knows."""
        if self.reduced_precision is None:
            return self.precisions
        return {"bf16": self.reduced_precision.record, "fp16": self.reduced_precision.record}

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Hidden size of each layer."""
        return tuple(self.hidden_sizes or [self.hidden_size] * self.layers)

    @property
    def input_sizes(self) -> tuple[int, ...]:
        """Width of what each layer reads."""
        return widths_read(self.embedding_size, self.layer_sizes)

    @property
    def features(self) -> int:
        """Number of float features a token; 0 where it reads ids."""
        return self.embedding_size if self.inputs == "features" else 0

    def to_json(self) -> str:
        """Content of manifest.json."""
        # Without what earlier versions do not know, where it says nothing: so they can read it, too.
        unused = {"hidden_sizes"} if self.hidden_sizes is None else set()
        if self.gate_activation == "sigmoid":
            unused.add("gate_activation")
        unused.add("precisions" if not self.precisions else "reduced_precision")
        return self.model_dump_json(indent=2, exclude=unused) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Manifest":
        """Read manifest.json.

        Raises:
            BundleError: It is not a manifest of a known schema version; says where.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            problems = [_told(problem) for problem in error.errors()[:LISTED_PROBLEMS]]
            if error.error_count() > LISTED_PROBLEMS:
                problems.append(f"and {error.error_count() - LISTED_PROBLEMS} more problems")
            raise BundleError(f"{MANIFEST_FILE} is not valid: {'; '.join(problems)}") from error


def _check_distinct(files: Collection[str]) -> None:
    """Raises ValueError where files would get in each other's way, or in the manifest's, on some file system."""
    seen = {MANIFEST_FILE, SIGNATURE_FILE}
    for file in files:
        folded = unicodedata.normalize("NFC", file).casefold()
        if folded in seen:
            raise ValueError(f"files lists {shown(file)}, which is another file's name, too, where case is ignored")
        seen.add(folded)
    for folded in seen:
        if any(str(above) in seen for above in PurePosixPath(folded).parents):
            raise ValueError(f"files lists {shown(folded)}, and as a file what must be its folder")


def _told(problem: ErrorDetails) -> str:
    """One problem of a manifest: where, and what. Keys of a broken manifest can be any text of any length."""
    place = ".".join(map(str, problem["loc"])) or "manifest"
    return f"{place if len(place) <= 100 and place.isprintable() else shown(place)}: {problem['msg']}"


def widths_read(first: int, layer_sizes: Sequence[int]) -> tuple[int, ...]:
    """Width of what each layer reads: that of the first one's inputs, then both directions of the layer below."""
    return (first, *(2 * size for size in layer_sizes[:-1]))


def pooled_dimension(pooling: Pooling, hidden_size: int) -> int:
    """Width of a pooled encoding: both directions, and twice that where mean and max are concatenated."""
    return 4 * hidden_size if pooling == "mean+max" else 2 * hidden_size
