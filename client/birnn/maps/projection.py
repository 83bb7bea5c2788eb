"""Projects vectors to two dimensions."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from birnn.maps.points import MapError

Method = Literal["pca", "umap"]


def project(vectors: NDArray[np.float32], method: Method, seed: int) -> tuple[NDArray[np.float64], tuple[str, str]]:
    """Project vectors to two dimensions.

    PCA uses the two directions of largest variance, and the axes name the share of variance that each explains. UMAP
    (McInnes et al., 2018) keeps neighbors together, but its distances mean little.

    Args:
        vectors: float32 [n, D].
        method: "pca" or "umap".
        seed: Seed of UMAP.

    Returns:
        Points, float64 [n, 2], and the names of the two axes.

    Raises:
        MapError: The method is "umap", and umap-learn is not installed.
    """
    if method == "umap":
        return _umap(vectors, seed), ("UMAP 1", "UMAP 2")
    centered = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    u, s, directions = np.linalg.svd(centered, full_matrices=False)
    # The sign of a direction is arbitrary. Fix it so that results are repeatable.
    s_two = np.zeros(2)
    s_two[: min(2, len(s))] = s[:2]
    places = np.zeros((len(vectors), 2))
    for axis in range(min(2, len(s))):
        sign = np.sign(directions[axis][np.abs(directions[axis]).argmax()])
        places[:, axis] = sign * u[:, axis] * s[axis]
    shares = s_two**2 / max(float((s**2).sum()), np.finfo(np.float64).tiny)
    return places, (f"PC 1 ({shares[0]:.0%} of variance)", f"PC 2 ({shares[1]:.0%} of variance)")


def _umap(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    try:
        from umap import UMAP
    except ModuleNotFoundError as error:
        raise MapError("--method umap needs umap-learn: pip install umap-learn") from error
    places: NDArray[np.float64] = UMAP(n_components=2, random_state=seed).fit_transform(vectors).astype(np.float64)
    return places
