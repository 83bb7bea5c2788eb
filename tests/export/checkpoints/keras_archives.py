"""Archives with files of real Keras, and what Keras itself computed with them."""

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


def unpacked(archive: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of an archive that lies here."""
    folder = tmp_path_factory.mktemp(archive.partition(".")[0])
    with tarfile.open(Path(__file__).parent / archive) as files:
        files.extractall(folder, filter="data")
    return folder


def expected_in(folder: Path) -> Mapping[str, NDArray[Any]]:
    """What Keras computed, by file."""
    with np.load(folder / "expected.npz") as arrays:
        return dict(arrays)
