"""The manifest: what a bundle says about itself."""

import re
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from birnn_bundle.cells import Architecture, Cell, Nonlinearity, find_cell
from birnn_bundle.errors import BundleError

MANIFEST_FILE = "manifest.json"

Pooling = Literal["final", "mean", "max", "mean+max"]
Inputs = Literal["ids", "features"]


def inside(file: str) -> str:
    """Check that a file name stays inside its folder."""
    path = PurePosixPath(file)
    if not file or path.is_absolute() or ".." in path.parts or "\\" in file or "\0" in file:
        raise ValueError(f"{file!r} is not a path inside the bundle")
    return file


FileName = Annotated[str, AfterValidator(inside)]
Size = Annotated[int, Field(ge=1)]


class _Model(BaseModel):
    """Unknown keys are errors: a manifest from a newer version must not be half understood."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TokenizerEntry(_Model):
    """Which tokenizer reads the sequences."""

    kind: str
    file: FileName = "tokenizer.json"


class Graphs(_Model):
    """One ONNX graph for each output variant, so that asking for pooled vectors never pays for per-token ones."""

    pooled: FileName = "pooled.onnx"
    tokens: FileName = "tokens.onnx"


class Verification(_Model):
    """How the graphs were compared with PyTorch float64 when the bundle was written.

    `max_error_*` are the largest absolute differences over `cases` runs.
    """

    max_error_pooled: float
    max_error_tokens: float
    cases: Size
    torch: str
    onnxruntime: str
    provider: str


class ReducedPrecision(_Model):
    """With which errors an engine that computes in half precision (fp16, bf16) may serve the bundle.

    `tolerance` is the largest absolute error against the float64 reference, `min_cosine` the least cosine of any
    encoding to its reference. `error_fp16` and `error_bf16` are the errors that were measured when the bundle was
    written, in PyTorch on a CPU.
    """

    tolerance: Annotated[float, Field(gt=0, le=0.1)]
    min_cosine: Annotated[float, Field(ge=0.99, lt=1)] = 0.9999
    error_fp16: float | None = None
    error_bf16: float | None = None


class Training(_Model):
    """Where the weights come from: data, the command, the objective, how many sequences, what came out."""

    data: list[str]
    recipe: str
    objective: str
    sequences: int
    metrics: dict[str, float]


class Manifest(_Model):
    """Everything a server or a reader must know about a bundle.

    `dimension` is the width of a pooled encoding, `token_dimension` that of a per-token one. `tolerance` is the largest
    absolute error against the float64 reference with which an engine may serve the bundle in float32;
    `reduced_precision` says the same of half precision, and where it is missing that is not allowed.
    `inputs` is what the graphs read: ids of a tokenizer, or float features, `embedding_size` of them a token; then
    there is no tokenizer and `vocab_size` is 0. `hidden_size` is that of the last layer; `hidden_sizes`, those of all,
    is there only where they differ. `linear_before_reset` is true for all but a GRU that resets its hidden state before
    the product, which onnxruntime runs on the CPU only.
    """

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
    version: Size
    description: str
    architecture: Architecture
    nonlinearity: Nonlinearity | None
    linear_before_reset: bool = True
    inputs: Inputs = "ids"
    vocab_size: Annotated[int, Field(ge=0)]
    embedding_size: Size
    hidden_size: Size
    hidden_sizes: list[Size] | None = None
    layers: Size
    bias: bool
    pooling: Pooling
    dimension: Size
    token_dimension: Size
    dtype: Literal["float32"]
    opset: Size
    max_length: Size
    tokenizer: TokenizerEntry | None
    graphs: Graphs = Graphs()
    golden: FileName = "golden.safetensors"
    tolerance: Annotated[float, Field(gt=0, le=0.1)]
    reduced_precision: ReducedPrecision | None = None
    verification: Verification
    training: Training
    files: dict[FileName, Annotated[str, Field(pattern=re.compile(r"^[0-9a-f]{64}$"))]]

    @model_validator(mode="after")
    def _consistent(self) -> "Manifest":
        if (self.inputs == "ids") != (self.vocab_size > 0) or (self.inputs == "ids") != (self.tokenizer is not None):
            raise ValueError(
                f"inputs are {self.inputs!r}, vocab_size is {self.vocab_size} and the tokenizer "
                f"{self.tokenizer and self.tokenizer.kind!r}: ids need both, features neither"
            )
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
        needed = {self.graphs.pooled, self.graphs.tokens, self.golden}
        if self.tokenizer is not None:
            needed.add(self.tokenizer.file)
        if missing := sorted(needed - self.files.keys()):
            raise ValueError(f"no digest for {', '.join(missing)}")
        return self

    @property
    def cell(self) -> Cell:
        """The recurrence."""
        return find_cell(self.architecture, self.nonlinearity, self.linear_before_reset)

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Hidden size of each layer."""
        return tuple(self.hidden_sizes or [self.hidden_size] * self.layers)

    @property
    def features(self) -> int:
        """Number of float features a token; 0 where it reads ids."""
        return self.embedding_size if self.inputs == "features" else 0

    def to_json(self) -> str:
        """Content of manifest.json."""
        # As it was before layers could differ, where they do not: earlier versions read that, too.
        unused = {"hidden_sizes"} if self.hidden_sizes is None else None
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
            places = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'manifest'}: {problem['msg']}" for problem in error.errors()
            )
            raise BundleError(f"{MANIFEST_FILE} is not valid: {places}") from error


def pooled_dimension(pooling: Pooling, hidden_size: int) -> int:
    """Width of a pooled encoding: both directions, and twice that where mean and max are concatenated."""
    return 4 * hidden_size if pooling == "mean+max" else 2 * hidden_size
