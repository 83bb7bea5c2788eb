from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from birnn_export.tensor_file import ALIGNMENT, TensorFile


def test_tensors_are_read_back_from_aligned_places(tmp_path: Path) -> None:
    arrays: dict[str, NDArray[Any]] = {
        "a": np.arange(7, dtype=np.float32),
        "b": np.eye(3, dtype=np.float32).T[:, 1:],
        "c": np.arange(3),
    }
    with TensorFile(tmp_path / "weights.bin") as file:
        for name, values in arrays.items():
            file.add(name, values)
    for number, (name, values) in enumerate(arrays.items()):
        initializer = file.initializers[name]
        place = {entry.key: entry.value for entry in initializer.external_data}
        assert place["location"] == "weights.bin"
        assert int(place["offset"]) == number * ALIGNMENT
        assert (numpy_helper.to_array(initializer, str(tmp_path)) == values).all()


def test_a_tensor_cannot_be_added_twice(tmp_path: Path) -> None:
    with TensorFile(tmp_path / "weights.bin") as file:
        file.add("a", np.zeros(2))
        with pytest.raises(ValueError, match="'a' was added twice"):
            file.add("a", np.zeros(2))
