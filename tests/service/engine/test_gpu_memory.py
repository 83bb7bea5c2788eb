"""Who gets how much of a GPU's memory; what CUDA says of it is made up here."""

import logging
from pathlib import Path

import pytest

from birnn_bundle.bundle import Bundle
from birnn_service.engine import gpu_memory
from birnn_service.engine.cuda_engine import MAX_CELLS
from birnn_service.engine.engine import Output
from birnn_service.engine.gpu_memory import GpuMemory
from birnn_service.engine.memory_need import MemoryNeed
from birnn_service.engine.stored_graph import stored_graph
from birnn_service.errors import StartupError

MIB = 1 << 20
MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of 16 GiB, of which 10 are free."""
    monkeypatch.setattr(gpu_memory, "device_memory", lambda: (10_000 * MIB, 16_000 * MIB))


def test_each_gets_what_it_needs_while_there_is_plenty() -> None:
    memory = GpuMemory(8000)
    assert [memory.reserve(name, 100 * MIB, 1000 * MIB).bytes // MIB for name in "abcd"] == [1000] * 4


def test_nobody_gets_more_than_half_of_what_is_left_unless_it_needs_that(caplog: pytest.LogCaptureFixture) -> None:
    memory = GpuMemory(1000)
    granted = [memory.reserve(name, 100 * MIB, 800 * MIB).bytes // MIB for name in "abcd"]
    assert granted == [500, 250, 125, 100]
    assert "a gets 500 MiB of GPU memory and would make use of 800" in caplog.text


def test_a_load_that_does_not_fit_is_refused_with_numbers_and_the_setting() -> None:
    memory = GpuMemory(1000)
    running = memory.reserve("smiles/1", 700 * MIB, 700 * MIB)
    message = r"^smiles/2 needs at least 301 MiB of GPU memory, and 300 of 1000 MiB are left beside smiles/1 700 MiB: "
    with pytest.raises(StartupError, match=message + r".*--gpu-memory-mib$"):
        memory.reserve("smiles/2", 300 * MIB + 1, 700 * MIB)
    memory.reserve("smiles/2", 300 * MIB, 700 * MIB)
    running.release()
    running.release()
    assert memory.reserve("smiles/3", 1, 10_000 * MIB).bytes == 350 * MIB


def test_by_default_it_is_most_of_what_is_free_at_the_first_load(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = GpuMemory()
    assert memory.reserve("a", MIB, 20_000 * MIB).bytes == 4000 * MIB
    # What it has taken itself does not make the total smaller.
    monkeypatch.setattr(gpu_memory, "device_memory", lambda: (0, 16_000 * MIB))
    assert memory.reserve("b", MIB, 20_000 * MIB).bytes == 2000 * MIB


def test_more_than_the_gpu_has_is_refused() -> None:
    with pytest.raises(StartupError, match="--gpu-memory-mib 20000: the GPU has 16000 MiB in all"):
        GpuMemory(20_000).reserve("a", 1, 2)


def test_where_cuda_does_not_say_the_log_says_what_is_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unknown() -> tuple[int, int]:
        raise OSError("no runtime")

    monkeypatch.setattr(gpu_memory, "device_memory", unknown)
    with caplog.at_level(logging.WARNING):
        assert GpuMemory().reserve("a", 1, 10_000 * MIB).bytes == 2048 * MIB
    assert "(no runtime): 4096 MiB are taken at most" in caplog.text
    assert GpuMemory(6000).reserve("a", 1, 10_000 * MIB).bytes == 3000 * MIB


@pytest.mark.parametrize("slots", [1, 2])
def test_batches_fit_the_memory_whatever_it_is(slots: int) -> None:
    bundle = Bundle.load(MODELS / "smiles" / "2")
    manifest = bundle.manifest
    need = MemoryNeed.of(manifest, stored_graph(bundle, Output.POOLED), slots, MAX_CELLS)
    weights = 4 * sum(len(bundle.files[name]) for name in bundle.files if name.endswith(".bin"))
    assert need.least > weights + need.cell * manifest.max_length
    assert need.cells(need.most) == MAX_CELLS
    assert need.cells(10 * need.most) == MAX_CELLS
    for memory in (need.least, (need.least + need.most) // 2, need.most):
        cells = need.cells(memory)
        assert min(cells.values()) >= need.longest
        assert sum(map(need.arena, cells.values())) + 2 * need.handles <= memory
