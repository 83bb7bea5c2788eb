"""How well frozen vectors tell the similarity of two sentences: by their cosine, and by a regression on top of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack, issparse
from scipy.stats import pearsonr, spearmanr
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.quality.heads import regressor
from bench.quality.sentence_pairs import Matrix, SentencePairs, Vectorize

COSINE = "cosine"
REGRESSIONS = ("ridge", "SVM")


@dataclass(frozen=True)
class Similarity:
    """Correlations of one kind of vectors with the scores of people.

    Attributes:
        vectors: Which ones.
        dimension: Their width.
        method: `cosine`, or the regression.
        pairs: Which pairs were tested, and how many.
        count: Number of these pairs.
    """

    vectors: str
    dimension: int
    method: str
    pairs: str
    count: int
    pearson: float
    spearman: float


def judge(
    name: str, vectorize: Vectorize, train: SentencePairs, dev: SentencePairs, regressions: tuple[str, ...]
) -> list[Similarity]:
    """Score `vectorize` on all pairs of `dev`, and on those that share no sentence with `train`.

    The regressions see |u - v| and u * v of the vectors u and v of a pair (Tai et al., ACL 2015), and the scores of
    `train`; the cosine sees neither.
    """
    first, second = vectorize(dev.first), vectorize(dev.second)
    predicted = {COSINE: cosine(first, second)}
    if regressions:
        seen = _features(vectorize(train.first), vectorize(train.second))
        for one in regressions:
            # Sparse counts are not standardized: a rare word would outweigh all.
            scale = "passthrough" if issparse(seen) else StandardScaler()
            model: Any = make_pipeline(scale, regressor(one)).fit(seen, train.score)
            predicted[one] = model.predict(_features(first, second))
    chosen = {"all": np.arange(len(dev.score)), "no sentence in training": dev.without(train)}
    return [
        Similarity(
            name,
            first.shape[1],
            method,
            pairs,
            len(rows),
            float(pearsonr(values[rows], dev.score[rows]).statistic),
            float(spearmanr(values[rows], dev.score[rows]).statistic),
        )
        for method, values in predicted.items()
        for pairs, rows in chosen.items()
        if len(rows) > 1
    ]


def cosine(first: Matrix, second: Matrix) -> NDArray[np.float64]:
    """Cosines [n] of the rows of two matrices; 0 where one of them is empty."""
    products, lengths = _row_sums(first, second), _row_sums(first, first) * _row_sums(second, second)
    cosines: NDArray[np.float64] = products / np.sqrt(np.where(lengths > 0, lengths, 1.0))
    return cosines


def _row_sums(first: Matrix, second: Matrix) -> NDArray[np.float64]:
    """Sums [n] over the products of two matrices."""
    products = first.multiply(second) if isinstance(first, csr_matrix) else np.multiply(first, second)
    return np.asarray(products.sum(axis=1), np.float64).ravel()


def _features(first: Matrix, second: Matrix) -> Matrix:
    if isinstance(first, csr_matrix):
        stacked: csr_matrix = hstack([abs(first - second), first.multiply(second)], format="csr")
        return stacked
    return np.concatenate([np.abs(first - second), np.multiply(first, second)], axis=1)
