"""How the sequences of a request become tokens: strings are tokenized, ids and float features are checked.

Sequences that cannot be read fail alone.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.errors import ItemError, ItemErrorCode
from birnn_bundle.manifest import Manifest
from birnn_bundle.ragged import RaggedBatch, offsets_of
from birnn_bundle.record import record
from birnn_bundle.tokenizer import SequenceError, Tokenized, Tokenizer, too_long, within_vocabulary
from birnn_service.catalog import Encoder, label_of
from birnn_service.errors import InvalidRequestError

Sequences = Sequence[bytes] | RaggedBatch
"""UTF-8 strings; or token ids, of callers who tokenize themselves; or float features."""


@record
class Reading:
    """How the sequences of one request are read.

    Attributes:
        label: What is read, by which it is known how long a byte takes.
        sizes: Bytes of each sequence.
        read: Reads the sequences from one position to another.
        strings: How they are read together with those of other requests, if they are strings.
    """

    label: str
    sizes: list[int]
    read: Callable[[int, int], Tokenized]
    strings: "Strings | None" = None


class StringReader(NamedTuple):
    """How strings are read; those of requests with equal readers can be read together.

    Attributes:
        tokenizer: Of the encoder.
        vocab_size: Ids of the encoder.
        max_length: Most tokens of a sequence.
        max_bytes: Longest string.
        truncate: Cut sequences of more tokens at their end instead of failing them.
    """

    tokenizer: Tokenizer
    vocab_size: int
    max_length: int
    max_bytes: int
    truncate: bool

    def read(self, sequences: Sequence[bytes]) -> Tokenized:
        """Tokenize strings; see `reading_of`."""
        tokenized = tokenize(
            self.tokenizer,
            sequences,
            max_length=self.max_length,
            max_bytes=self.max_bytes,
            truncate=self.truncate,
        )
        return within_vocabulary(tokenized, self.vocab_size)


class Strings(NamedTuple):
    """The strings of a request, and how they are read."""

    reader: StringReader
    sequences: Sequence[bytes]


def reading_of(encoder: Encoder, sequences: Sequences, *, truncate: bool, max_bytes: int) -> Reading:
    """How an encoder reads the sequences of a request.

    Args:
        encoder: Reads them.
        sequences: Of the kind that it reads.
        truncate: Cut long sequences at their end instead of failing them.
        max_bytes: Longest string; longer ones fail before they are looked at, whether they may be cut or not.

    Raises:
        InvalidRequestError: It does not read sequences of this kind, or of this number of features.
    """
    manifest, label = encoder.manifest, label_of(encoder)
    if not isinstance(sequences, RaggedBatch):
        _check_kind(manifest, "strings")
        reader = StringReader(encoder.tokenizer, manifest.vocab_size, manifest.max_length, max_bytes, truncate)
        sizes = [size if size <= max_bytes else 0 for size in map(len, sequences)]
        return Reading(label, sizes, lambda start, end: reader.read(sequences[start:end]), Strings(reader, sequences))
    if sequences.holds_ids:
        _check_kind(manifest, "ids")
        read: Callable[..., Tokenized] = partial(read_ids, vocab_size=manifest.vocab_size)
        # Ids are read faster than the strings from which they come.
        label += " by ids"
    else:
        _check_kind(manifest, "features")
        check_width(sequences, manifest.features)
        read = read_features
    sizes = (sequences.values.itemsize * max(1, sequences.features) * sequences.lengths).tolist()
    read_some = partial(read, max_length=manifest.max_length, truncate=truncate)
    return Reading(label, sizes, lambda start, end: read_some(sequences.between(start, end)))


def _check_kind(manifest: Manifest, sent: str) -> None:
    """Refuse what an encoder does not read."""
    if manifest.features and sent != "features":
        raise InvalidRequestError(
            f"encoder {manifest.name!r} reads {manifest.features} float features a step; send features and lengths "
            f"instead of {sent}"
        )
    if not manifest.features and sent == "features":
        raise InvalidRequestError(f"encoder {manifest.name!r} reads strings; send sequences instead of features")


def tokenize(
    tokenizer: Tokenizer, sequences: Sequence[bytes], *, max_length: int, max_bytes: int, truncate: bool
) -> Tokenized:
    """Tokenize strings; see `reading_of`."""
    oversized = [index for index, sequence in enumerate(sequences) if len(sequence) > max_bytes]
    if not oversized:
        return tokenizer.tokenize(sequences, max_length, truncate)
    kept = np.delete(np.arange(len(sequences), dtype=np.intp), oversized)
    rest = tokenizer.tokenize([sequences[index] for index in kept.tolist()], max_length, truncate)
    errors = [ItemError(int(kept[error.index]), error.code, error.reason) for error in rest.errors]
    errors += [
        ItemError(
            index,
            ItemErrorCode.TOO_LONG,
            f"the sequence has {len(sequences[index])} bytes and this server accepts {max_bytes}; shorten it",
        )
        for index in oversized
    ]
    errors.sort(key=lambda error: error.index)
    return Tokenized(rest.batch, kept[rest.rows], rest.unknown, rest.truncated, errors)


def read_ids(batch: RaggedBatch, *, vocab_size: int, max_length: int, truncate: bool) -> Tokenized:
    """Check sequences of ids; empty and long ones, and those with an id that the encoder does not have, fail alone.

    Args:
        batch: The sequences.
        vocab_size: One more than the highest id of the encoder.
        max_length: Most tokens of a sequence.
        truncate: Cut longer ones at their end instead of failing them.
    """

    def unknown(ids: NDArray[Any], position: int) -> SequenceError:
        return SequenceError(
            ItemErrorCode.UNKNOWN_CHARACTERS,
            f"token {position} is {ids[position]}, and the ids of this encoder go from 0 to {vocab_size - 1}; send "
            "those of its tokenizer.json",
        )

    # Negative ids are large ones, seen as unsigned.
    broken = np.asarray(batch.ids.view(np.uint32) >= vocab_size)
    return _read_batch(batch, broken, unknown, max_length=max_length, truncate=truncate)


def batch_of(values: bytes, lengths: list[int]) -> RaggedBatch:
    """Sequences of features from the bytes of a request.

    Args:
        values: float32, little-endian, row-major, [sum of lengths, F].
        lengths: Steps of each sequence.

    Raises:
        InvalidRequestError: The bytes are not of as many steps as the lengths say.
    """
    steps = sum(lengths)
    if len(values) % (4 * steps or 4) or (not steps and values):
        raise InvalidRequestError(
            f"the features are {len(values)} bytes, which are not {steps} steps (the sum of the lengths) of float32"
        )
    matrix = np.frombuffer(values, dtype="<f4").reshape(steps, -1 if steps else 0)
    return RaggedBatch(matrix.astype(np.float32, copy=False), offsets_of(np.array(lengths, dtype=np.int64)))


def check_width(batch: RaggedBatch, width: int) -> None:
    """Refuse sequences of another number of features than the `width` that an encoder reads.

    Raises:
        InvalidRequestError: They have another number.
    """
    if batch.tokens and batch.features != width:
        raise InvalidRequestError(f"the sequences have {batch.features} features a step and this encoder reads {width}")


def read_features(batch: RaggedBatch, *, max_length: int, truncate: bool) -> Tokenized:
    """Check sequences of features; empty, long and not finite ones fail alone.

    Args:
        batch: The sequences.
        max_length: Most steps of a sequence.
        truncate: Cut longer ones at their end instead of failing them.
    """

    def not_finite(values: NDArray[Any], step: int) -> SequenceError:
        feature = int(np.flatnonzero(~np.isfinite(values[step]))[0])
        return SequenceError(
            ItemErrorCode.NOT_FINITE,
            f"feature {feature} of step {step} is {values[step, feature]}; send finite numbers",
        )

    broken = np.asarray(~np.isfinite(batch.values).all(axis=1))
    return _read_batch(batch, broken, not_finite, max_length=max_length, truncate=truncate)


def _read_batch(
    batch: RaggedBatch,
    broken: NDArray[np.bool_],
    reason: Callable[[NDArray[Any], int], SequenceError],
    *,
    max_length: int,
    truncate: bool,
) -> Tokenized:
    """Check sequences; empty and long ones, and those with a broken token, fail alone.

    Args:
        batch: The sequences.
        broken: Which tokens the encoder cannot read [tokens].
        reason: Says what is wrong, from the tokens of a sequence and the position of its first broken one.
        max_length: Most tokens of a sequence.
        truncate: Cut longer ones instead of failing them.
    """
    lengths = batch.lengths
    over = np.maximum(lengths - max_length, 0)
    good = (lengths > 0) & (batch.count(broken) == 0) & ((over == 0) | truncate)

    def error(row: int) -> SequenceError:
        if not lengths[row]:
            return SequenceError(
                ItemErrorCode.EMPTY, "the sequence is empty; leave it out or send at least one token or step"
            )
        if over[row] and not truncate:
            return too_long(int(lengths[row]), max_length)
        return reason(batch.row(row), int(np.argmax(broken[batch.offsets[row] :])))

    errors = []
    for row in np.flatnonzero(~good).tolist():
        found = error(row)
        errors.append(ItemError(row, found.code, str(found)))
    rows = np.flatnonzero(good)
    kept = batch if len(rows) == len(batch) else batch.take(rows)
    return Tokenized(kept.cut(max_length), rows, np.zeros(len(rows), dtype=np.int64), over[rows], errors)
