"""SMILES tokenization of a whole request at once, without a Python object for each token.

It reads the same language as the regular expression in `birnn_bundle.smiles`, which stays the definition: what this
reader does not understand at once (an error, a character outside ASCII) it leaves to that one.

Most tokens are one character, and a table turns those into ids. The others are made one character first: two-letter
elements by `bytes.replace`, the rest (bracket atoms, two-digit ring closures, reaction arrows) by taking them out and
leaving a placeholder. Both give what the regular expression would match: neither `l` nor `r` is a token or begins one,
and what is taken out begins with a character that is in no other token but the arrow, of which both take two at a time.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.record import record
from birnn_bundle.tokenizer import UNKNOWN_ID

SINGLE = "BCNOSPFIbcnosp().=#-+\\/:~@?>*$0123456789"
# Bytes outside ASCII that stand for longer tokens.
TAKEN, CHLORINE, BROMINE = b"\x80", b"\x81", b"\x82"
# As in the definition; its white space is what `str` calls so, and sequences end with a line feed.
LONG = re.compile(rb"(\[[^\[\]\t-\r\x1c-\x20]+\]|%[0-9]{2}|>>)")
END = b"\n"
UNREADABLE = -1


@record
class Scanned:
    """What was read.

    Attributes:
        batch: Token ids of the sequences that were understood.
        rest: Positions of the others, ascending.
    """

    batch: RaggedBatch
    rest: NDArray[np.intp]


NONE = np.empty(0, dtype=np.intp)


class ArrayReader:
    """Tokenizes lists of SMILES with one vocabulary."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        """Use the token ids of `ids`."""
        table = np.full(256, UNREADABLE, dtype=np.int32)
        for token in SINGLE:
            table[ord(token)] = ids.get(token, UNKNOWN_ID)
        table[CHLORINE[0]] = ids.get("Cl", UNKNOWN_ID)
        table[BROMINE[0]] = ids.get("Br", UNKNOWN_ID)
        # No ids, but readable.
        table[[TAKEN[0], END[0]]] = 0
        self._table = table
        self._readable = bytes(np.flatnonzero(table != UNREADABLE).tolist())
        self._long = {_shortened(token.encode()): number for token, number in ids.items()}

    def scan(self, sequences: Sequence[bytes]) -> Scanned:
        """Tokenize; an empty sequence is not understood."""
        if len(sequences) == 1 and (alone := self._scan_one(sequences[0])) is not None:
            return alone
        text = END.join([*sequences, b""])
        if not text.isascii() or text.count(END) != len(sequences):
            text = END.join([*(raw if raw.isascii() and END not in raw else b"" for raw in sequences), b""])
        parts = LONG.split(_shortened(text))
        singles = TAKEN.join(parts[::2])
        codes = np.frombuffer(singles, dtype=np.uint8)
        ids = self._ids_of(codes, parts)
        inside = codes != END[0]
        ends = (~inside).nonzero()[0]
        offsets = np.zeros(len(ends) + 1, dtype=np.int64)
        offsets[1:] = ends - np.arange(len(ends))
        batch = RaggedBatch(ids[inside], offsets)
        if not (singles.translate(None, self._readable) or singles.startswith(END) or 2 * END in singles):
            return Scanned(batch, NONE)
        understood = batch.lengths > 0
        understood[np.searchsorted(ends, np.flatnonzero(ids == UNREADABLE))] = False
        return Scanned(batch.take(np.flatnonzero(understood)), np.flatnonzero(~understood))

    def _scan_one(self, sequence: bytes) -> Scanned | None:
        """The same of one sequence, with no ends to look for; None if it is not understood."""
        parts = LONG.split(_shortened(sequence))
        singles = TAKEN.join(parts[::2])
        if not singles or not sequence.isascii() or END in singles or singles.translate(None, self._readable):
            return None
        ids = self._ids_of(np.frombuffer(singles, dtype=np.uint8), parts)
        return Scanned(RaggedBatch(ids, np.array([0, len(ids)], dtype=np.int64)), NONE)

    def _ids_of(self, codes: NDArray[np.uint8], parts: Sequence[bytes]) -> NDArray[np.int32]:
        """An id for each code; codes that stand for what was taken out get those of every second part."""
        ids: NDArray[np.int32] = self._table[codes]
        if len(parts) > 1:
            ids[codes == TAKEN[0]] = [self._long.get(token, UNKNOWN_ID) for token in parts[1::2]]
        return ids


def _shortened(text: bytes) -> bytes:
    """ASCII with one byte for each two-letter element."""
    return text.replace(b"Cl", CHLORINE).replace(b"Br", BROMINE)
