"""Pairs of sentences that people scored for similarity, and what an encoder has to beat on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from export.corpus import read_pairs

TRAIN, DEV = "text/stsb-train.tsv:5:6:7", "text/stsb-dev.tsv:5:6:7"
"""Where the STS benchmark lies in a data folder, with the columns of scores and sentences."""

RAREST = 2
"""Sentences of the training file below which a word is left out of a bag: it could not be learned from."""

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
    """Read `FILE:SCORE:FIRST:SECOND` in a data folder. Raises CorpusError where that cannot be done."""
    pairs = read_pairs(str(folder / entry))
    return SentencePairs(
        [pair.first for pair in pairs], [pair.second for pair in pairs], np.array([pair.score for pair in pairs])
    )


def bags_of_words(sentences: Sequence[str]) -> dict[str, Vectorize]:
    """Counts of lower-case words, and the same weighted by their rarity among `sentences`, as sparse matrices."""
    words: dict[str, Any] = {"token_pattern": r"\w+", "min_df": RAREST, "dtype": np.float32}
    return {
        "word counts": CountVectorizer(**words).fit(sentences).transform,
        "word counts by rarity (tf-idf)": TfidfVectorizer(**words).fit(sentences).transform,
    }
