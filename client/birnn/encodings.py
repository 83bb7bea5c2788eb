"""What a call gives back: encodings aligned with the sequences sent, and what is worth knowing about them."""

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class ItemErrorCode(enum.IntEnum):
    """Why a sequence has no encoding; the numbers are those of birnn.v1 `ItemError.Code`."""

    UNSPECIFIED = 0
    EMPTY = 1
    NOT_UTF8 = 2
    UNKNOWN_CHARACTERS = 3
    TOO_LONG = 4
    OUT_OF_RANGE = 5
    NOT_FINITE = 6

    @classmethod
    def _missing_(cls, value: object) -> "ItemErrorCode":
        # A newer server may know more reasons; the text still says which.
        return cls.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class ItemError:
    """One sequence that has no encoding.

    Attributes:
        index: Position of the sequence in what was sent.
        code: What kind of error it is.
        reason: What is wrong, the limit, and what to do.
    """

    index: int
    code: ItemErrorCode
    reason: str


@dataclass(frozen=True, slots=True)
class ItemNotice:
    """One sequence that was encoded, but not quite as it was sent.

    Attributes:
        index: Position of the sequence in what was sent.
        unknown_tokens: Tokens never seen in training, encoded as "unknown".
        truncated_tokens: Tokens cut from the end, because `truncate` was asked for.
    """

    index: int
    unknown_tokens: int
    truncated_tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of one call went on the server, in seconds; the parts may overlap.

    Attributes:
        tokenize: Strings to token ids.
        queue: From tokenized to the start of the last of its batches.
        compute: Longest of its batches' runs.
        total: From received to ready to be sent.
    """

    tokenize: float
    queue: float
    compute: float
    total: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Reply:
    """What pooled and per-token encodings have in common. `n` is the number of sequences.

    Attributes:
        encoder: Name of the encoder that answered.
        version: Its version.
        engines: Engine, device and precision that computed them, as ("native 0.1.0 avx512bf16, cpu, bfloat16",). More
            than one where servers that differ have answered, none where they do not say.
        lengths: int64 [n], tokens of each sequence; 0 for failed ones.
        errors: Sequences that have no encoding, by ascending index.
        notices: Sequences encoded not quite as sent, by ascending index.
        timings: One for each call the sequences were split into, in order.
    """

    encoder: str
    version: str
    engines: tuple[str, ...]
    lengths: NDArray[np.int64]
    errors: tuple[ItemError, ...]
    notices: tuple[ItemNotice, ...]
    timings: tuple[Timings, ...]

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Encodings(Reply):
    """One vector a sequence.

    Attributes:
        vectors: float32 [n, dimension], aligned with the sequences sent; rows of failed ones are NaN. The result of
            `call` may be written to; a part of a `stream` is a read-only view of the reply.
    """

    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TokenEncodings(Reply):
    """One vector a token.

    Attributes:
        tokens: For each sequence sent float32 [length, token_dimension], forward and backward outputs concatenated;
            no rows for failed ones. Read-only views of the replies: copy one to write to it.
    """

    tokens: list[NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """An encoder that is served, or would be if it were not broken.

    Attributes:
        name: What to pass as `encoder`.
        version: What to pass as `version`.
        architecture: For example "bigru".
        dimension: Width of a pooled encoding.
        token_dimension: Width of a per-token encoding, twice the hidden size.
        pooling: For example "final": [h_forward(T); h_backward(1)].
        tokenizer: For example "smiles"; "none" where it reads float features.
        max_length: Longest sequence accepted, in tokens.
        description: What it was trained on and for; of a broken encoder, what is wrong.
        engine: What runs it, for example "onnxruntime".
        device: For example "cpu".
        precision: For example "float32".
        ready: Whether it answers.
        features: Number of float features that it reads at each step; 0 where it reads strings.
        aliases: Other names of its version.
        candidate: Whether only calls that name its version get it.
    """

    name: str
    version: str
    architecture: str
    dimension: int
    token_dimension: int
    pooling: str
    tokenizer: str
    max_length: int
    description: str
    engine: str
    device: str
    precision: str
    ready: bool
    features: int = 0
    aliases: tuple[str, ...] = ()
    candidate: bool = False
