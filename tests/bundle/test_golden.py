from pathlib import Path

import numpy as np
import pytest

from birnn_bundle.errors import BundleError
from birnn_bundle.golden import Golden
from birnn_bundle.ragged import RaggedBatch


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_stored_vectors_that_are_not_finite_are_refused(tmp_path: Path, wrong: float) -> None:
    # Such come of weights that half precision cannot hold; nothing can be compared with them later.
    golden = Golden(RaggedBatch.from_lists([[1, 2]]), np.array([[wrong]]), np.zeros((2, 1)))
    golden.save(tmp_path / "golden.safetensors")
    with pytest.raises(BundleError, match="must be finite numbers"):
        Golden.from_bytes((tmp_path / "golden.safetensors").read_bytes())
