"""Files of real Keras, and what Keras itself computes with them; see `make_keras_files.py`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from numpy.typing import NDArray

from tests.export.checkpoints.keras_archives import expected_in, unpacked


@pytest.fixture(scope="package")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked("keras_files.tar.xz", tmp_path_factory)


@pytest.fixture(scope="package")
def expected(files: Path) -> Mapping[str, NDArray[Any]]:
    """Vectors by file; `ids` and `lengths` of what they are of."""
    return expected_in(files)
