"""SMILES tokenization of a whole request at once, on arrays of bytes instead of one Python object a token.

It reads the same language as the regular expression in `bundle.smiles`, which stays the definition: what this reader
does not understand at once (an error, a character outside ASCII, three `>` in a row) it leaves to that one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bundle.ragged import RaggedBatch, offsets_of
from bundle.tokenizer import UNKNOWN_ID

SINGLE = b"BCNOSPFIbcnosp().=#-+\\/:~@?>*$0123456789"
# First byte of each token of two bytes, and its second.
PAIRS = {b"B": b"r", b"C": b"l", b">": b">"}
OPEN, CLOSE, PERCENT = b"[]%"
# Keys of tokens outside brackets: a byte, a byte that begins a pair, a ring closure of two digits.
PAIR_KEY, RING_KEY, KEYS = 256, 512, 612
# Bracket atoms of so many bytes fit in one integer, whole: comparing two is exact.
WORD = 8

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def _mask(characters: bytes) -> Mask:
    """Which of the 256 bytes are among `characters`."""
    mask = np.zeros(256, dtype=bool)
    mask[list(characters)] = True
    return mask


IS_SINGLE = _mask(SINGLE)
IS_DIGIT = _mask(b"0123456789")
# White space ends a bracket atom's match, and bytes from 128 on are left to the regular expression.
IS_STRANGE = _mask(b"\t\n\v\f\r\x1c\x1d\x1e\x1f " + bytes(range(128, 256)))


@dataclass(frozen=True, slots=True)
class Scanned:
    """What was read.

    Attributes:
        batch: Token ids of the sequences that were understood.
        understood: Which sequences those are, bool [sequences].
    """

    batch: RaggedBatch
    understood: Mask


class ArrayReader:
    """Tokenizes lists of SMILES with one vocabulary."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        """Use the token ids of `ids`."""
        self._keys = np.full(KEYS, UNKNOWN_ID, dtype=np.int32)
        self._long: dict[bytes, int] = {}
        words: dict[int, int] = {}
        for token, number in ids.items():
            raw = token.encode()
            if raw[:1] == b"[":
                if len(raw) <= WORD:
                    words[int.from_bytes(raw, "little")] = number
                else:
                    self._long[raw] = number
            elif len(raw) == 1:
                self._keys[raw[0]] = number
            elif PAIRS.get(raw[:1]) == raw[1:]:
                self._keys[PAIR_KEY + raw[0]] = number
            elif raw[:1] == b"%" and len(raw) == 3 and raw[1:].isdigit():
                self._keys[RING_KEY + int(raw[1:])] = number
        order = sorted(words)
        self._words = np.array(order, dtype=np.uint64)
        self._word_ids = np.array([words[word] for word in order], dtype=np.int32)

    def scan(self, sequences: Sequence[bytes]) -> Scanned:
        """Tokenize; an empty sequence is not understood."""
        lengths = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))
        # A line feed behind each sequence keeps tokens from reaching into the next one; at the end is room for a word.
        data = np.frombuffer(b"\n".join(sequences) + b"\n" + bytes(WORD), dtype=np.uint8)
        starts = offsets_of(lengths + 1)[:-1]
        ends = starts + lengths
        size = len(data) - WORD

        depth, inside = _brackets(data[:size], starts, lengths)
        follows, broken = _outside(data[:size], inside)
        broken |= (depth < 0) | (depth > 1) | (inside & IS_STRANGE[data[:size]])
        # The line feeds that we put there are no part of any sequence.
        broken[ends] = depth[ends] != 0
        begins = ~follows & ~(inside & (data[:size] != OPEN))
        begins[ends] = False

        understood = ~np.logical_or.reduceat(broken, starts) & (lengths > 0)
        begins &= np.repeat(understood, lengths + 1)
        positions = np.flatnonzero(begins)
        counts = np.add.reduceat(begins, starts, dtype=np.int64)
        return Scanned(RaggedBatch(self._identify(data, positions), offsets_of(counts[understood])), understood)

    def _identify(self, data: Bytes, positions: NDArray[np.intp]) -> NDArray[np.int32]:
        """Ids of the tokens that begin at `positions`."""
        first, second = data[positions], data[positions + 1]
        keys = first.astype(np.intp)
        for lead, tail in PAIRS.items():
            keys[(first == lead[0]) & (second == tail[0])] = PAIR_KEY + lead[0]
        rings = np.flatnonzero(first == PERCENT)
        digits = data[positions[rings, None] + np.array([1, 2])].astype(np.intp) - ord("0")
        keys[rings] = RING_KEY + digits @ np.array([10, 1])
        ids = self._keys[keys]
        atoms = np.flatnonzero(first == OPEN)
        if len(atoms):
            ids[atoms] = self._identify_atoms(data, positions[atoms])
        return ids

    def _identify_atoms(self, data: Bytes, opens: NDArray[np.intp]) -> NDArray[np.int32]:
        """Ids of the bracket atoms that begin at `opens`."""
        closes = np.flatnonzero(data == CLOSE)
        lengths = closes[np.searchsorted(closes, opens)] + 1 - opens
        letters = data[opens[:, None] + np.arange(WORD)]
        letters[np.arange(WORD) >= lengths[:, None]] = 0
        words = letters.view("<u8")[:, 0]
        ids = np.full(len(opens), UNKNOWN_ID, dtype=np.int32)
        if len(self._words):
            places = np.minimum(np.searchsorted(self._words, words), len(self._words) - 1)
            found = (self._words[places] == words) & (lengths <= WORD)
            ids[found] = self._word_ids[places[found]]
        for atom in np.flatnonzero(lengths > WORD).tolist():
            raw = data[opens[atom] : opens[atom] + lengths[atom]].tobytes()
            ids[atom] = self._long.get(raw, UNKNOWN_ID)
        return ids


def _brackets(data: Bytes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> tuple[NDArray[np.int32], Mask]:
    """Depth behind each byte, counted anew in each sequence, and which bytes belong to a bracket atom."""
    opens, closes = data == OPEN, data == CLOSE
    depth = np.cumsum(opens.view(np.int8) - closes.view(np.int8), dtype=np.int32)
    before = np.where(starts > 0, depth[starts - 1], 0)
    depth -= np.repeat(before, lengths + 1).astype(np.int32)
    inside = (depth > 0) | closes
    # An empty pair is no atom: let its depth say so.
    depth[1:][opens[:-1] & closes[1:]] = -1
    return depth, inside


def _outside(data: Bytes, inside: Mask) -> tuple[Mask, Mask]:
    """Of the bytes outside brackets, which continue the token before them, and which cannot be read."""
    follows = np.zeros(len(data), dtype=bool)
    for lead, tail in PAIRS.items():
        follows[1:] |= (data[:-1] == lead[0]) & (data[1:] == tail[0])
    digit = IS_DIGIT[data]
    percent = data == PERCENT
    ring = np.zeros(len(data), dtype=bool)
    ring[:-2] = percent[:-2] & digit[1:-1] & digit[2:] & ~inside[1:-1] & ~inside[2:]
    follows[1:] |= ring[:-1]
    follows[2:] |= ring[:-2]
    follows &= ~inside
    arrow = data == ord(">")
    broken = ~(IS_SINGLE[data] | follows | ring)
    # Of three in a row the first two are one token, which only the regular expression knows.
    broken[2:] |= arrow[2:] & arrow[1:-1] & arrow[:-2]
    broken &= ~inside
    return follows, broken
