"""Arrays kept in files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from birnn_export.training.cache import Arrays, cached

ARRAYS: Arrays = {"one": np.arange(6, dtype=np.uint16).reshape(2, 3), "none": np.zeros(0, np.float32)}


def counting() -> tuple[Callable[[], Arrays], list[None]]:
    """A way to compute, and a list that grows by one at every call."""
    calls: list[None] = []

    def compute() -> Arrays:
        calls.append(None)
        return ARRAYS

    return compute, calls


def same(arrays: Arrays) -> bool:
    return arrays.keys() == ARRAYS.keys() and all(
        np.array_equal(arrays[name], value) and arrays[name].dtype == value.dtype for name, value in ARRAYS.items()
    )


def test_computed_once_a_name_and_request(tmp_path: Path) -> None:
    compute, calls = counting()
    folder = tmp_path / "deep" / "cache"
    for _ in range(2):
        assert same(cached(folder, "numbers", ("version 1", "CCO"), compute))
    assert len(calls) == 1
    for name, request in (("numbers", ("version 2", "CCO")), ("numbers", ("version 1CCO",)), ("others", ("CCO",))):
        assert same(cached(folder, name, request, compute))
    assert len(calls) == len(list(folder.iterdir())) == 4


def test_without_a_folder_nothing_is_kept() -> None:
    compute, calls = counting()
    for _ in range(2):
        assert same(cached(None, "numbers", (), compute))
    assert len(calls) == 2


@pytest.mark.parametrize("size", [0, 30, -30])
def test_damage_is_computed_again_and_replaced(tmp_path: Path, size: int) -> None:
    compute, calls = counting()
    cached(tmp_path, "numbers", (), compute)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:size])
    for _ in range(2):
        assert same(cached(tmp_path, "numbers", (), compute))
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == [file]
