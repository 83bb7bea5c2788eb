"""Page-locked memory, from a runtime that stands in for CUDA's."""

import ctypes
import logging
from collections.abc import Callable

import numpy as np
import pytest

from birnn_service.engine.pinned import pinned_bytes
from tests.service.engine.cuda_engines import WITHOUT_GPU


class Runtime:
    """Stands in for the CUDA runtime: page-locked memory is ordinary memory, and what is freed is remembered."""

    def __init__(self, status: int = 0) -> None:
        self.status = status
        self.memory: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.freed: list[int] = []

    def cudaHostAlloc(self, address: object, size: ctypes.c_size_t, flags: ctypes.c_uint) -> int:  # noqa: N802
        if self.status == 0:
            block = ctypes.create_string_buffer(size.value)
            self.memory[ctypes.addressof(block)] = block
            address._obj.value = ctypes.addressof(block)  # type: ignore[attr-defined]
        return self.status

    def cudaFreeHost(self, address: ctypes.c_void_p) -> int:  # noqa: N802
        assert address.value is not None
        self.freed.append(address.value)
        return 0


def test_page_locked_memory_lives_as_long_as_an_array_that_looks_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime()
    monkeypatch.setattr("birnn_service.engine.pinned.ctypes.CDLL", lambda _: runtime)
    memory = pinned_bytes(4096)
    assert memory.shape == (4096,)
    view = memory.view(np.float32)[10:20]
    view[:] = 3
    del memory
    assert runtime.freed == []
    assert (view == 3).all()
    del view
    assert runtime.freed == list(runtime.memory)


@pytest.mark.parametrize("cdll", [lambda _: Runtime(status=2), None], ids=["refused", "no runtime"])
def test_without_page_locked_memory_it_is_ordinary_memory_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, cdll: Callable[[str], Runtime] | None
) -> None:
    if cdll is None and not WITHOUT_GPU:
        pytest.skip("there is a CUDA runtime here")
    if cdll is not None:
        monkeypatch.setattr("birnn_service.engine.pinned.ctypes.CDLL", cdll)
    with caplog.at_level(logging.WARNING):
        memory = pinned_bytes(100)
    memory[:] = 1
    assert "ordinary memory" in caplog.text
