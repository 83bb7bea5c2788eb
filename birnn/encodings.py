"""What a call gives back: encodings aligned with the sequences sent, and what is worth knowing about them."""

import enum
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

# Pooled, float32 [n, dimension], one row a sequence.
Vectors = NDArray[np.float32]
# Per token: for each sequence float32 [length, token_dimension].
TokenVectors = list[NDArray[np.float32]]

EmbeddingsT = TypeVar("EmbeddingsT", Vectors, TokenVectors)


class ItemErrorCode(enum.IntEnum):
    """Why a sequence has no encoding; the numbers are those of birnn.v1 `ItemError.Code`."""

    UNSPECIFIED = 0
    EMPTY = 1
    NOT_UTF8 = 2
    UNKNOWN_CHARACTERS = 3
    TOO_LONG = 4

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
class Encodings(Generic[EmbeddingsT]):
    """Everything the server says about `n` sequences, in their order.

    Attributes:
        encoder: Name of the encoder that answered.
        version: Its version.
        embeddings: Pooled: float32 [n, dimension], rows of failed sequences NaN. Per token: for each sequence float32
            [length, token_dimension], failed sequences with no rows.
        lengths: int64 [n], tokens of each sequence; 0 for failed ones.
        errors: Sequences that have no encoding, by ascending index.
        notices: Sequences encoded not quite as sent, by ascending index.
        timings: One for each call the sequences were split into, in order.
    """

    encoder: str
    version: str
    embeddings: EmbeddingsT
    lengths: NDArray[np.int64]
    errors: tuple[ItemError, ...]
    notices: tuple[ItemNotice, ...]
    timings: tuple[Timings, ...]

    def __len__(self) -> int:
        return len(self.lengths)
