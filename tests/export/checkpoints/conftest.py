"""Files of real Keras, and what Keras itself computes with them; see `make_keras_files.py`."""

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ARCHIVE = Path(__file__).parent / "keras_files.tar.xz"


@pytest.fixture(scope="package")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="package")
def expected(files: Path) -> Mapping[str, NDArray[Any]]:
    """Vectors by file; `ids` and `lengths` of what they are of."""
    with np.load(files / "expected.npz") as arrays:
        return dict(arrays)
