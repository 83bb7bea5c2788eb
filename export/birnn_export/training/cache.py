"""Arrays that take long to compute, kept in files."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from birnn_bundle.atomic_file import replacing

Arrays = dict[str, NDArray[Any]]


def cached(folder: Path | None, name: str, request: Iterable[str], compute: Callable[[], Arrays]) -> Arrays:
    """What `compute` gives, from `folder` where it was kept under the same name for the same `request`.

    Lines of `request` say everything that the arrays depend on, versions of code and libraries too. A damaged file is
    computed again. Without a folder nothing is kept.
    """
    if folder is None:
        return compute()
    path = folder / f"{name}-{_digest(request)}.npz"
    arrays = _load(path)
    if arrays is None:
        arrays = compute()
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            # Typed as if an array could take the place of allow_pickle.
            np.savez(file, **arrays)  # type: ignore[arg-type]
    return arrays


def _digest(request: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in request:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()[:16]


def _load(path: Path) -> Arrays | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ValueError, EOFError):
        return None
