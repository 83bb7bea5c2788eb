"""Pairs of sentences that people scored for similarity, and what an encoder has to beat on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import diags
from sklearn.feature_extraction.text import CountVectorizer

from birnn_bundle.corpus import read_pairs

TRAIN, DEV = "text/stsb-train.tsv:5:6:7", "text/stsb-dev.tsv:5:6:7"
"""Where the STS benchmark lies in a data folder, with the columns of scores and sentences."""

# float32 [n, D], an array or a sparse matrix: scipy has no types.
Matrix = Any
Vectorize = Callable[[Sequence[str]], Matrix]


@dataclass(frozen=True)
class SentencePairs:
    """n pairs of sentences; score float64 [n], from 0 (unrelated) to 5 (the same)."""

    first: list[str]
    second: list[str]
    score: NDArray[np.float64]

    @property
    def sentences(self) -> list[str]:
        """Every sentence once, in order."""
        return list(dict.fromkeys([*self.first, *self.second]))

    def without(self, seen: SentencePairs) -> NDArray[np.intp]:
        """Rows of the pairs that share no sentence with `seen`."""
        known = set(seen.sentences)
        rows = [row for row, pair in enumerate(zip(self.first, self.second, strict=True)) if not known & set(pair)]
        return np.array(rows, np.intp)


def read_sentence_pairs(folder: Path, entry: str) -> SentencePairs:
    """Read `FILE:SCORE:FIRST:SECOND` in a data folder. Raises SequenceFileError where that cannot be done."""
    pairs = read_pairs(str(folder / entry))
    return SentencePairs(
        [pair.first for pair in pairs], [pair.second for pair in pairs], np.array([pair.score for pair in pairs])
    )


def bags_of_words(sentences: Sequence[str], seen: Sequence[str]) -> dict[str, Vectorize]:
    """The set of lower-case words of a sentence, and the same weighted by rarity, as sparse matrices.

    The words are those of `sentences`. How rare they are is counted in `seen`, where a word that does not occur is as
    rare as one that occurs once. Products of two sentences are weighted by the logarithm of the inverse share.
    """
    words = CountVectorizer(token_pattern=r"\w+", binary=True, dtype=np.float32).fit(sentences)
    spread = np.asarray(words.transform(seen).sum(axis=0)).ravel()
    weights = diags(np.sqrt(np.log(len(seen) / spread.clip(1))).astype(np.float32))

    def weighted(those: Sequence[str]) -> Matrix:
        return words.transform(those) @ weights

    return {"set of words": words.transform, "set of words, weighted by rarity": weighted}
