"""The results of a call: encodings, errors and notices of single sequences, timings, and descriptions of encoders."""

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class ItemErrorCode(enum.IntEnum):
    """Why a sequence has no encoding. The numbers are those of `ItemError.Code` in birnn.v1."""

    UNSPECIFIED = 0
    EMPTY = 1
    NOT_UTF8 = 2
    UNKNOWN_CHARACTERS = 3
    TOO_LONG = 4
    OUT_OF_RANGE = 5
    NOT_FINITE = 6

    @classmethod
    def _missing_(cls, value: object) -> "ItemErrorCode":
        # A newer server may send other codes. The text of the error still gives the reason.
        return cls.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class ItemError:
    """A sequence that could not be encoded.

    Attributes:
        index: Position of the sequence in the input, from 0. In a part of a `stream`, its position in that part.
        code: The kind of error.
        reason: What is wrong, which limit applies, and what to do.
    """

    index: int
    code: ItemErrorCode
    reason: str


@dataclass(frozen=True, slots=True)
class ItemNotice:
    """A sequence that was encoded with unknown or truncated tokens.

    Attributes:
        index: Position of the sequence in the input, from 0. In a part of a `stream`, its position in that part.
        unknown_tokens: Number of tokens missing from the vocabulary. They were encoded as unknown.
        truncated_tokens: Number of tokens removed from the end because of `truncate`.
    """

    index: int
    unknown_tokens: int
    truncated_tokens: int


@dataclass(frozen=True, slots=True)
class Timings:
    """How long the server took for one request, in seconds. The parts may overlap.

    Attributes:
        tokenize: Time to turn strings into token ids.
        queue: Time from the end of tokenization to the start of the request's last batch.
        compute: Run time of the slowest batch of the request.
        total: Time from the receipt of the request until the reply was ready to send.
    """

    tokenize: float
    queue: float
    compute: float
    total: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Reply:
    """The fields that pooled and per-token encodings share. `n` is the number of sequences.

    Attributes:
        encoder: Name of the encoder that answered.
        version: Version of that encoder.
        engines: Engine, device and precision that computed the vectors, for example
            ("native 0.1.0 avx512bf16, cpu, bfloat16",). There are several if servers with different engines answered,
            and none if the servers do not report them.
        lengths: int64 [n], number of tokens of each sequence. 0 for failed sequences.
        errors: Sequences that could not be encoded, by ascending index.
        notices: Sequences that were encoded with unknown or truncated tokens, by ascending index.
        timings: Server timings of each request that the input was split into, in order.
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
    """One vector per sequence.

    Attributes:
        vectors: float32 [n, dimension], aligned with the input. Rows of failed sequences are NaN. You can write to the
            result of `call`. A part of a `stream` is a read-only view of the reply.
    """

    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TokenEncodings(Reply):
    """One vector per token.

    Attributes:
        tokens: For each sequence, float32 [length, token_dimension]: the forward and backward outputs, concatenated. A
            failed sequence has no rows. The arrays are read-only views of the replies: copy an array before you write
            to it.
    """

    tokens: list[NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """One version of an encoder on a server.

    Attributes:
        name: Name to pass as `encoder`.
        version: Version to pass as `version`.
        architecture: Architecture of the network, for example "bigru".
        dimension: Width of a pooled encoding.
        token_dimension: Width of a per-token encoding: twice the hidden size.
        pooling: Pooling method, for example "final": [h_forward(T); h_backward(1)].
        tokenizer: Name of the tokenizer, for example "smiles". "none" for an encoder of float features.
        max_length: Maximum length of a sequence, in tokens.
        description: What the encoder was trained on and for. For a broken encoder, what is wrong.
        engine: Engine that runs it, for example "onnxruntime".
        device: Device that runs it, for example "cpu".
        precision: Precision of the computation, for example "float32".
        ready: Whether it can answer calls. False for a broken encoder.
        features: Number of float features per step. 0 for an encoder of strings.
        aliases: Other names of this version.
        candidate: Whether it answers only calls that name its version.
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
