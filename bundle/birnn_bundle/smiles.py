"""SMILES tokenizer: a regular expression and a vocabulary, lossless or an error."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.errors import BundleError, ItemError, ItemErrorCode
from birnn_bundle.ragged import RaggedBatch, offsets_of
from birnn_bundle.smiles_arrays import ArrayReader
from birnn_bundle.tokenizer import (
    SPECIAL_TOKENS,
    UNKNOWN_ID,
    SequenceError,
    Tokenized,
    assemble,
    decode_sequence,
    too_long,
)

# After Schwaller et al., "Molecular Transformer", ACS Cent. Sci. 2019, 5, 1572: bracket atoms whole, two-letter
# elements before one-letter ones, ring closures above 9 whole.
TOKEN = re.compile(r"\[[^\[\]\s]+\]|Br|Cl|[BCNOSPFI]|[bcnosp]|[().=#\-+\\/:~@?]|>>|>|[*$]|%[0-9]{2}|[0-9]")


def split(smiles: str) -> list[str]:
    """Tokens of a SMILES; joined again they are the input, to the letter.

    Raises:
        SequenceError: A character belongs to no token; `findall` alone would drop it silently.
    """
    tokens: list[str] = TOKEN.findall(smiles)
    # Matches never overlap and keep their order, so equal lengths mean that nothing was dropped.
    if sum(map(len, tokens)) != len(smiles):
        raise unreadable(smiles)
    return tokens


def unreadable(smiles: str) -> SequenceError:
    """Error that names the first character of `smiles` that no token covers."""
    position = 0
    for match in TOKEN.finditer(smiles):
        if match.start() != position:
            break
        position = match.end()
    character = smiles[position]
    advice = (
        "send the SMILES alone, without a name or extension after white space"
        if character.isspace()
        else "it is not part of a SMILES"
    )
    return SequenceError(
        ItemErrorCode.UNKNOWN_CHARACTERS, f"cannot read character {character!r} at position {position}; {advice}"
    )


class SmilesTokenizer:
    """One id per SMILES token; tokens outside the vocabulary become `UNKNOWN_ID` and are counted."""

    kind: ClassVar[str] = "smiles"

    def __init__(self, vocabulary: Sequence[str]) -> None:
        """Use the tokens of `vocabulary` (without special ones), numbered in that order after the special ids."""
        self._tokens = [*SPECIAL_TOKENS, *vocabulary]
        self._ids = {token: number for number, token in enumerate(self._tokens)}
        if len(self._ids) != len(self._tokens):
            raise BundleError("a token stands more than once in the SMILES vocabulary")
        self._reader = ArrayReader(self._ids)

    @classmethod
    def train(cls, sequences: Iterable[str], minimum_count: int = 10) -> "SmilesTokenizer":
        """Collect the tokens that occur at least `minimum_count` times, most frequent first."""
        counts: Counter[str] = Counter()
        for smiles in sequences:
            counts.update(split(smiles))
        frequent = [token for token, count in counts.items() if count >= minimum_count]
        return cls(sorted(frequent, key=lambda token: (-counts[token], token)))

    @property
    def vocab_size(self) -> int:
        """Number of ids, the special ones included."""
        return len(self._tokens)

    def tokenize(self, sequences: Sequence[bytes | str], max_length: int, truncate: bool = False) -> Tokenized:
        """Tokenize a request; see `birnn_bundle.tokenizer.Tokenizer`."""
        raw = [text if isinstance(text, bytes) else text.encode(errors="surrogatepass") for text in sequences]
        scanned = self._reader.scan(raw)
        rest = scanned.rest
        if not len(rest):
            return _limited(scanned.batch, np.arange(len(raw)), max_length, truncate)
        others = assemble([sequences[row] for row in rest.tolist()], max_length, truncate, self._read)
        read = _limited(scanned.batch, np.delete(np.arange(len(raw)), rest), max_length, truncate)
        errors = read.errors + [replace(error, index=int(rest[error.index])) for error in others.errors]
        rows = np.concatenate([read.rows, rest[others.rows]])
        order = np.argsort(rows)
        return Tokenized(
            RaggedBatch.concatenate([read.batch, others.batch]).take(order),
            rows[order],
            np.concatenate([read.unknown, others.unknown])[order],
            np.concatenate([read.truncated, others.truncated])[order],
            sorted(errors, key=lambda error: error.index),
        )

    def _read(self, sequence: bytes | str) -> list[int]:
        """Ids of one sequence, by the definition of the language."""
        return [self._ids.get(token, UNKNOWN_ID) for token in split(decode_sequence(sequence))]

    def decode(self, ids: Sequence[int]) -> str:
        """SMILES of a sequence of ids."""
        return "".join(self._tokens[number] for number in ids)

    def to_json(self) -> str:
        """Content of tokenizer.json: the vocabulary in id order, special tokens left out."""
        return json.dumps({"kind": self.kind, "vocabulary": self._tokens[len(SPECIAL_TOKENS) :]}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "SmilesTokenizer":
        """Read what `to_json` wrote.

        Raises:
            BundleError: It is not a SMILES tokenizer.
        """
        try:
            content = json.loads(text)
            vocabulary = content["vocabulary"]
            if content["kind"] != cls.kind or not all(isinstance(token, str) for token in vocabulary):
                raise ValueError("not a SMILES vocabulary")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BundleError(f"tokenizer.json is not a SMILES tokenizer: {error}") from error
        return cls(vocabulary)


def _limited(batch: RaggedBatch, rows: NDArray[np.intp], max_length: int, truncate: bool) -> Tokenized:
    """What was read, with sequences of more than `max_length` tokens cut, or among the errors."""
    errors: list[ItemError] = []
    if batch.tokens <= max_length or not (batch.lengths > max_length).any():
        return Tokenized(batch, rows, _count_unknown(batch), np.zeros(len(rows), dtype=np.int64), errors)
    cut = np.maximum(batch.lengths - max_length, 0)
    if truncate:
        kept = np.arange(batch.tokens) - np.repeat(batch.offsets[:-1], batch.lengths) < max_length
        batch = RaggedBatch(batch.ids[kept], offsets_of(batch.lengths - cut))
    else:
        for item in np.flatnonzero(cut).tolist():
            error = too_long(int(batch.lengths[item]), max_length)
            errors.append(ItemError(int(rows[item]), error.code, str(error)))
        fitting = np.flatnonzero(cut == 0)
        batch, rows, cut = batch.take(fitting), rows[fitting], cut[fitting]
    return Tokenized(batch, rows, _count_unknown(batch), cut, errors)


def _count_unknown(batch: RaggedBatch) -> NDArray[np.int64]:
    """Unknown tokens of each sequence [n]."""
    unknown = batch.ids == UNKNOWN_ID
    if not unknown.any():
        return np.zeros(len(batch), dtype=np.int64)
    return batch.count(unknown)
