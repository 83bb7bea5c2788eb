"""What every tokenizer does: bytes in, one ragged batch out, and a reason for each sequence that cannot be read."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.errors import BundleError, ItemError, ItemErrorCode
from birnn_bundle.quoting import shown
from birnn_bundle.ragged import RaggedBatch, offsets_of
from birnn_bundle.record import record

PAD_ID, UNKNOWN_ID, MASK_ID = 0, 1, 2
# The rows of a request of one sequence that could be read; shared, so no one may write to it.
FIRST_ROW = np.zeros(1, dtype=np.intp)
FIRST_ROW.flags.writeable = False
# The first three entries of every vocabulary. No tokenizer can produce them from a text: a SMILES token and a
# byte-level token hold no space.
SPECIAL_TOKENS = ("special: pad", "special: unknown", "special: mask")


@record
class Tokenized:
    """The outcome of tokenizing one request.

    Attributes:
        batch: Token ids of the sequences that could be read, `n` of them.
        rows: Position of each of these in the request, ascending [n].
        unknown: How many of its tokens were never seen in training and became `UNKNOWN_ID` [n].
        truncated: How many tokens were cut from its end [n].
        errors: The sequences that could not be read, by ascending index.
    """

    batch: RaggedBatch
    rows: NDArray[np.intp]
    unknown: NDArray[np.int64]
    truncated: NDArray[np.int64]
    errors: list[ItemError]

    @property
    def sequences(self) -> int:
        """How many there were, read or not."""
        return len(self.rows) + len(self.errors)

    @classmethod
    def concatenate(cls, pieces: Sequence["Tokenized"]) -> "Tokenized":
        """The outcome of a request whose sequences were tokenized some at a time: at least one piece, in order."""
        if len(pieces) == 1:
            return pieces[0]
        starts = [0, *accumulate(piece.sequences for piece in pieces)]
        placed = list(zip(starts, pieces, strict=False))
        return cls(
            RaggedBatch.concatenate([piece.batch for piece in pieces]),
            np.concatenate([piece.rows + start for start, piece in placed]),
            np.concatenate([piece.unknown for piece in pieces]),
            np.concatenate([piece.truncated for piece in pieces]),
            [replace(error, index=start + error.index) for start, piece in placed for error in piece.errors],
        )

    def divided(self, counts: Sequence[int]) -> list["Tokenized"]:
        """The outcomes of requests whose sequences were tokenized together: the inverse of `concatenate`.

        Args:
            counts: Sequences of each request, in order; all of them together are those of this one.
        """
        if len(self.errors) == 0 and len(counts) == len(self.rows):
            # One sequence each, and all could be read, as in nearly all cases where calls are many.
            return [
                Tokenized(
                    self.batch.between(row, row + 1),
                    FIRST_ROW,
                    self.unknown[row : row + 1],
                    self.truncated[row : row + 1],
                    [],
                )
                for row in range(len(counts))
            ]
        starts = [0, *accumulate(counts)]
        rows = np.searchsorted(self.rows, starts).tolist()
        errors = np.searchsorted([error.index for error in self.errors], starts).tolist()
        return [
            Tokenized(
                self.batch.between(first, last),
                self.rows[first:last] - start,
                self.unknown[first:last],
                self.truncated[first:last],
                [replace(error, index=error.index - start) for error in self.errors[first_error:last_error]],
            )
            for start, (first, last), (first_error, last_error) in zip(
                starts, pairwise(rows), pairwise(errors), strict=False
            )
        ]


class Tokenizer(Protocol):
    """Turns sequences into token ids; the same code at training and at serving."""

    @property
    def kind(self) -> str:
        """Name of the tokenizer's kind in a manifest."""

    @property
    def vocab_size(self) -> int:
        """One more than the highest id; ids of special tokens included."""

    def tokenize(self, sequences: Sequence[bytes | str], max_length: int, truncate: bool = False) -> Tokenized:
        """Tokenize a request; sequences of more than `max_length` tokens fail, or are cut when `truncate` is set."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a sequence of ids; the inverse of tokenizing where no token was unknown or cut."""

    def to_json(self) -> str:
        """Content of tokenizer.json."""


class NoTokenizer:
    """Stands where an encoder reads float features: no string can be read."""

    kind: ClassVar[str] = "none"
    vocab_size: ClassVar[int] = 0

    def tokenize(self, sequences: Sequence[bytes | str], max_length: int, truncate: bool = False) -> Tokenized:
        """Fail every sequence."""
        return assemble(sequences, max_length, truncate, self._refuse)

    def _refuse(self, sequence: bytes | str) -> list[int]:
        raise SequenceError(ItemErrorCode.UNKNOWN_CHARACTERS, "this encoder reads float features, and no strings")

    def decode(self, ids: Sequence[int]) -> str:
        """Nothing, for nothing."""
        return ""

    def to_json(self) -> str:
        """Content of a tokenizer.json, which a bundle of such an encoder does not have."""
        return json.dumps({"kind": self.kind}) + "\n"


class SequenceError(ValueError):
    """One sequence cannot be tokenized."""

    def __init__(self, code: ItemErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def decode_sequence(sequence: bytes | str) -> str:
    """Text of one sequence.

    Raises:
        SequenceError: It is empty or not valid UTF-8.
    """
    if not sequence:
        raise SequenceError(ItemErrorCode.EMPTY, "the sequence is empty; leave it out or send at least one token")
    if isinstance(sequence, str):
        return sequence
    try:
        return sequence.decode()
    except UnicodeDecodeError as error:
        raise SequenceError(
            ItemErrorCode.NOT_UTF8,
            f"byte {error.start} (0x{sequence[error.start]:02x}) is not valid UTF-8; encode the text as UTF-8",
        ) from None


def too_long(tokens: int, max_length: int) -> SequenceError:
    """Error of a sequence of more tokens than an encoder accepts."""
    return SequenceError(
        ItemErrorCode.TOO_LONG,
        f"the sequence has {tokens} tokens and this encoder accepts {max_length}; shorten it, or ask for truncation",
    )


def assemble(
    sequences: Sequence[bytes | str],
    max_length: int,
    truncate: bool,
    ids_of: Callable[[bytes | str], Sequence[int]],
    *,
    unknown_id: int | None = UNKNOWN_ID,
    tail: Sequence[int] = (),
) -> Tokenized:
    """Tokenize one sequence after another, and keep the books.

    Args:
        sequences: What to tokenize.
        max_length: Most tokens of a sequence.
        truncate: Cut longer ones instead of failing them.
        ids_of: Ids of one sequence, at least one; raises SequenceError.
        unknown_id: The id to count as unknown; None for none.
        tail: Ids that every sequence ends with, and still does when it was cut.
    """
    flat: list[int] = []
    lengths: list[int] = []
    rows: list[int] = []
    unknown: list[int] = []
    truncated: list[int] = []
    errors: list[ItemError] = []
    for index, sequence in enumerate(sequences):
        try:
            ids = ids_of(sequence)
            cut = max(0, len(ids) - max_length)
            if cut and not truncate:
                raise too_long(len(ids), max_length)
        except SequenceError as error:
            errors.append(ItemError(index, error.code, str(error)))
            continue
        if cut:
            ids = [*ids[: max(0, max_length - len(tail))], *tail][:max_length]
        flat.extend(ids)
        lengths.append(len(ids))
        rows.append(index)
        unknown.append(0 if unknown_id is None else ids.count(unknown_id))
        truncated.append(cut)
    return Tokenized(
        RaggedBatch(np.array(flat, dtype=np.int32), offsets_of(np.array(lengths, dtype=np.int64))),
        np.array(rows, dtype=np.intp),
        np.array(unknown, dtype=np.int64),
        np.array(truncated, dtype=np.int64),
        errors,
    )


def within_vocabulary(tokenized: Tokenized, vocab_size: int) -> Tokenized:
    """`tokenized`, with every sequence failed that holds an id of `vocab_size` or more; features have none.

    A tokenizer that fits its encoder gives no such id. An engine would refuse one with the whole batch that it is in.
    """
    batch = tokenized.batch
    if batch.features or batch.tokens == 0 or batch.ids.view(np.uint32).max() < vocab_size:
        return tokenized
    good = batch.count(batch.ids.view(np.uint32) >= vocab_size) == 0
    reason = f"the tokenizer gave an id beyond this encoder's vocabulary of {vocab_size}; its bundle is broken"
    errors = [
        ItemError(row, ItemErrorCode.UNKNOWN_CHARACTERS, reason) for row in tokenized.rows[~good].tolist()
    ] + tokenized.errors
    return Tokenized(
        batch.take(np.flatnonzero(good)),
        tokenized.rows[good],
        tokenized.unknown[good],
        tokenized.truncated[good],
        sorted(errors, key=lambda error: error.index),
    )


def load_tokenizer(kind: str, text: str) -> Tokenizer:
    """Build a tokenizer from the content of its tokenizer.json.

    Raises:
        BundleError: The kind is unknown, or the content is not a tokenizer of that kind.
    """
    # Imported here because these modules build on this one.
    from birnn_bundle.huggingface import HuggingFaceTokenizer
    from birnn_bundle.smiles import SmilesTokenizer
    from birnn_bundle.text import TextTokenizer
    from birnn_bundle.vocabulary import VocabularyTokenizer

    kinds: dict[str, Callable[[str], Tokenizer]] = {
        SmilesTokenizer.kind: SmilesTokenizer.from_json,
        TextTokenizer.kind: TextTokenizer.from_json,
        VocabularyTokenizer.kind: VocabularyTokenizer.from_json,
        HuggingFaceTokenizer.kind: HuggingFaceTokenizer.from_json,
    }
    if kind not in kinds:
        raise BundleError(f"unknown tokenizer kind {shown(kind)}; this version knows {', '.join(sorted(kinds))}")
    return kinds[kind](text)
